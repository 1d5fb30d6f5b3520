package main

import (
	"bufio"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
)

const lsHelp = `Lists experiments, the newest next to the prompt. Parameters are shown if they differ
among the listed experiments; metrics are shown for the latest and for the best commit.

A filter is an expression over parameters, metrics and facts:

    replicate ls -f 'learning_rate < 0.1 and loss.best < 0.3'
    replicate ls -f 'status = failed and created > 2d ago' -s created-desc

docs/query.md has the whole language. Exit code 1 means that some record could not be read.`

func lsCommand(w *world) *cli.Command {
	return &cli.Command{
		Name: "ls", Aliases: []string{"list"},
		Usage:       "list experiments",
		Description: lsHelp,
		Flags:       append(listFlags(), storageFlags()...),
		Action:      func(c *cli.Context) error { return list(c, w, c.StringSlice("filter")) },
	}
}

func listFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "filter", Aliases: []string{"f"}, Usage: "only experiments for which `QUERY` holds (repeat for and)"},
		&cli.StringFlag{Name: "sort", Aliases: []string{"s"}, Usage: "sort by `NAME`, NAME-asc or NAME-desc"},
		&cli.BoolFlag{Name: "all-params", Aliases: []string{"p"}, Usage: "show all parameters, not only those that differ"},
		&cli.IntFlag{Name: "last", Aliases: []string{"n"}, Usage: "only the last `N`"},
		&cli.BoolFlag{Name: "json", Usage: "print JSON"},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print ids only"},
	}
}

// list carries out ls and ps.
func list(c *cli.Context, w *world, filters []string) error {
	if c.NArg() > 0 {
		return replicate.Errorf(replicate.Usage, "%s takes no arguments, got %q", c.Command.Name, c.Args().First()).
			WithHint("replicate show %s shows one experiment", c.Args().First())
	}
	if c.Bool("quiet") && (c.Bool("json") || c.Bool("all-params")) {
		return replicate.Errorf(replicate.Usage, "-q prints ids only: it excludes --json and -p")
	}
	return w.with(c, func(s *session) error {
		experiments, err := s.list(index.Query{Filters: filters, Sort: c.String("sort"), Last: c.Int("last"), Brief: !c.Bool("json")})
		if err != nil {
			return err
		}
		return w.print(func(out *bufio.Writer) error {
			s.writeList(out, experiments, c)
			return nil
		})
	})
}

func (s *session) writeList(out *bufio.Writer, experiments []*index.Experiment, c *cli.Context) {
	switch {
	case c.Bool("json"):
		writeJSONList(out, experiments)
	case c.Bool("quiet"):
		for _, e := range experiments {
			out.WriteString(string(e.ID) + "\n")
		}
	case len(experiments) == 0:
		s.w.say("no experiments found")
	default:
		t := listTable(s.w, experiments, s.project.Config, c.Bool("all-params"))
		if left := t.write(out, s.w.width); len(left) > 0 {
			s.w.say("columns left out: %s", strings.Join(left, ", "))
		}
	}
}

func writeJSONList(out *bufio.Writer, experiments []*index.Experiment) {
	var buf []byte
	out.WriteByte('[')
	for i, e := range experiments {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString("\n  ")
		buf = e.AppendJSON(buf[:0])
		out.Write(buf)
	}
	if len(experiments) > 0 {
		out.WriteByte('\n')
	}
	out.WriteString("]\n")
}

// listTable lays out the columns of ls.
func listTable(w *world, experiments []*index.Experiment, config *replicate.Config, allParams bool) *table {
	t := new(table)
	now := w.now()
	column := func(cell func(*index.Experiment) string) []string {
		cells := make([]string, len(experiments))
		for i, e := range experiments {
			cells[i] = cell(e)
		}
		return cells
	}
	name := column(func(e *index.Experiment) string { return e.Name })
	host := column(func(e *index.Experiment) string { return e.Host })
	user := column(func(e *index.Experiment) string { return e.User })
	tags := column(func(e *index.Experiment) string { return strings.Join(e.Tags, " ") })

	t.add("experiment", column(func(e *index.Experiment) string { return e.ID.Short() }))
	if anyText(name) {
		t.add("name", name)
	}
	t.add("started", column(func(e *index.Experiment) string { return ago(now, e.Created) }))
	t.add("status", column(func(e *index.Experiment) string { return string(e.Status) }))
	if differ(host) {
		t.add("host", host)
	}
	if differ(user) {
		t.add("user", user)
	}
	addParams(t, experiments, allParams)
	metrics, primary := listMetrics(experiments, config)
	t.add("latest commit", column(func(e *index.Experiment) string { return commitLabel(e.Latest) }))
	for _, m := range metrics {
		t.add(m, column(func(e *index.Experiment) string { return commitMetric(e.Latest, m) }))
	}
	if primary {
		t.add("best commit", column(func(e *index.Experiment) string { return commitLabel(e.Best) }))
		for _, m := range metrics {
			t.add(m, column(func(e *index.Experiment) string { return commitMetric(e.Best, m) }))
		}
	}
	if anyText(tags) {
		t.add("tags", tags)
	}
	return t
}

func commitLabel(c *index.Commit) string {
	switch {
	case c == nil:
		return ""
	case c.Step == replicate.NoStep:
		return c.ID.Short()
	}
	return c.ID.Short() + " (step " + step(c.Step) + ")"
}

func commitMetric(c *index.Commit, name string) string {
	if c == nil {
		return ""
	}
	return metricOf(c.Metrics, name)
}

// addParams adds a column for each parameter that has at least two distinct values, missing being one of them.
func addParams(t *table, experiments []*index.Experiment, all bool) {
	columns := map[string][]*replicate.Value{}
	for i, e := range experiments {
		params := e.Params.Flat(".")
		for j := range params {
			values := columns[params[j].Name]
			if values == nil {
				values = make([]*replicate.Value, len(experiments))
				columns[params[j].Name] = values
			}
			values[i] = &params[j].Value
		}
	}
	for _, name := range sortedKeys(columns) {
		values := columns[name]
		if !all && !anyDiffers(values) {
			continue
		}
		cells := make([]string, len(values))
		for i, v := range values {
			if v != nil {
				cells[i] = v.String()
			}
		}
		t.addOptional(name, cells)
	}
}

// anyDiffers reports whether the values, nil for missing, are not all the same.
func anyDiffers(values []*replicate.Value) bool {
	first := values[0]
	return slices.ContainsFunc(values, func(v *replicate.Value) bool {
		return (v == nil) != (first == nil) || v != nil && !v.Equal(*first)
	})
}

// listMetrics returns the metrics that ls shows: the primary ones, else those of replicate.yaml, else the first four names
// of the latest commits.
func listMetrics(experiments []*index.Experiment, config *replicate.Config) (names []string, primary bool) {
	add := func(name string) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for _, e := range experiments {
		if e.Primary != nil {
			add(e.Primary.Name)
		}
	}
	if len(names) > 0 {
		slices.Sort(names)
		return names, true
	}
	for _, m := range config.Metrics {
		add(m.Name)
	}
	if len(names) > 0 {
		return names, false
	}
	for _, e := range experiments {
		if e.Latest != nil {
			for _, m := range e.Latest.Metrics {
				add(m.Name)
			}
		}
	}
	slices.Sort(names)
	return names[:min(4, len(names))], false
}

func anyText(cells []string) bool {
	return slices.ContainsFunc(cells, func(s string) bool { return s != "" })
}

func differ(cells []string) bool {
	return slices.ContainsFunc(cells, func(s string) bool { return s != cells[0] })
}
