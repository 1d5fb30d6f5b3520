package main

import (
	"context"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/remote"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/repository"
)

const rmHelp = `Deletes experiments and commits: it lists them, asks, and then nothing shows them any more.
All ids are found before anything is deleted. An experiment takes its commits along. replicate gc frees the space. Until it has,
--undo brings back what was deleted, by the same ids.`

func rmCommand(w *world) *cli.Command {
	return &cli.Command{
		Name: "rm", Aliases: []string{"delete"},
		Usage:       "delete experiments and commits",
		ArgsUsage:   "ID...",
		Description: rmHelp,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "force", Aliases: []string{"f"}, Usage: "delete without asking"},
			&cli.BoolFlag{Name: "undo", Usage: "bring back what was deleted"},
		}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, -1, "ID"); err != nil {
				return err
			}
			return w.with(c, func(s *session) error {
				if c.Bool("undo") {
					return s.undelete(c.Args().Slice())
				}
				return s.rm(c.Args().Slice(), c.Bool("force"))
			})
		},
	}
}

func (s *session) rm(ids []string, force bool) error {
	w := s.w
	var records []repository.Record
	var experiments, commits int64
	var deleted []replicate.ID // experiments
	for _, ref := range ids {
		t, err := s.resolve(ref)
		if err != nil {
			return err
		}
		record, err := s.deletion(t)
		if err != nil {
			return err
		}
		records = append(records, record)
		if t.Commit != nil {
			commits++
			w.say("%s  commit, step %s", t.Commit.ID.Short(), step(t.Commit.Step))
		} else {
			deleted = append(deleted, t.Experiment.ID)
			experiments++
			commits += t.Experiment.Commits
			w.say("%s  experiment, %s, %s", t.Experiment.ID.Short(), t.Experiment.Status, plural(t.Experiment.Commits, "commit"))
		}
	}
	if !force {
		yes, err := w.confirm("delete " + counted(experiments, commits) + "?")
		if err != nil {
			return err
		}
		if !yes {
			return replicate.Errorf(replicate.Conflict, "nothing was deleted").WithHint("-f deletes without asking")
		}
	}
	if err := s.repo.Append(s.ctx, records...); err != nil {
		return err
	}
	for _, id := range deleted {
		if err := remote.GiveUp(s.project, id); err != nil {
			return err
		}
	}
	w.say("deleted; %s", s.freeable())
	return nil
}

// freeable says what gc can free by now. To count it takes a look at all records: where that takes long it is left to gc, as it is for a bucket, where
// gc frees nothing yet.
func (s *session) freeable() string {
	const gc = "replicate gc frees the space"
	if _, local := s.repo.Store().(storage.Local); !local {
		return gc
	}
	ctx, cancel := context.WithTimeout(s.ctx, 2*time.Second)
	defer cancel()
	usage, err := s.repo.Usage(ctx, nil)
	if err != nil || usage.Dead.Count == 0 {
		return gc
	}
	return "replicate gc can free " + size(usage.Dead.Bytes)
}

// undelete brings back what was deleted, after all of it was found.
func (s *session) undelete(ids []string) error {
	if s.index == nil {
		_, err := s.resolve(ids[0])
		return err
	}
	var found []index.Target
	for _, ref := range ids {
		t, err := s.index.ResolveDeleted(s.ctx, ref)
		if err != nil {
			return err
		}
		if t.Commit != nil && t.Experiment.Deleted {
			return replicate.Errorf(replicate.Conflict, "the experiment %s of commit %s is deleted too", t.Experiment.ID.Short(), t.Commit.ID.Short()).
				WithHint("replicate rm --undo %s brings it back with its commits", t.Experiment.ID.Short())
		}
		found = append(found, t)
	}
	var experiments, commits int64
	for _, t := range found {
		rows, at, err := s.index.Killed(s.ctx, t.ID())
		if err == nil {
			err = s.repo.Undelete(s.ctx, rows, at)
		}
		if err != nil {
			return err
		}
		for i := range rows {
			if rows[i].Commit != nil {
				commits++
			}
		}
		if t.Commit == nil {
			experiments++
		}
	}
	s.w.say("brought back %s", counted(experiments, commits))
	return nil
}

// counted returns "1 experiment, 55 commits", without what there is none of.
func counted(experiments, commits int64) string {
	var parts []string
	if experiments > 0 {
		parts = append(parts, plural(experiments, "experiment"))
	}
	if commits > 0 || experiments == 0 {
		parts = append(parts, plural(commits, "commit"))
	}
	return strings.Join(parts, ", ")
}

// deletion makes the record that kills the rows of a target: not before now, and late enough for the last of them.
func (s *session) deletion(t index.Target) (repository.Record, error) {
	d := &repository.Delete{ID: t.Experiment.ID, By: s.w.user()}
	var last time.Time
	var err error
	if t.Commit != nil {
		d.ID, d.Experiment = t.Commit.ID, t.Experiment.ID
		var row repository.Row
		row, err = s.index.Row(s.ctx, t.Commit)
		last = row.Before
	} else {
		last, err = s.lastBefore(t.Experiment)
	}
	if err != nil {
		return repository.Record{}, err
	}
	at, err := s.repo.Now(s.ctx)
	if err != nil {
		return repository.Record{}, err
	}
	if needed := last.Add(-repository.LandWithin + time.Millisecond); needed.After(at) {
		at = needed
	}
	d.At = at
	return repository.Record{Delete: d}.Encode()
}

// lastBefore is the latest Before among all rows of an experiment.
func (s *session) lastBefore(e *index.Experiment) (time.Time, error) {
	code, err := s.index.CodeTree(s.ctx, e.ID)
	if err != nil {
		return time.Time{}, err
	}
	last := code.Before
	note := func(row repository.Row) {
		if row.Before.After(last) {
			last = row.Before
		}
	}
	commits, err := s.index.CommitsOf(s.ctx, e.ID)
	if err != nil {
		return last, err
	}
	for _, c := range commits {
		row, err := s.index.Row(s.ctx, c)
		if err != nil {
			return last, err
		}
		note(row)
	}
	for _, kind := range []repository.StreamKind{repository.MetricsStream, repository.OutputStream} {
		rows, err := s.index.Streams(s.ctx, e.ID, kind)
		if err != nil {
			return last, err
		}
		for _, r := range rows {
			note(r.Row)
		}
	}
	return last, nil
}
