package main

import (
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/remote"
)

const pruneHelp = `Removes from a machine what replicate run left there and nobody needs: ended runs older than 14 days or beyond
the 20 newest of a project, runs of deleted experiments, failed builds after a day, environments that nothing
used for 30 days, other versions of replicate, caches beyond 20 GB, and what of working directories is kept for
the next run but is in no run there and was not used for 30 days. Runs whose commits are nowhere else stay,
unless -f says otherwise. Only objects with labels of replicate are looked at. Old runs and builds go also at
the end of each run.`

func pruneCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "prune",
		Usage:       "remove old runs from a machine",
		Description: pruneHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "host", Aliases: []string{"H"}, Usage: "the machine, as for run; Docker here if not given: `HOST`"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be removed, and remove nothing"},
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "also runs whose commits are nowhere else"},
			identityFlag(),
		}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 0, "no arguments"); err != nil {
				return err
			}
			return w.prune(c)
		},
	}
}

func (w *world) prune(c *cli.Context) error {
	p, err := w.project(c)
	if err != nil {
		return err
	}
	t, err := w.target(c, p, c.String("host"))
	if err != nil {
		return err
	}
	deleted, err := w.deletedExperiments(c)
	if err != nil {
		return err
	}
	client, err := w.remote(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	h, err := client.Open(ctx, t)
	if err != nil {
		return err
	}
	defer h.Close()
	verb := "removed"
	if c.Bool("dry-run") {
		verb = "would remove"
	}
	var count, kept, bytes int64
	err = h.Prune(ctx, remote.PruneOptions{
		DryRun: c.Bool("dry-run"), Force: c.Bool("force"), Gone: func(id replicate.ID) bool { return deleted[id] },
	}, func(r remote.Pruned) {
		if r.Kept {
			kept++
			w.say("kept %s %s (%s): it has commits that are nowhere else; replicate pull %s fetches them, -f gives them up", r.What, r.Name, size(r.Size), r.Name)
			return
		}
		count, bytes = count+1, bytes+r.Size
		w.say("%s %s %s (%s)", verb, r.What, r.Name, size(r.Size))
	})
	if count+kept == 0 && err == nil {
		w.say("nothing to remove")
	} else if count > 1 {
		w.say("%s %s in all", verb, size(bytes))
	}
	return err
}

// deletedExperiments are those of the project's storage that were deleted.
func (w *world) deletedExperiments(c *cli.Context) (map[replicate.ID]bool, error) {
	deleted := map[replicate.ID]bool{}
	err := w.with(c, func(s *session) error {
		list, err := s.list(index.Query{Filters: []string{"status = deleted"}, Brief: true})
		for _, e := range list {
			deleted[e.ID] = true
		}
		return err
	})
	return deleted, err
}
