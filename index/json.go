package index

import (
	"strconv"
	"time"

	"github.com/replicate/replicate"
)

// AppendJSON appends e as one line of `replicate ls --json` and of experiments.jsonl. Keys are only ever added.
func (e *Experiment) AppendJSON(dst []byte) []byte {
	o := object{dst: append(dst, '{')}
	o.text("id", string(e.ID))
	o.textOrNull("name", e.Name)
	o.time("created", e.Created)
	o.time("ended", e.Ended)
	o.text("status", string(e.Status))
	o.raw("running", strconv.AppendBool(nil, e.Status == replicate.Running))
	if e.ExitCode != nil {
		o.raw("exit_code", strconv.AppendInt(nil, int64(*e.ExitCode), 10))
	} else {
		o.raw("exit_code", null)
	}
	o.text("user", e.User)
	o.text("host", e.Host)
	o.list("command", e.Command)
	o.raw("params", e.Params.AppendJSON(nil))
	o.list("tags", e.Tags)
	o.textOrNull("note", e.Note)
	o.textOrNull("parent", string(e.Parent))
	o.raw("num_commits", strconv.AppendInt(nil, e.Commits, 10))
	o.commit("latest_commit", e.Latest)
	o.commit("best_commit", e.Best)
	if e.Primary != nil {
		primary := object{dst: []byte{'{'}}
		primary.text("name", e.Primary.Name)
		primary.text("goal", string(e.Primary.Goal))
		o.raw("primary_metric", append(primary.dst, '}'))
	} else {
		o.raw("primary_metric", null)
	}
	metrics := object{dst: []byte{'{'}}
	for _, m := range e.Metrics {
		points := object{dst: []byte{'{'}}
		points.point("last", m.Last)
		points.point("best", m.Best(m.Goal))
		points.point("min", m.Min)
		points.point("max", m.Max)
		points.point("first", m.First)
		metrics.raw(m.Name, append(points.dst, '}'))
	}
	o.raw("metrics", append(metrics.dst, '}'))
	return append(o.dst, '}')
}

// AppendJSON appends c as it stands in `replicate show --json`.
func (c *Commit) AppendJSON(dst []byte) []byte {
	o := object{dst: append(dst, '{')}
	o.text("id", string(c.ID))
	if c.Step == replicate.NoStep {
		o.raw("step", null)
	} else {
		o.raw("step", strconv.AppendInt(nil, int64(c.Step), 10))
	}
	o.time("created", c.Time)
	o.raw("metrics", c.Metrics.AppendJSON(nil))
	return append(o.dst, '}')
}

var null = []byte("null")

// object appends the members of a JSON object in the order of the calls.
type object struct{ dst []byte }

func (o *object) raw(name string, value []byte) {
	if o.dst[len(o.dst)-1] != '{' {
		o.dst = append(o.dst, ',')
	}
	o.dst = replicate.AppendJSONString(o.dst, name)
	o.dst = append(o.dst, ':')
	o.dst = append(o.dst, value...)
}

func (o *object) text(name, value string) { o.raw(name, replicate.AppendJSONString(nil, value)) }

func (o *object) textOrNull(name, value string) {
	if value == "" {
		o.raw(name, null)
		return
	}
	o.text(name, value)
}

func (o *object) time(name string, t time.Time) {
	if t.IsZero() {
		o.raw(name, null)
		return
	}
	o.text(name, t.UTC().Format(time.RFC3339Nano))
}

func (o *object) list(name string, texts []string) {
	list := []byte{'['}
	for i, text := range texts {
		if i > 0 {
			list = append(list, ',')
		}
		list = replicate.AppendJSONString(list, text)
	}
	o.raw(name, append(list, ']'))
}

func (o *object) commit(name string, c *Commit) {
	if c == nil {
		o.raw(name, null)
		return
	}
	o.raw(name, c.AppendJSON(nil))
}

func (o *object) point(name string, p *replicate.Point) {
	if p == nil {
		o.raw(name, null)
		return
	}
	o.raw(name, p.Value.AppendJSON(nil))
}
