package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

const catHelp = `Writes files of commits to stdout, reading only the bytes it needs:

    replicate cat 3be0c21:metrics.json
    replicate cat 673@best:model.pth > model.pth`

func catCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "cat",
		Usage:       "write files of commits to stdout",
		ArgsUsage:   "ID:PATH...",
		Description: catHelp,
		Flags:       storageFlags(),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, -1, "ID:PATH"); err != nil {
				return err
			}
			var refs []string
			for _, arg := range c.Args().Slice() {
				ref, _, _ := strings.Cut(arg, ":")
				refs = append(refs, ref)
			}
			return w.with(c, func(s *session) error {
				for _, arg := range c.Args().Slice() {
					e, err := s.file(arg)
					if err != nil {
						return err
					}
					if err := s.repo.WriteFile(s.ctx, w.stdout, e); err != nil {
						return err
					}
				}
				return nil
			}, refs...)
		},
	}
}

// file finds the regular file that ID:PATH names. Symlinks within the commit are followed.
func (s *session) file(arg string) (*repository.Entry, error) {
	ref, path, ok := strings.Cut(arg, ":")
	if !ok || path == "" {
		return nil, replicate.Errorf(replicate.Usage, "%q is not ID:PATH", arg).WithHint("replicate cat 3be0c21:train.py")
	}
	t, err := s.resolve(ref)
	if err != nil {
		return nil, err
	}
	row, err := s.rowOf(t)
	if err != nil {
		return nil, err
	}
	tree, err := s.tree(row)
	if err != nil {
		return nil, err
	}
	e, err := find(tree, path)
	if err != nil {
		return nil, &replicate.Error{Op: "cat", Path: arg, Err: err}
	}
	return e, nil
}
