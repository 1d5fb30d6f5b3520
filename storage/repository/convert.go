package repository

import (
	"context"
	"errors"
	"time"

	"github.com/replicate/replicate"
)

// convert brings an experiment of another format over, row by row: its files are extracted, and stored like those of any snapshot. Each row builds on
// the one before, so that what they have in common is stored once.
func (c *copier) convert(ctx context.Context, e *copied, shown *progress) error {
	work, err := c.newWork()
	if err != nil {
		return err
	}
	defer work.close()
	if err := c.resume(ctx, work, e); err != nil {
		return err
	}
	for i := range e.rows {
		err := c.convertRow(ctx, work, &e.rows[i])
		switch {
		case err == nil:
		case replicate.KindOf(err) == replicate.Corrupt:
			c.warn(rowError(&e.rows[i], err))
			err = work.clear()
		}
		if err != nil {
			return err
		}
		shown.add(1)
	}
	return nil
}

// resume makes the rows of an experiment build on what an earlier copy brought.
func (c *copier) resume(ctx context.Context, work *importer, e *copied) error {
	var last *Record
	for i := range c.there.rows {
		r := &c.there.rows[i]
		if experiment, _ := r.ids(); experiment == home(e.id) && r.Stream == nil && (last == nil || r.Commit != nil) {
			last = r
		}
	}
	if last == nil {
		return nil
	}
	return work.follow(ctx, *last.row())
}

// convertRow brings one row over.
func (c *copier) convertRow(ctx context.Context, work *importer, r *Record) error {
	notes, err := c.from.foreign.Extract(ctx, *r.row(), work.files())
	if err != nil {
		return err
	}
	for _, note := range notes {
		c.warn(rowError(r, errors.New(note)))
	}
	avoid := map[replicate.Hash]bool{}
	for {
		t, err := work.take(ctx, func(t *Tree, added int64) Record { return noteOf(r, t, added) }, avoid)
		if err != nil {
			return err
		}
		err = publish(ctx, c.to, t.packs, t.row.Packs, func(before time.Time) ([]Record, error) {
			t.row.Before = before
			converted, err := convertLine(r, t)
			return []Record{converted}, err
		})
		if err != nil {
			t.discard()
		}
		if gone, ok := errors.AsType[errDoubtful](err); ok && len(avoid) == 0 {
			for _, p := range gone.packs {
				avoid[p] = true
			}
			continue
		}
		if err != nil {
			return err
		}
		return work.next(t)
	}
}

// noteOf makes the record for the pack.
func noteOf(r *Record, t *Tree, added int64) Record {
	if r.Experiment != nil {
		e := r.Experiment.Experiment
		e.ID, e.Status = home(e.ID), replicate.Finished // as nothing would ever say that it did
		return Record{Experiment: &ExperimentRow{Experiment: e}}
	}
	m := r.Commit.Commit
	m.ID, m.Experiment, m.Parent = home(m.ID), home(m.Experiment), home(m.Parent)
	m.Files, m.Bytes, m.Added = t.Files, t.Bytes, added
	return Record{Commit: &CommitRow{Commit: m}}
}

// convertLine makes the record of a row from its old line: other ids, other places, and all else as it was, unknown keys included.
func convertLine(r *Record, t *taken) (Record, error) {
	made := noteOf(r, t.tree, t.added)
	*made.row() = t.row
	encoded, err := made.Encode()
	if err != nil {
		return Record{}, err
	}
	members := map[string][]byte{"tree": nil, "packs": nil}
	cursor := &cursor{data: encoded.Line}
	err = cursor.object(func(key []byte) error {
		value, err := cursor.raw()
		switch name := string(key); name {
		case "experiment", "commit", "parent", "tree", "packs", "files", "bytes", "added", "status", "before":
			members[name] = value
		}
		return err
	})
	if err != nil {
		return Record{}, err
	}
	return r.with(members)
}
