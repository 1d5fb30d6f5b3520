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
		Action: func(c *cli.Context) error {
			if err := list(c, w, c.StringSlice("filter")); err != nil {
				return err
			}
			return w.sayDue(c)
		},
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

func list(c *cli.Context, w *world, filters []string) error {
	return listWith(c, w, filters, func(_ *session, list []*index.Experiment) ([]*index.Experiment, error) { return list, nil })
}

// listWith carries out ls and ps, which sees some things otherwise than the storage.
func listWith(c *cli.Context, w *world, filters []string, seen func(*session, []*index.Experiment) ([]*index.Experiment, error)) error {
	if c.NArg() > 0 {
		return replicate.Errorf(replicate.Usage, "%s takes no arguments, got %q", c.Command.Name, c.Args().First()).
			WithHint("replicate show %s shows one experiment", c.Args().First())
	}
	if c.Bool("quiet") && (c.Bool("json") || c.Bool("all-params")) {
		return replicate.Errorf(replicate.Usage, "-q prints ids only: it excludes --json and -p")
	}
	if c.Int("last") < 0 {
		return replicate.Errorf(replicate.Usage, "-n wants a number of experiments, got %d", c.Int("last"))
	}
	for _, filter := range filters { // also where nothing was recorded yet
		if _, err := index.ParseFilter(filter); err != nil {
			return err
		}
	}
	return w.with(c, func(s *session) error {
		experiments, err := s.list(index.Query{Filters: filters, Sort: c.String("sort"), Last: c.Int("last"), Brief: !c.Bool("json")})
		if err != nil {
			return err
		}
		if experiments, err = seen(s, experiments); err != nil {
			return err
		}
		err = w.print(func(out *bufio.Writer) error {
			s.writeList(out, experiments, c)
			return nil
		})
		w.sayOnItsWay(s.ctx, s.project)
		return err
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
	now := w.now()
	nameless := slices.ContainsFunc(experiments, func(e *index.Experiment) bool { return e.ID == "" }) // a host is all that is known of it
	all := []listColumn{
		{name: "experiment", cell: func(e *index.Experiment) string { return e.ID.Short() }},
		{name: "name", cell: func(e *index.Experiment) string { return e.Name }, shown: anyText},
		{name: "started", cell: func(e *index.Experiment) string { return ago(now, e.Created) }},
		{name: "status", cell: func(e *index.Experiment) string { return string(e.Status) }},
		{name: "host", cell: func(e *index.Experiment) string { return e.Host }, shown: func(cells []string) bool { return nameless || differ(cells) }},
		{name: "user", cell: func(e *index.Experiment) string { return e.User }, shown: differ},
	}
	all = append(all, paramColumns(experiments, allParams)...)
	metrics, primary := listMetrics(experiments, config)
	all = append(all, commitColumns("latest commit", metrics, func(e *index.Experiment) *index.Commit { return e.Latest })...)
	if primary {
		all = append(all, commitColumns("best commit", metrics, func(e *index.Experiment) *index.Commit { return e.Best })...)
	}
	all = append(all, listColumn{name: "tags", cell: func(e *index.Experiment) string { return strings.Join(e.Tags, " ") }, shown: anyText})

	cells := cellsOf(all, experiments)
	t := new(table)
	for i, c := range all {
		if c.shown == nil || c.shown(cells[i]) {
			t.columns = append(t.columns, column{name: c.name, cells: cells[i], optional: c.values != nil})
		}
	}
	return t
}

// listColumn is a column that ls may show.
type listColumn struct {
	name   string
	cell   func(*index.Experiment) string
	values []*replicate.Value        // the cells of a parameter, instead
	shown  func(cells []string) bool // nil: always
}

// cellsOf fills the columns, experiment by experiment: of each, all that is shown is then in the processor's cache.
func cellsOf(all []listColumn, experiments []*index.Experiment) [][]string {
	cells := make([][]string, len(all))
	for i := range cells {
		cells[i] = make([]string, len(experiments))
	}
	onAllStretches(len(experiments), func(from, to int) {
		for row := from; row < to; row++ {
			for i := range all {
				cells[i][row] = all[i].text(row, experiments[row])
			}
		}
	})
	return cells
}

func (c *listColumn) text(row int, e *index.Experiment) string {
	switch {
	case c.values == nil:
		return c.cell(e)
	case c.values[row] != nil:
		return c.values[row].String()
	}
	return ""
}

// commitColumns are the columns of one of the commits of each experiment.
func commitColumns(name string, metrics []string, of func(*index.Experiment) *index.Commit) []listColumn {
	all := []listColumn{{name: name, cell: func(e *index.Experiment) string { return commitLabel(of(e)) }}}
	for _, m := range metrics {
		all = append(all, listColumn{name: m, cell: func(e *index.Experiment) string { return commitMetric(of(e), m) }})
	}
	return all
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

// paramColumns are columns for each parameter that has at least two distinct values, missing being one of them.
func paramColumns(experiments []*index.Experiment, all bool) []listColumn {
	params := map[string][]*replicate.Value{}
	var before []listColumn // those of the parameters of the experiment before: most often the same in the same order
	for i, e := range experiments {
		flat := e.Params.Flat(".")
		for j := range flat {
			name := flat[j].Name
			if j == len(before) || before[j].name != name {
				if params[name] == nil {
					params[name] = make([]*replicate.Value, len(experiments))
				}
				before = append(before[:j], listColumn{name: name, values: params[name]})
			}
			before[j].values[i] = &flat[j].Value
		}
	}
	var columns []listColumn
	for _, name := range sortedKeys(params) {
		if all || anyDiffers(params[name]) {
			columns = append(columns, listColumn{name: name, values: params[name]})
		}
	}
	return columns
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
