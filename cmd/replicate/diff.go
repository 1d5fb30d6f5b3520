package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

const diffHelp = `Shows what differs between two or more commits: parameters, metrics, packages, files.
An experiment stands for its best commit, else its latest.

With paths behind "--", prints a unified diff of these files of two commits:

    replicate diff 673 9cc -- train.py

The exit code is 0 with or without differences.`

func diffCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "diff",
		Usage:       "show what differs between commits",
		ArgsUsage:   "ID ID... [-- PATH...]",
		Description: diffHelp,
		Flags:       append([]cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}}, storageFlags()...),
		Action: func(c *cli.Context) error {
			ids, paths := c.Args().Slice(), []string(nil)
			if i := slices.Index(ids, "--"); i >= 0 {
				ids, paths = ids[:i], ids[i+1:]
			}
			if len(ids) < 2 || len(paths) > 0 && len(ids) != 2 {
				return replicate.Errorf(replicate.Usage, "diff takes two ids or more, and two exactly with paths").
					WithHint("replicate diff ID ID")
			}
			return w.with(c, func(s *session) error {
				sides, err := s.sides(ids)
				if err != nil {
					return err
				}
				return w.print(func(out *bufio.Writer) error {
					switch {
					case len(paths) > 0:
						return s.diffFiles(out, sides[0], sides[1], paths)
					case c.Bool("json"):
						diffJSON(out, sides)
					default:
						diffPage(out, sides)
					}
					return nil
				})
			}, ids...)
		},
	}
}

// A side is one column of a diff.
type side struct {
	experiment *index.Experiment
	commit     *index.Commit // nil: the code an experiment without commits started with
	tree       *repository.Tree
}

func (s *session) sides(ids []string) ([]*side, error) {
	targets := make([]index.Target, len(ids))
	for i, id := range ids {
		var err error
		if targets[i], err = s.resolve(id); err != nil {
			return nil, err
		}
	}
	sides := make([]*side, len(ids))
	for i, t := range targets {
		row, commit, err := s.rowAndCommit(t)
		if err != nil {
			return nil, err
		}
		tree, err := s.tree(row)
		if err != nil {
			return nil, err
		}
		sides[i] = &side{t.Experiment, commit, tree}
	}
	return sides, nil
}

func (d *side) params() replicate.Values { return d.experiment.Params.Flat(".") }

func (d *side) metrics() replicate.Values {
	if d.commit == nil {
		return nil
	}
	return d.commit.Metrics
}

func (d *side) packages() replicate.Values {
	var packages replicate.Values
	if d.experiment.Python != nil {
		for _, name := range sortedKeys(d.experiment.Python.Packages) {
			packages = append(packages, replicate.Member{Name: name, Value: replicate.Text(d.experiment.Python.Packages[name])})
		}
	}
	return packages
}

// A row is one name with its value on each side, nil where it has none.
type row struct {
	name   string
	values []*replicate.Value
}

// differing returns the names whose value is not the same on every side, sorted.
func differing(sides []*side, of func(*side) replicate.Values) []row {
	all := map[string][]*replicate.Value{}
	for i, d := range sides {
		for _, m := range of(d) {
			if all[m.Name] == nil {
				all[m.Name] = make([]*replicate.Value, len(sides))
			}
			all[m.Name][i] = &m.Value
		}
	}
	var rows []row
	for _, name := range sortedKeys(all) {
		values := all[name]
		if anyDiffers(values) {
			rows = append(rows, row{name, values})
		}
	}
	return rows
}

// A fileRow is one path with its entry on each side, nil where there is none.
type fileRow struct {
	path    string
	entries []*repository.Entry
}

// differingFiles returns the files and links whose content, mode or target is not the same on every side.
func differingFiles(sides []*side) []fileRow {
	all := map[string][]*repository.Entry{}
	for i, d := range sides {
		for j := range d.tree.Entries {
			e := &d.tree.Entries[j]
			if e.Kind == repository.Dir {
				continue
			}
			if all[e.Path] == nil {
				all[e.Path] = make([]*repository.Entry, len(sides))
			}
			all[e.Path][i] = e
		}
	}
	var rows []fileRow
	for _, path := range sortedKeys(all) {
		entries := all[path]
		if slices.ContainsFunc(entries, func(e *repository.Entry) bool { return !sameFile(e, entries[0]) }) {
			rows = append(rows, fileRow{path, entries})
		}
	}
	return rows
}

func sameFile(a, b *repository.Entry) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Kind == b.Kind && a.Mode == b.Mode && a.Size == b.Size && a.Hash == b.Hash && a.Target == b.Target
}

const notSet = "(not set)"

// diffPage prints the sections with their columns aligned over the whole page.
func diffPage(out io.Writer, sides []*side) {
	var p page
	commit, experiment := []string{}, []string{}
	for _, d := range sides {
		experiment = append(experiment, d.experiment.ID.Short())
		if d.commit != nil {
			commit = append(commit, d.commit.ID.Short())
		} else {
			commit = append(commit, "(none)")
		}
	}
	p.line("Commit", commit)
	p.line("Experiment", experiment)
	p.section("Params", differing(sides, (*side).params), replicate.Value.String)
	p.section("Metrics", differing(sides, (*side).metrics), exactMetric)
	p.section("Packages", differing(sides, (*side).packages), replicate.Value.String)
	p.title("Files")
	files := differingFiles(sides)
	for _, f := range files {
		p.line(f.path, fileCells(f.entries))
	}
	p.none(len(files))
	p.write(out)
}

// exactMetric shows seven digits, so that near values can be told apart.
func exactMetric(v replicate.Value) string {
	if v.Kind() == replicate.FloatKind && !v.IsNaN() {
		return fmt.Sprintf("%.7g", v.Float())
	}
	return v.String()
}

// fileCells shows sizes, and where these look alike what tells the files apart.
func fileCells(entries []*repository.Entry) []string {
	cells := make([]string, len(entries))
	for i, e := range entries {
		switch {
		case e == nil:
			cells[i] = "(missing)"
		case e.Kind == repository.Link:
			cells[i] = "-> " + e.Target
		default:
			cells[i] = size(e.Size)
		}
	}
	if differ(cells) {
		return cells
	}
	for i, e := range entries {
		if e.Hash != entries[0].Hash {
			for j := range cells {
				cells[j] += " " + entries[j].Hash.String()[:replicate.ShortLen]
			}
			return cells
		}
		if e.Mode != entries[0].Mode {
			for j := range cells {
				cells[j] += fmt.Sprintf(" %04o", entries[j].Mode)
			}
			return cells
		}
		_ = i
	}
	return cells
}

// A page is lines of a name and cells, and titles between them.
type page struct {
	lines [][]string // one element: a title
}

func (p *page) title(text string) { p.lines = append(p.lines, nil, []string{text}) }
func (p *page) line(name string, cells []string) {
	p.lines = append(p.lines, append([]string{name + ":"}, cells...))
}

func (p *page) none(rows int) {
	if rows == 0 {
		p.lines = append(p.lines, []string{"(no difference)"})
	}
}

func (p *page) section(title string, rows []row, text func(replicate.Value) string) {
	p.title(title)
	for _, r := range rows {
		cells := make([]string, len(r.values))
		for i, v := range r.values {
			cells[i] = notSet
			if v != nil {
				cells[i] = text(*v)
			}
		}
		p.line(r.name, cells)
	}
	p.none(len(rows))
}

func (p *page) write(out io.Writer) {
	var widths []int
	for _, line := range p.lines {
		for i, cell := range line {
			line[i] = printable(cell)
			for len(widths) <= i {
				widths = append(widths, 0)
			}
			if len(line) > 1 {
				widths[i] = max(widths[i], columns(line[i]))
			}
		}
	}
	for _, line := range p.lines {
		var b strings.Builder
		for i, cell := range line {
			b.WriteString(cell)
			b.WriteString(strings.Repeat(" ", max(0, widths[i]-columns(cell))+2))
		}
		fmt.Fprintln(out, strings.TrimRight(b.String(), " "))
	}
}

// diffJSON prints {"commits", "params", "metrics", "packages", "files"}; each name has a list with one value per side.
func diffJSON(out *bufio.Writer, sides []*side) {
	var ids []replicate.Value
	for _, d := range sides {
		o := replicate.Values{{Name: "experiment", Value: replicate.Text(string(d.experiment.ID))}, {Name: "commit"}}
		if d.commit != nil {
			o = o.Set("commit", replicate.Text(string(d.commit.ID)))
		}
		ids = append(ids, replicate.Map(o))
	}
	section := func(rows []row) replicate.Value {
		members := replicate.Values{}
		for _, r := range rows {
			list := make([]replicate.Value, len(r.values))
			for i, v := range r.values {
				if v != nil {
					list[i] = *v
				}
			}
			members = append(members, replicate.Member{Name: r.name, Value: replicate.List(list)})
		}
		return replicate.Map(members)
	}
	files := replicate.Values{}
	for _, f := range differingFiles(sides) {
		list := make([]replicate.Value, len(f.entries))
		for i, e := range f.entries {
			if e != nil {
				list[i] = replicate.Map(replicate.Values{
					{Name: "size", Value: replicate.Int(e.Size)}, {Name: "mode", Value: replicate.Text(fmt.Sprintf("%04o", e.Mode))},
					{Name: "hash", Value: replicate.Text(e.Hash.String())}})
			}
		}
		files = append(files, replicate.Member{Name: f.path, Value: replicate.List(list)})
	}
	all := replicate.Values{
		{Name: "commits", Value: replicate.List(ids)},
		{Name: "params", Value: section(differing(sides, (*side).params))},
		{Name: "metrics", Value: section(differing(sides, (*side).metrics))},
		{Name: "packages", Value: section(differing(sides, (*side).packages))},
		{Name: "files", Value: replicate.Map(files)},
	}
	out.Write(append(all.AppendJSON(nil), '\n'))
}

// maxText is the size up to which a file is compared line by line.
const maxText = 1 << 20

// diffFiles prints unified diffs of the files at or below paths that differ.
func (s *session) diffFiles(out io.Writer, a, b *side, paths []string) error {
	for _, path := range paths {
		if !a.has(path) && !b.has(path) {
			return replicate.Errorf(replicate.NotFound, "%s is in neither commit", path)
		}
	}
	for _, f := range differingFiles([]*side{a, b}) {
		if !slices.ContainsFunc(paths, func(p string) bool { return within(f.path, p) }) {
			continue
		}
		old, err := s.text(f.entries[0])
		if err != nil {
			return err
		}
		new, err := s.text(f.entries[1])
		if err != nil {
			return err
		}
		if old == nil || new == nil {
			cells := fileCells(f.entries)
			fmt.Fprintf(out, "binary a/%s b/%s differ (%s, %s)\n", f.path, f.path, cells[0], cells[1])
			continue
		}
		if _, err := out.Write(diff.Diff("a/"+f.path, old, "b/"+f.path, new)); err != nil {
			return err
		}
	}
	return nil
}

func (d *side) has(path string) bool {
	return slices.ContainsFunc(d.tree.Entries, func(e repository.Entry) bool { return within(e.Path, path) })
}

// within reports whether path is dir or lies below it.
func within(path, dir string) bool {
	dir = strings.TrimSuffix(dir, "/")
	return dir == "." || path == dir || strings.HasPrefix(path, dir+"/")
}

// text returns the content of an entry if it is a text that can be compared, nil if not. A missing file is an empty text.
func (s *session) text(e *repository.Entry) ([]byte, error) {
	switch {
	case e == nil:
		return []byte{}, nil
	case e.Kind != repository.File:
		return []byte("symlink to " + e.Target + "\n"), nil
	case e.Size > maxText:
		return nil, nil
	}
	var content bytes.Buffer
	if err := s.repo.WriteFile(s.ctx, &content, e); err != nil {
		return nil, err
	}
	if bytes.IndexByte(content.Bytes(), 0) >= 0 || !utf8.Valid(content.Bytes()) {
		return nil, nil
	}
	return append([]byte{}, content.Bytes()...), nil
}
