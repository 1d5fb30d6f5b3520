package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate/storage/repository"
)

const checkHelp = `Verifies that all records can be read and that the packs of every commit are there, and names every
file of every commit that is damaged. With --read-data every byte is read and compared with its hash.
Nothing is changed. The exit code is 1 if anything is damaged.`

func checkCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "check",
		Usage:       "verify the storage, and name what is damaged",
		Description: checkHelp,
		Flags:       append([]cli.Flag{&cli.BoolFlag{Name: "read-data", Usage: "read and verify every byte"}}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 0, "no arguments"); err != nil {
				return err
			}
			return w.with(c, func(s *session) error { return s.check(c.Bool("read-data")) })
		},
	}
}

func (s *session) check(readData bool) error {
	if s.repo == nil {
		s.w.say("no experiments found")
		return nil
	}
	line := s.w.progress("checking")
	report, err := s.repo.Check(s.ctx, repository.CheckOptions{ReadData: readData, Progress: line.count}, func(p repository.Problem) {
		s.w.say("%s", problemLine(p))
	})
	line.done()
	if err != nil {
		return err
	}
	s.w.say("checked %s, %s (%s): %s", plural(int64(report.Records), "record"), plural(int64(report.Packs), "pack"), size(report.Bytes),
		plural(int64(report.Problems), "problem"))
	if report.Problems > 0 {
		return exitCode(exitError)
	}
	return nil
}

// problemLine says who misses what, and why: "commit 3be0c21 of experiment 67386ce: weights.pt: …".
func problemLine(p repository.Problem) string {
	var where []string
	switch {
	case p.Key != "":
		where = append(where, p.Key)
	case p.Commit != "":
		where = append(where, "commit "+p.Commit.Short()+" of experiment "+p.Experiment.Short())
	default:
		where = append(where, "experiment "+p.Experiment.Short())
	}
	if p.Path != "" {
		where = append(where, printable(p.Path))
	}
	return strings.Join(append(where, oneLine(p.Err.Error())), ": ")
}
