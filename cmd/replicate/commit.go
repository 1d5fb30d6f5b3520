package main

import (
	"io"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate/storage/recorder"
	"github.com/replicate/replicate/storage/repository"
)

const commitHelp = `Saves the files of the project and metrics at a step, into the experiment that REPLICATE_EXPERIMENT_ID
names, and prints the id of the commit:

    replicate commit step=1 loss=0.31 -m "after warm-up"

When it returns, both are safe on disk. With --path only these paths are looked at again, and everything else
is as in the commit before. Without a step it is the one after the last.`

func commitCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "commit",
		Usage:       "save the files and metrics",
		ArgsUsage:   "[step=N] [NAME=VALUE...]",
		Description: commitHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "message", Aliases: []string{"m"}, Usage: "say `TEXT` about it"},
			&cli.StringSliceFlag{Name: "path", Usage: "look at `PATH` only (repeatable)"},
		}, storageFlags()...),
		Action: func(c *cli.Context) error {
			values, err := assignments(c.Args().Slice())
			if err != nil {
				return err
			}
			step, metrics, err := takeStep(values)
			if err != nil {
				return err
			}
			s, err := w.join(c, recorder.Join)
			if err != nil {
				return err
			}
			var paths []string
			if c.IsSet("path") {
				paths = s.InRoot(w.dir, c.StringSlice("path"))
			}
			row, snapshot, err := s.Commit(c.Context, repository.CommitRequest{
				Step: step, Time: w.now(), Metrics: metrics, Message: c.String("message"), Paths: paths,
			})
			if err != nil {
				return err
			}
			if err := s.End(c.Context, "", nil); err != nil {
				return err
			}
			w.tell(recorder.Remark{Note: "commit " + row.ID.Short() + ", " + plural(row.Files, "file") + ", " + strconv.FormatInt(snapshot.Changed, 10) + " changed"})
			_, err = io.WriteString(w.stdout, string(row.ID)+"\n")
			return err
		},
	}
}
