package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate/storage/repository"
)

const checkoutHelp = `Copies the files of a commit out, by default into the project root. An experiment stands for
its best commit, else its latest. Other files are never deleted. Files that would be replaced by something
else are listed, with those that are in no commit marked, and replaced after a question; the old ones are
kept in .replicate/replaced/.

    replicate checkout 3be0c21
    replicate checkout 673@best -o /tmp/best --path model.pth`

func checkoutCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "checkout",
		Usage:       "copy the files of a commit out",
		ArgsUsage:   "ID",
		Description: checkoutHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "output-directory", Aliases: []string{"o"}, Usage: "write to `DIR`"},
			&cli.StringSliceFlag{Name: "path", Usage: "only this file or directory `PATH` (repeatable)"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "replace without asking"},
		}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1, "ID"); err != nil {
				return err
			}
			return w.with(c, func(s *session) error { return s.checkout(c) }, c.Args().First())
		},
	}
}

func (s *session) checkout(c *cli.Context) error {
	w := s.w
	t, err := s.resolve(c.Args().First())
	if err != nil {
		return err
	}
	row, commit, err := s.rowAndCommit(t)
	if err != nil {
		return err
	}
	tree, err := s.tree(row)
	if err != nil {
		return err
	}
	dir := s.project.Root
	if o := c.String("output-directory"); o != "" {
		dir = w.abs(o)
	}
	kept := unused(filepath.Join(dir, ".replicate", "replaced", w.now().Format("20060102-150405")))
	progress := w.progress("checking out")
	report, err := s.repo.Checkout(s.ctx, tree, repository.CheckoutOptions{
		Dir:      dir,
		Paths:    c.StringSlice("path"),
		Keep:     kept,
		Project:  s.project.Root,
		Replace:  func(paths []string) error { return s.mayReplace(dir, paths, c.Bool("force")) },
		Progress: progress.update,
	})
	progress.done()
	if err != nil {
		return err
	}
	id := t.Experiment.ID
	if commit != nil {
		id = commit.ID
		if err := noteCheckout(dir, id, w.now()); err != nil {
			return err
		}
	}
	if report.Replaced > 0 {
		w.say("replaced files are in %s", w.fromHere(kept))
	}
	w.say("checked out %s to %s", id.Short(), dir)
	return nil
}

// unused returns path, or if something is there already, path with the first free number behind it.
func unused(path string) string {
	free := path
	for n := 2; ; n++ {
		if _, err := os.Lstat(free); err != nil {
			return free
		}
		free = fmt.Sprintf("%s-%d", path, n)
	}
}
