package view

import (
	"bufio"
	"context"
	"strconv"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
)

// builtin are the names of the query language that are no parameter and no metric.
var builtin = map[string]bool{
	"id": true, "name": true, "created": true, "started": true, "ended": true, "duration": true, "status": true, "user": true,
	"host": true, "command": true, "directory": true, "tag": true, "note": true, "step": true, "commits": true, "size": true,
	"parent": true, "python": true, "git.commit": true, "git.branch": true, "git.dirty": true, "gpu": true, "exit_code": true,
	"tags": true,
}

// renderTable writes experiments.csv or experiments.jsonl, if the index is still as it was when the node was made.
func (v *View) renderTable(ctx context.Context, id ID, w *bufio.Writer) error {
	size, err := v.tables(ctx, 0)
	if err != nil {
		return err
	}
	k := kind(id.entry())
	if tableID(k, size.version) != id {
		return ErrStale
	}
	t := &table{w: w}
	if k == experimentsCSV {
		t.header(size.columns)
	}
	var line []byte
	_, at, err := v.index.Each(ctx, 0, func(e *index.Experiment) error {
		if k == experimentsCSV {
			t.experiment(e, e.Params.Flat("."), size.columns)
			return nil
		}
		line = append(e.AppendJSON(line[:0]), '\n')
		_, err := w.Write(line)
		return err
	})
	if err == nil && at != size.version {
		return ErrStale
	}
	return err
}

// width is how many cells a row has.
func (c columnSet) width() int { return len(plainColumns) + len(c.Params) + 2*len(c.Metrics) }

// plainColumns are the ones that every experiment has.
var plainColumns = []string{"id", "name", "created", "status", "user", "host", "command", "tags", "duration", "commits"}

// header names the columns as the query language does: what a plain name would not mean gets its qualified form.
func (t *table) header(columns columnSet) {
	for _, name := range plainColumns {
		t.cell(name)
	}
	taken, isMetric := make(map[string]bool), make(map[string]bool)
	for _, m := range columns.Metrics {
		taken[m], taken[m+".last"], taken[m+".best"] = true, true, true
		isMetric[m] = true
	}
	for _, p := range columns.Params {
		if builtin[p] || taken[p] {
			p = "param." + p
		}
		t.cell(p)
	}
	for _, m := range columns.Metrics {
		for _, of := range []string{".last", ".best"} {
			name := m + of
			if isMetric[name] {
				name = "metric." + name
			}
			t.cell(name)
		}
	}
	t.end()
}

// experiment writes a row.
func (t *table) experiment(e *index.Experiment, params replicate.Values, columns columnSet) {
	t.cell(string(e.ID))
	t.cell(e.Name)
	t.time(e.Created)
	t.cell(string(e.Status))
	t.cell(e.User)
	t.cell(e.Host)
	t.cell(replicate.CommandLine(e.Command))
	t.cell(strings.Join(e.Tags, " "))
	duration := ""
	if !e.Ended.IsZero() {
		duration = strconv.FormatFloat(e.Ended.Sub(e.Created).Seconds(), 'f', 3, 64)
	}
	t.cell(duration)
	t.int(e.Commits)
	for _, name := range columns.Params {
		t.value(params, name)
	}
	t.metrics(e.Metrics, columns.Metrics)
	t.end()
}

// metrics writes last and best of each column; both lists are sorted by name.
func (t *table) metrics(have []index.Metric, columns []string) {
	for _, name := range columns {
		if len(have) == 0 || have[0].Name != name {
			t.cell("")
			t.cell("")
			continue
		}
		t.point(have[0].Last)
		t.point(have[0].Best(have[0].Goal))
		have = have[1:]
	}
}

func (t *table) point(p *replicate.Point) {
	if p == nil {
		t.cell("")
		return
	}
	t.present(p.Value)
}
