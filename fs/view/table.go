package view

import (
	"bufio"
	"context"
	"maps"
	"slices"
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

// renderTable writes experiments.csv or experiments.jsonl.
func (v *View) renderTable(ctx context.Context, k kind, w *bufio.Writer) error {
	experiments, _, err := v.index.List(ctx, index.Query{})
	if err != nil {
		return err
	}
	if k == experimentsJSONL {
		var line []byte
		for _, e := range experiments {
			line = append(e.AppendJSON(line[:0]), '\n')
			w.Write(line)
		}
		return nil
	}
	writeExperiments(w, experiments)
	return nil
}

func writeExperiments(w *bufio.Writer, experiments []*index.Experiment) {
	flat := make([]replicate.Values, len(experiments))
	isParam, isMetric := make(map[string]bool), make(map[string]bool)
	for i, e := range experiments {
		flat[i] = e.Params.Flat(".")
		for _, p := range flat[i] {
			isParam[p.Name] = true
		}
		for _, m := range e.Metrics {
			isMetric[m.Name] = true
		}
	}
	params, metrics := slices.Sorted(maps.Keys(isParam)), slices.Sorted(maps.Keys(isMetric))
	t := &table{w: w}
	t.header(params, metrics, isParam, isMetric)
	for i, e := range experiments {
		t.experiment(e)
		for _, name := range params {
			t.value(flat[i], name)
		}
		t.metrics(e.Metrics, metrics)
		t.end()
	}
}

// header names the columns as the query language does: what a plain name would not mean gets its qualified form.
func (t *table) header(params, metrics []string, isParam, isMetric map[string]bool) {
	for _, name := range []string{"id", "name", "created", "status", "user", "host", "command", "tags", "duration", "commits"} {
		t.cell(name)
	}
	taken := make(map[string]bool)
	for _, m := range metrics {
		taken[m], taken[m+".last"], taken[m+".best"] = true, true, true
	}
	for _, p := range params {
		if builtin[p] || taken[p] {
			p = "param." + p
		}
		t.cell(p)
	}
	for _, m := range metrics {
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

func (t *table) experiment(e *index.Experiment) {
	t.cell(string(e.ID))
	t.cell(e.Name)
	t.time(e.Created)
	t.cell(string(e.Status))
	t.cell(e.User)
	t.cell(e.Host)
	t.cell(commandLine(e.Command))
	t.cell(strings.Join(e.Tags, " "))
	duration := ""
	if !e.Ended.IsZero() {
		duration = strconv.FormatFloat(e.Ended.Sub(e.Created).Seconds(), 'f', 3, 64)
	}
	t.cell(duration)
	t.int(e.Commits)
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

// commandLine joins arguments as a shell would read them.
func commandLine(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		quoted[i] = a
		if a == "" || strings.ContainsFunc(a, needsQuotes) {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

func needsQuotes(r rune) bool {
	return r <= ' ' || strings.ContainsRune("\"'\\$`!*?[]{}()<>|&;~#", r)
}
