package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/remote"
	"github.com/replicate/replicate/storage/repository"
)

const showHelp = `Shows the page of an experiment or of a commit. ID is a unique prefix, an exact name,
EXP@best, EXP@latest, EXP@12 (the commit of step 12) or @latest (the newest experiment).`

func showCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "show",
		Usage:       "show an experiment or a commit",
		ArgsUsage:   "ID",
		Description: showHelp,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print JSON"},
			&cli.BoolFlag{Name: "all-params", Aliases: []string{"p"}, Usage: "show all metrics of the commits, not only the first four"},
			&cli.BoolFlag{Name: "files", Usage: "show mode, size, time and path of every file"},
		}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1, "ID"); err != nil {
				return err
			}
			return w.with(c, func(s *session) error {
				target, err := s.resolve(c.Args().First())
				if err != nil {
					return err
				}
				return w.print(func(out *bufio.Writer) error { return s.show(out, target, c) })
			})
		},
	}
}

func (s *session) show(out *bufio.Writer, t index.Target, c *cli.Context) error {
	switch {
	case c.Bool("files"):
		row, err := s.rowOf(t)
		if err != nil {
			return err
		}
		return s.showFiles(out, row, c.Bool("json"))
	case c.Bool("json"):
		return s.showJSON(out, t)
	case t.Commit != nil:
		s.showCommit(out, t)
		return nil
	}
	return s.showExperiment(out, t.Experiment, c.Bool("all-params"))
}

// facts prints "name:  value" lines with the values in one column, leaving out empty values.
func facts(out io.Writer, pairs ...[2]string) {
	pairs = slices.DeleteFunc(pairs, func(p [2]string) bool { return p[1] == "" })
	most := 0
	for _, p := range pairs {
		most = max(most, columns(p[0]))
	}
	for _, p := range pairs {
		fmt.Fprintf(out, "%s:%s  %s\n", printable(p[0]), strings.Repeat(" ", most-columns(p[0])), printable(p[1]))
	}
}

func (s *session) showExperiment(out *bufio.Writer, e *index.Experiment, allMetrics bool) error {
	fmt.Fprintf(out, "Experiment: %s\n\n", e.ID)
	facts(out,
		[2]string{"Name", e.Name},
		[2]string{"Created", e.Created.Local().Format(time.RFC1123)},
		[2]string{"Status", s.statusText(e)},
		[2]string{"Host", e.Host},
		[2]string{"User", e.User},
		[2]string{"Command", replicate.CommandLine(e.Command)},
		[2]string{"Tags", strings.Join(e.Tags, " ")},
		[2]string{"Note", e.Note},
		[2]string{"Parent", e.Parent.Short()},
		[2]string{"Git", gitText(e.Git)},
		[2]string{"Python", pythonText(e.Python)},
		[2]string{"Machine", machineText(e.Machine)},
		[2]string{"Image", imageOf(e)},
		[2]string{"Built of", builtOf(e)},
	)
	if e.Failure != nil {
		fmt.Fprintf(out, "\nFailure\n%s\n", strings.TrimRight(cmp.Or(e.Failure.Traceback, e.Failure.Type+": "+e.Failure.Message), "\n"))
	}
	showValues(out, "Params", e.Params.Flat("."))
	commits, err := s.index.CommitsOf(s.ctx, e.ID)
	if err != nil {
		return err
	}
	if logged := onlyLogged(e, commits); len(logged) > 0 {
		showValues(out, "Metrics", logged)
	}
	fmt.Fprintf(out, "\nCommits\n")
	if len(commits) == 0 {
		fmt.Fprintln(out, "(none)")
		return nil
	}
	s.commitTable(e, commits, allMetrics).write(out, 0)
	return nil
}

// onlyLogged is the last value of each metric that no commit has, and so the table of commits does not show.
func onlyLogged(e *index.Experiment, commits []*index.Commit) replicate.Values {
	var logged replicate.Values
	for _, m := range e.Metrics {
		if m.Last != nil && !slices.ContainsFunc(commits, func(c *index.Commit) bool { _, has := c.Metrics.Get(m.Name); return has }) {
			logged = append(logged, replicate.Member{Name: m.Name, Value: m.Last.Value})
		}
	}
	return logged
}

func showValues(out io.Writer, title string, values replicate.Values) {
	fmt.Fprintf(out, "\n%s\n", title)
	if len(values) == 0 {
		fmt.Fprintln(out, "(none)")
	}
	var pairs [][2]string
	for _, m := range values.Sorted() {
		pairs = append(pairs, [2]string{m.Name, cmp.Or(m.Value.String(), `""`)})
	}
	facts(out, pairs...)
}

// commitTable is a line per commit with its metrics, the best one marked.
func (s *session) commitTable(e *index.Experiment, commits []*index.Commit, allMetrics bool) *table {
	names := map[string]bool{}
	for _, c := range commits {
		for _, m := range c.Metrics {
			names[m.Name] = true
		}
	}
	shown := sortedKeys(names)
	if len(shown) > 4 && !allMetrics {
		shown = shown[:4]
		if e.Primary != nil && names[e.Primary.Name] {
			shown = append(without(shown[:3], e.Primary.Name), e.Primary.Name)
		}
	}
	column := func(cell func(*index.Commit) string) []string {
		cells := make([]string, len(commits))
		for i, c := range commits {
			cells[i] = cell(c)
		}
		return cells
	}
	t := new(table)
	t.add("id", column(func(c *index.Commit) string { return c.ID.Short() }))
	t.add("step", column(func(c *index.Commit) string { return step(c.Step) }))
	now := s.w.now()
	t.add("created", column(func(c *index.Commit) string { return ago(now, c.Time) }))
	for _, name := range shown {
		t.add(name, column(func(c *index.Commit) string {
			text := metricOf(c.Metrics, name)
			if e.Best != nil && c.ID == e.Best.ID && name == e.Primary.Name {
				text += " (best)"
			}
			return text
		}))
	}
	if message := column(func(c *index.Commit) string { return c.Message }); anyText(message) {
		t.add("message", message)
	}
	return t
}

func without(names []string, name string) []string {
	var rest []string
	for _, n := range names {
		if n != name {
			rest = append(rest, n)
		}
	}
	return rest
}

func (s *session) showCommit(out *bufio.Writer, t index.Target) {
	c, e := t.Commit, t.Experiment
	fmt.Fprintf(out, "Commit: %s\n\n", c.ID)
	facts(out,
		[2]string{"Created", c.Time.Local().Format(time.RFC1123)},
		[2]string{"Step", step(c.Step)},
		[2]string{"Message", c.Message},
		[2]string{"Files", filesText(c)},
		[2]string{"Experiment", string(e.ID)},
		[2]string{"Name", e.Name},
		[2]string{"Status", s.statusText(e)},
		[2]string{"Host", e.Host},
		[2]string{"User", e.User},
		[2]string{"Command", replicate.CommandLine(e.Command)},
	)
	showValues(out, "Params", e.Params.Flat("."))
	showValues(out, "Metrics", c.Metrics)
}

// filesText is how many files a commit has. Of one with a long id, of 2020 or 2021, that is not known before they are read.
func filesText(c *index.Commit) string {
	if c.ID.IsLegacy() && c.Files == 0 {
		return ""
	}
	return fmt.Sprintf("%d (%s)", c.Files, size(c.Bytes))
}

// statusText is the status with what is known of the end: "finished after 41 s", "failed (exit code 3) after 2 h 5 min".
func (s *session) statusText(e *index.Experiment) string {
	text := string(e.Status)
	if e.ExitCode != nil && *e.ExitCode != 0 {
		text += fmt.Sprintf(" (exit code %d)", *e.ExitCode)
	}
	switch {
	case !e.Ended.IsZero():
		text += " after " + lasted(e.Ended.Sub(e.Created))
	case e.Status == replicate.Running:
		text += " for " + lasted(s.w.now().Sub(e.Created))
	case slices.Contains(remote.CutOff(s.project, s.w.now()), e.ID):
		text += fmt.Sprintf(": %v; %s", remote.ErrCutOff, remote.GoesOn(e.ID))
	}
	return text
}

func gitText(g *replicate.Git) string {
	if g == nil {
		return ""
	}
	var more []string
	if g.Branch != "" {
		more = append(more, g.Branch)
	}
	switch {
	case g.Files > 0:
		more = append(more, plural(int64(g.Files), "file")+" changed")
	case g.Dirty:
		more = append(more, "changed")
	}
	text := g.Commit[:min(7, len(g.Commit))]
	if len(more) > 0 {
		text += " (" + strings.Join(more, ", ") + ")"
	}
	return text
}

func pythonText(p *replicate.Python) string {
	switch {
	case p == nil || p.Version == "":
		return ""
	case len(p.Packages) == 0:
		return p.Version
	}
	return fmt.Sprintf("%s (%s)", p.Version, plural(int64(len(p.Packages)), "package"))
}

func imageOf(e *index.Experiment) string {
	if e.Run == nil {
		return ""
	}
	return e.Run.Image
}

// builtOf says what the image of a run was built of.
func builtOf(e *index.Experiment) string {
	if e.Run == nil || e.Run.Installed == nil {
		return ""
	}
	i := e.Run.Installed
	parts := append([]string{cmp.Or(i.Image, i.Base)}, i.Steps...)
	return fmt.Sprintf("%s (%s by pip, %d by apt: --json lists them)", strings.Join(parts, ", "), plural(int64(len(i.Pip)), "package"), len(i.Apt))
}

func machineText(m *replicate.Machine) string {
	if m == nil {
		return ""
	}
	var parts []string
	if m.CPU != "" {
		parts = append(parts, m.CPU)
	}
	if m.Cores > 0 {
		parts = append(parts, plural(int64(m.Cores), "core"))
	}
	if m.Memory > 0 {
		parts = append(parts, size(m.Memory))
	}
	return strings.Join(append(parts, m.GPUs...), ", ")
}

// showJSON prints an experiment with its commits, or a commit with its experiment's id.
func (s *session) showJSON(out *bufio.Writer, t index.Target) error {
	if t.Commit != nil {
		line := t.Commit.AppendJSON(nil)
		extra, err := json.Marshal(struct {
			Experiment replicate.ID `json:"experiment"`
			Parent     replicate.ID `json:"parent,omitempty"`
			Message    string       `json:"message,omitempty"`
			Files      int64        `json:"files"`
			Bytes      int64        `json:"bytes"`
		}{t.Commit.Experiment, t.Commit.Parent, t.Commit.Message, t.Commit.Files, t.Commit.Bytes})
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s,%s\n", line[:len(line)-1], extra[1:])
		return nil
	}
	commits, err := s.index.CommitsOf(s.ctx, t.Experiment.ID)
	if err != nil {
		return err
	}
	line := t.Experiment.AppendJSON(nil)
	extra, err := json.Marshal(struct {
		Git         *replicate.Git     `json:"git"`
		Python      *replicate.Python  `json:"python"`
		Machine     *replicate.Machine `json:"machine"`
		Run         *replicate.Run     `json:"run"`
		Environment replicate.Values   `json:"environment"`
		Failure     *replicate.Failure `json:"error"`
	}{t.Experiment.Git, t.Experiment.Python, t.Experiment.Machine, t.Experiment.Run, t.Experiment.Environment, t.Experiment.Failure})
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%s,%s,\"commits\":[", line[:len(line)-1], extra[1:len(extra)-1])
	for i, c := range commits {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString("\n  ")
		out.Write(c.AppendJSON(nil))
	}
	fmt.Fprintln(out, "]}")
	return nil
}

// showFiles lists every path of a tree as ls -l would.
func (s *session) showFiles(out *bufio.Writer, row repository.Row, asJSON bool) error {
	tree, err := s.tree(row)
	if err != nil {
		return err
	}
	if asJSON {
		return filesJSON(out, tree)
	}
	for i := range tree.Entries {
		e := &tree.Entries[i]
		mode, path := fs.FileMode(e.Mode&0o777), printable(e.Path)
		switch e.Kind {
		case repository.Dir:
			mode, path = mode|fs.ModeDir, path+"/"
		case repository.Link:
			mode, path = mode|fs.ModeSymlink, path+" -> "+printable(e.Target)
		}
		fmt.Fprintf(out, "%s %11d %s %s\n", mode, e.Size, time.Unix(0, e.Mtime).Format("2006-01-02 15:04:05"), path)
	}
	return nil
}

func filesJSON(out *bufio.Writer, tree *repository.Tree) error {
	type file struct {
		Path   string `json:"path"`
		Kind   string `json:"kind"`
		Mode   string `json:"mode"`
		Size   int64  `json:"size"`
		Mtime  string `json:"mtime"`
		Target string `json:"target,omitempty"`
		Hash   string `json:"hash,omitempty"`
	}
	files := make([]file, len(tree.Entries))
	kinds := map[repository.EntryKind]string{repository.File: "file", repository.Dir: "directory", repository.Link: "symlink"}
	for i := range tree.Entries {
		e := &tree.Entries[i]
		files[i] = file{Path: e.Path, Kind: kinds[e.Kind], Mode: fmt.Sprintf("%04o", e.Mode), Size: e.Size,
			Mtime: time.Unix(0, e.Mtime).UTC().Format(time.RFC3339Nano), Target: e.Target}
		if e.Kind == repository.File {
			files[i].Hash = e.Hash.String()
		}
	}
	return json.NewEncoder(out).Encode(files)
}
