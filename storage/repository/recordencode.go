package repository

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/replicate/replicate"
)

// An encoder writes one JSON object key by key, in the order of the calls. The first error stays.
type encoder struct {
	buf []byte
	err error
}

func (e *encoder) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
}

func (e *encoder) key(key string) {
	if b := e.buf[len(e.buf)-1]; b != '{' {
		e.buf = append(e.buf, ',')
	}
	e.buf = append(e.buf, '"')
	e.buf = append(e.buf, key...)
	e.buf = append(e.buf, '"', ':')
}

// text, id, time, values and object leave out what is zero.
func (e *encoder) text(key, s string) {
	if s != "" {
		e.key(key)
		e.buf = replicate.AppendJSONString(e.buf, s)
	}
}

func (e *encoder) id(key string, id replicate.ID) {
	if id == "" {
		return
	}
	if _, err := replicate.ParseID(string(id)); err != nil {
		e.fail("%s: %w", key, err)
	}
	e.text(key, string(id))
}

// mustID is id for keys that a record cannot be without.
func (e *encoder) mustID(key string, id replicate.ID) {
	if id == "" {
		e.fail("%s: no id", key)
	}
	e.id(key, id)
}

func (e *encoder) time(key string, t time.Time) {
	if t.IsZero() {
		return
	}
	t = t.UTC()
	if y := t.Year(); y < 0 || y > 9999 {
		e.fail("%s: year %d", key, y)
	}
	e.key(key)
	e.buf = append(e.buf, '"')
	e.buf = t.AppendFormat(e.buf, time.RFC3339Nano)
	e.buf = append(e.buf, '"')
}

func (e *encoder) mustTime(key string, t time.Time) {
	if t.IsZero() {
		e.fail("%s: no time", key)
	}
	e.time(key, t)
}

func (e *encoder) values(key string, vs replicate.Values) {
	if len(vs) > 0 {
		e.key(key)
		e.buf = vs.AppendJSON(e.buf)
	}
}

func (e *encoder) texts(key string, list []string) {
	if len(list) == 0 {
		return
	}
	e.key(key)
	e.list(len(list), func(i int) { e.buf = replicate.AppendJSONString(e.buf, list[i]) })
}

func (e *encoder) list(n int, element func(i int)) {
	e.buf = append(e.buf, '[')
	for i := range n {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		element(i)
	}
	e.buf = append(e.buf, ']')
}

func (e *encoder) count(key string, n int64) {
	if n < 0 {
		e.fail("%s: %d", key, n)
	}
	e.key(key)
	e.int(n)
}

func (e *encoder) int(n int64) { e.buf = strconv.AppendInt(e.buf, n, 10) }

func (e *encoder) hash(h replicate.Hash) {
	e.buf = append(e.buf, '"')
	e.buf = appendHex(e.buf, h[:])
	e.buf = append(e.buf, '"')
}

func appendHex(dst, src []byte) []byte {
	const digits = "0123456789abcdef"
	for _, b := range src {
		dst = append(dst, digits[b>>4], digits[b&15])
	}
	return dst
}

// object writes a pointer to a struct with JSON tags. encoding/json ends it with a line end, which goes.
func object[T any](e *encoder, key string, t *T) {
	if t == nil {
		return
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(t); err != nil {
		e.fail("%s: %w", key, err)
	}
	e.key(key)
	e.buf = append(e.buf, bytes.TrimSuffix(b.Bytes(), []byte{'\n'})...)
}

func (e *encoder) ref(r Ref) {
	if err := r.check(); err != nil {
		e.fail("frame: %w", err)
	}
	if r.Pack.IsZero() || r.Hash.IsZero() {
		e.fail("frame without a pack or hash")
	}
	e.buf = append(e.buf, `{"pack":`...)
	e.hash(r.Pack)
	for _, n := range []struct {
		key string
		n   uint32
	}{{"off", r.Off}, {"len", r.Len}, {"raw", r.Raw}} {
		e.key(n.key)
		e.int(int64(n.n))
	}
	e.key("hash")
	e.hash(r.Hash)
	e.buf = append(e.buf, '}')
}

func (e *encoder) row(r Row) {
	if len(r.Tree) > 0 {
		e.key("tree")
		e.list(len(r.Tree), func(i int) { e.ref(r.Tree[i]) })
	}
	e.packs(r)
}

func (e *encoder) packs(r Row) {
	if len(r.Packs) > 0 {
		e.key("packs")
		e.list(len(r.Packs), func(i int) {
			if r.Packs[i].IsZero() {
				e.fail("packs: no name")
			}
			e.hash(r.Packs[i])
		})
	}
	e.texts("lost", r.Lost)
}

func (r Record) appendLine(dst []byte) ([]byte, error) {
	e := &encoder{buf: append(dst, '{')}
	n := 0
	for _, row := range []struct {
		set    bool
		append func(*encoder)
	}{
		{r.Experiment != nil, r.Experiment.append}, {r.Commit != nil, r.Commit.append}, {r.Stream != nil, r.Stream.append},
		{r.Set != nil, r.Set.append}, {r.Delete != nil, r.Delete.append}, {r.Digest != nil, r.Digest.append},
	} {
		if row.set {
			n++
			row.append(e)
		}
	}
	if n != 1 {
		return nil, errors.New("a record holds exactly one row")
	}
	return append(e.buf, '}'), e.err
}

func (r *ExperimentRow) append(e *encoder) {
	e.mustID("experiment", r.ID)
	e.time("created", r.Created)
	e.text("name", r.Name)
	e.text("user", r.User)
	e.text("host", r.Host)
	e.text("directory", r.Directory)
	e.texts("command", r.Command)
	e.values("params", r.Params)
	if m := r.Metric; m != nil {
		e.texts("metric", []string{m.Name, string(m.Goal)})
	}
	e.id("parent", r.Parent)
	e.text("status", string(r.Status))
	e.time("ended", r.Ended)
	if r.ExitCode != nil {
		e.key("exit_code")
		e.int(int64(*r.ExitCode))
	}
	object(e, "error", r.Failure)
	if len(r.Tags) > 0 {
		e.key("tags")
		e.buf = appendTags(e.buf, r.Tags)
	}
	e.text("note", r.Note)
	object(e, "git", r.Git)
	object(e, "python", r.Python)
	object(e, "machine", r.Machine)
	object(e, "run", r.Run)
	e.values("environment", r.Environment)
	e.row(r.Row)
	e.time("before", r.Before)
}

func (r *CommitRow) append(e *encoder) {
	e.mustID("commit", r.ID)
	e.mustID("experiment", r.Experiment)
	e.id("parent", r.Parent)
	e.count("seq", r.Seq)
	e.time("time", r.Time)
	if r.Step != replicate.NoStep {
		e.key("step")
		e.int(int64(r.Step))
	}
	e.values("metrics", r.Metrics)
	e.text("message", r.Message)
	e.row(r.Row)
	e.count("files", r.Files)
	e.count("bytes", r.Bytes)
	e.count("added", r.Added)
	e.time("before", r.Before)
}

func (r *StreamRow) append(e *encoder) {
	if r.Stream == "" || r.Writer == "" || r.From < 0 || r.From > r.To || (r.Frame == nil) == (r.Inline == nil) {
		e.fail("stream %q of writer %q, [%d, %d): incomplete", r.Stream, r.Writer, r.From, r.To)
	}
	e.text("stream", string(r.Stream))
	e.mustID("experiment", r.Experiment)
	e.text("writer", r.Writer)
	e.count("seq", r.Seq)
	e.key("range")
	e.list(2, func(i int) { e.int([2]int64{r.From, r.To}[i]) })
	if r.Frame != nil {
		e.key("frame")
		e.ref(*r.Frame)
	}
	if r.Inline != nil {
		e.key("inline")
		e.buf = append(e.buf, '"')
		e.buf = base64.StdEncoding.AppendEncode(e.buf, r.Inline)
		e.buf = append(e.buf, '"')
	}
	if len(r.Summary) > 0 {
		e.key("summary")
		e.buf = appendSummaries(e.buf, r.Summary)
	}
	e.packs(r.Row)
	e.time("before", r.Before)
}

func (s *Set) append(e *encoder) {
	e.mustID("set", s.Experiment)
	e.mustTime("at", s.At)
	e.text("by", s.By)
	for _, name := range slices.Sorted(maps.Keys(s.Fields)) {
		if name == "set" || name == "at" || name == "by" || !json.Valid(s.Fields[name]) {
			e.fail("field %q: %q", name, s.Fields[name])
			continue
		}
		if len(e.buf) > 1 {
			e.buf = append(e.buf, ',')
		}
		e.buf = replicate.AppendJSONString(e.buf, name)
		e.buf = append(e.buf, ':')
		var b bytes.Buffer
		if err := json.Compact(&b, s.Fields[name]); err != nil {
			e.fail("field %q: %w", name, err)
		}
		e.buf = append(e.buf, b.Bytes()...)
	}
}

func (d *Delete) append(e *encoder) {
	e.mustID("delete", d.ID)
	e.id("experiment", d.Experiment)
	e.mustTime("at", d.At)
	e.text("by", d.By)
}
