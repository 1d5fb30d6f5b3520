package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/repository"
)

const outputStream = repository.OutputStream

const pullHelp = `Brings commits, curves, output and ends of runs home that are still on the machines they ran on: those of one
experiment, or of all of this project. It is needed only when the storage is a disk of this machine, and the
run was left. It can be stopped and repeated. The exit code is 1 if a machine that has something did not
answer.`

func pullCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "pull",
		Usage:       "fetch the commits of runs from other machines",
		ArgsUsage:   "[EXPERIMENT]",
		Description: pullHelp,
		Flags:       append([]cli.Flag{identityFlag()}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 1, "at most one experiment"); err != nil {
				return err
			}
			return w.pull(c)
		},
	}
}

// A due is a run whose commits may be elsewhere.
type due struct {
	id     replicate.ID
	target remote.Target
}

func (w *world) pull(c *cli.Context) error {
	list, p, err := w.dueRuns(c)
	if err != nil {
		return err
	}
	client, err := w.remote(c)
	if err != nil {
		return err
	}
	w.settleHere(c.Context, client, p)
	if len(list) == 0 {
		w.say("nothing to pull: everything is here")
		return nil
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	return w.pullAll(ctx, client, p, list)
}

// pullAll pulls from one machine after the other. Those that do not answer are told and count as a failure.
func (w *world) pullAll(ctx context.Context, client *remote.Client, p *project.Project, list []due) error {
	for len(list) > 0 {
		target := list[0].target
		h, err := client.Open(ctx, target)
		if err != nil {
			w.warn(err)
		}
		for _, d := range list {
			if d.target.Text == target.Text && h != nil {
				w.pullOne(ctx, h, p, d.id)
			}
		}
		list = slices.DeleteFunc(list, func(d due) bool { return d.target.Text == target.Text })
		if h != nil {
			h.Close()
		}
	}
	return nil
}

// settleHere ends runs in place that nobody else ends.
func (w *world) settleHere(ctx context.Context, client *remote.Client, p *project.Project) {
	for id, note := range remote.Notes(p) {
		if note.Target != "" {
			continue
		}
		if _, err := client.SettleHere(ctx, p, id); err != nil {
			w.report("warning", err)
		}
	}
}

func (w *world) pullOne(ctx context.Context, h *remote.Host, p *project.Project, id replicate.ID) {
	settled, err := h.Fetch(ctx, p, id)
	switch {
	case errors.Is(err, remote.ErrCutOff):
		w.sayCutOff(id)
	case err != nil:
		w.warn(err)
	case settled:
		w.say("%s: everything is here", id.Short())
	default:
		w.say("%s: what there is so far is here", id.Short())
	}
}

// dueRuns lists the runs of the project whose commits may be elsewhere, or the one that was named.
func (w *world) dueRuns(c *cli.Context) ([]due, *project.Project, error) {
	if c.NArg() == 1 {
		e, t, p, err := w.runOf(c, c.Args().First())
		if err != nil {
			return nil, nil, err
		}
		return []due{{e.ID, t}}, p, nil
	}
	p, err := w.project(c)
	if err != nil {
		return nil, nil, err
	}
	var list []due
	for id, note := range remote.Notes(p) {
		if note.Target == "" {
			continue // it runs in place
		}
		t, err := w.target(c, p, note.Target)
		if err != nil {
			w.warn(err)
			continue
		}
		list = append(list, due{id, t})
	}
	slices.SortFunc(list, func(a, b due) int { return cmp.Compare(a.id, b.id) })
	return list, p, nil
}

// sayCutOff says what became of the start of a run.
func (w *world) sayCutOff(id replicate.ID) {
	w.say("%s: %v; %s", id.Short(), remote.ErrCutOff, remote.GoesOn(id))
}

// sayDue says that commits of runs may be elsewhere, and which starts were cut off.
func (w *world) sayDue(c *cli.Context) error {
	p, err := w.project(c)
	if err != nil {
		return err
	}
	runs := map[string]int64{} // by machine
	for _, note := range remote.Notes(p) {
		if note.Due {
			runs[note.Target]++
		}
	}
	for _, id := range remote.CutOff(p, w.now()) {
		w.sayCutOff(id)
	}
	for _, target := range sortedKeys(runs) {
		w.say("%s on %s may have commits that are not here: replicate pull", plural(runs[target], "run"), target)
	}
	return nil
}
