package index

import (
	"context"
	"slices"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// Killed returns what published again undoes the deletion of an experiment, or of a commit: the newest rows that it killed. Commits that were deleted by
// themselves stay so when their experiment comes back. The row of the experiment is the last. at is when it was deleted last.
func (x *Index) Killed(ctx context.Context, id replicate.ID) (rows []repository.Record, at time.Time, err error) {
	all, err := x.Records(ctx, id)
	if err != nil {
		return nil, at, err
	}
	deleted := map[replicate.ID]*repository.Delete{}
	err = x.read(ctx, "read deletions", func(t *reading) error {
		found, err := t.query(ctx, "SELECT id, at FROM deletion")
		if err != nil {
			return err
		}
		defer found.Close()
		for found.Next() {
			var name []byte
			var at int64
			if err := found.Scan(&name, &at); err != nil {
				return err
			}
			deleted[idOf(name)] = &repository.Delete{At: time.Unix(0, at)}
		}
		return found.Err()
	})
	kills := func(id replicate.ID, row repository.Row) bool { return deleted[id] != nil && deleted[id].Kills(row) }
	var last []repository.Record
	for _, r := range all {
		switch {
		case r.Experiment != nil && kills(r.Experiment.ID, r.Experiment.Row):
			last = append(last, r)
		case r.Stream != nil && kills(r.Stream.Experiment, r.Stream.Row), r.Commit != nil && isKilled(r.Commit, id, kills):
			rows = append(rows, r)
		}
	}
	if d := deleted[id]; d != nil {
		at = d.At
	}
	return slices.Concat(rows, last), at, err
}

// isKilled reports whether the deletion of id killed a commit, and no other did.
func isKilled(c *repository.CommitRow, id replicate.ID, kills func(replicate.ID, repository.Row) bool) bool {
	if c.ID == id {
		return kills(id, c.Row)
	}
	return kills(id, c.Row) && !kills(c.ID, c.Row)
}
