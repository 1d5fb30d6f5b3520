package main

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/fs/view"
	"github.com/replicate/replicate/index"
)

const exportHelp = `Writes experiments out, all or those that are named and match:

    replicate export -o OUT                     a folder with the files that a mount shows
    replicate export --format csv               one row for each experiment, as experiments.csv of a mount
    replicate export --format jsonl -o all      one line for each: what show --json prints, with all its commits

The folder has no commits/, which would be the same files again. OUT must be new or empty, and appears when it is complete. A table goes to the
standard output unless -o names a file.`

// The formats of export.
const (
	exportTree  = "tree"
	exportCSV   = "csv"
	exportJSONL = "jsonl"
)

func exportCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "export",
		Usage:       "write experiments out as files or as a table",
		ArgsUsage:   "[ID...]",
		Description: exportHelp,
		Flags: append([]cli.Flag{
			&cli.StringSliceFlag{Name: "filter", Aliases: []string{"f"}, Usage: "only experiments for which `QUERY` holds (repeat for and)"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write to `OUT`"},
			&cli.StringFlag{Name: "format", Value: exportTree, Usage: "`tree`, csv or jsonl"},
		}, storageFlags()...),
		Action: func(c *cli.Context) error {
			switch format := c.String("format"); {
			case !slices.Contains([]string{exportTree, exportCSV, exportJSONL}, format):
				return replicate.Errorf(replicate.Usage, "unknown format %q", format).WithHint("it is tree, csv or jsonl")
			case format == exportTree && c.String("output") == "":
				return replicate.Errorf(replicate.Usage, "a tree needs a folder").WithHint("-o OUT names it, --format csv writes a table")
			}
			return w.with(c, func(s *session) error { return s.export(c) })
		},
	}
}

func (s *session) export(c *cli.Context) error {
	out := c.String("output")
	if out != "" {
		out = s.w.abs(out)
		if err := mayExport(out, c.String("format")); err != nil {
			return err
		}
	}
	experiments, err := s.chosen(c.Args().Slice(), c.StringSlice("filter"))
	if err != nil {
		return err
	}
	if len(experiments) == 0 {
		s.w.say("no experiments found")
		return nil
	}
	if err := s.index.Complete(s.ctx); err != nil {
		return err
	}
	switch c.String("format") {
	case exportTree:
		return s.exportTree(experiments, out)
	case exportCSV:
		return s.exportTable(out, func(w *bufio.Writer) error { return s.writeCSV(w, experiments) })
	}
	return s.exportTable(out, func(w *bufio.Writer) error { return s.writeLines(w, experiments) })
}

// mayExport refuses what would overwrite something.
func mayExport(out, format string) error {
	entries, err := os.ReadDir(out)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && len(entries) == 0 && format == exportTree:
		return nil
	case err == nil:
		return replicate.Errorf(replicate.Conflict, "%s is a folder with something in it", out).WithHint("name a new one with -o")
	case format == exportTree:
		return replicate.Errorf(replicate.Conflict, "%s is there, and no folder", out).WithHint("name a new one with -o")
	}
	return nil
}

// chosen returns the experiments that are named, all without names, as far as they match; the newest last.
func (s *session) chosen(refs, filters []string) ([]*index.Experiment, error) {
	named := map[replicate.ID]bool{}
	for _, ref := range refs {
		t, err := s.resolve(ref)
		if err != nil {
			return nil, err
		}
		if t.Commit != nil {
			return nil, replicate.Errorf(replicate.Usage, "%s is a commit", ref).WithHint("replicate checkout -o OUT %s copies its files", ref)
		}
		named[t.Experiment.ID] = true
	}
	experiments, err := s.list(index.Query{Filters: filters})
	if len(refs) > 0 {
		experiments = slices.DeleteFunc(experiments, func(e *index.Experiment) bool { return !named[e.ID] })
	}
	return experiments, err
}

// viewOf is the view that a mount would have if there were no other experiments. It closes the session's index.
func (s *session) viewOf(experiments []*index.Experiment) (v *view.View, done func(), err error) {
	ids := make([]replicate.ID, len(experiments))
	for i, e := range experiments {
		ids[i] = e.ID
	}
	cache, err := os.MkdirTemp("", "replicate-export-")
	if err != nil {
		return nil, nil, fmt.Errorf("export: %w", err)
	}
	v, err = view.New(view.Only(s.index, ids), s.repo, cache)
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(cache))
	}
	s.index = nil
	return v, func() { _ = errors.Join(v.Close(), os.RemoveAll(cache)) }, nil
}

func (s *session) exportTree(experiments []*index.Experiment, out string) error {
	v, done, err := s.viewOf(experiments)
	if err != nil {
		return err
	}
	defer done()
	partial := partialName(out)
	if err := os.MkdirAll(partial, 0o777); err != nil {
		return fmt.Errorf("export: %w", err)
	}
	progress := s.w.progress("exporting")
	err = v.Export(s.ctx, partial, progress.files)
	progress.done()
	if err == nil {
		_ = os.Remove(out) // if it is there it is empty
		err = os.Rename(partial, out)
	}
	if err != nil {
		return errors.Join(err, removeTree(partial))
	}
	s.w.say("exported %s to %s", plural(int64(len(experiments)), "experiment"), s.w.fromHere(out))
	return nil
}

// partialName is beside out, on the same file system.
func partialName(out string) string { return fmt.Sprintf("%s.partial-%d", out, os.Getpid()) }

// removeTree removes a folder, also if commits in it have folders that must not be written to.
func removeTree(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
	return os.RemoveAll(dir)
}

// exportTable calls write for a file that appears when it is complete, or for stdout if out is "".
func (s *session) exportTable(out string, write func(*bufio.Writer) error) error {
	if out == "" {
		return s.w.print(write)
	}
	partial := partialName(out)
	f, err := os.Create(partial)
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	w := bufio.NewWriter(f)
	err = write(w)
	err = cmp.Or(err, w.Flush())
	err = cmp.Or(err, f.Close())
	err = cmp.Or(err, os.Rename(partial, out))
	if err != nil {
		return errors.Join(err, os.Remove(partial))
	}
	return nil
}

func (s *session) writeCSV(w *bufio.Writer, experiments []*index.Experiment) error {
	v, done, err := s.viewOf(experiments)
	if err != nil {
		return err
	}
	defer done()
	id, err := v.Lookup(s.ctx, view.Root, "experiments.csv")
	if err != nil {
		return err
	}
	content, err := v.Content(s.ctx, id)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, io.NewSectionReader(content, 0, 1<<62))
	return err
}

func (s *session) writeLines(w *bufio.Writer, experiments []*index.Experiment) error {
	var pretty, line bytes.Buffer
	for _, e := range experiments {
		pretty.Reset()
		line.Reset()
		b := bufio.NewWriter(&pretty)
		if err := s.showJSON(b, index.Target{Experiment: e}); err != nil {
			return err
		}
		_ = b.Flush() // never fails
		if err := json.Compact(&line, pretty.Bytes()); err != nil {
			return err
		}
		line.WriteByte('\n')
		if _, err := w.Write(line.Bytes()); err != nil {
			return err
		}
	}
	return nil
}
