package index

import (
	"context"
	"database/sql/driver"
	"fmt"
	"slices"

	"github.com/replicate/replicate"
)

// Each calls f with every living experiment that changed after a version, by creation, and returns the ordinals of those that changed and
// are gone, and the version that all this is of. It is for tables of everything: a few experiments are held at a time, and what List
// leaves out is left out here. An error of f ends it.
func (x *Index) Each(ctx context.Context, since int64, f func(*Experiment) error) (gone []int64, version int64, err error) {
	if err := x.completeBest(ctx); err != nil {
		return nil, 0, err
	}
	began := false
	err = x.read(ctx, "list experiments", func(t *reading) error {
		if began { // the file was damaged, and f has seen a part of it
			return replicate.Errorf(replicate.Unavailable, "the index was made again meanwhile")
		}
		began = true
		if err := t.QueryRowContext(ctx, "SELECT version FROM meta").Scan(&version); err != nil {
			return err
		}
		rows, dead, err := t.changed(ctx, since)
		if err != nil {
			return err
		}
		gone = dead
		for batch := range slices.Chunk(rows, batchRows) {
			experiments, err := t.experiments(ctx, batch)
			if err != nil {
				return err
			}
			for _, e := range experiments {
				if err := f(e); err != nil {
					return err
				}
			}
		}
		return nil
	})
	return gone, version, err
}

// changed returns the experiments that changed after a version: the living ones by creation, and the others.
func (t *reading) changed(ctx context.Context, since int64) (rows []found, gone []int64, err error) {
	where := living.experiments
	if since > 0 {
		where = fmt.Sprintf("version > 1 AND version > %d", since)
	}
	text := "SELECT ord, " + living.experiments + " FROM experiment WHERE " + where + " ORDER BY created, id"
	err = t.rows(ctx, 2, text, func(row []driver.Value) error {
		if ord := row[0].(int64); row[1].(int64) != 0 {
			rows = append(rows, found{ord: ord})
		} else {
			gone = append(gone, ord)
		}
		return nil
	})
	return rows, gone, err
}

// completeBest fetches what is needed to say which commits are best. A few are rarely missing: those of experiments whose metric only the reader
// names.
func (x *Index) completeBest(ctx context.Context) error {
	return x.readWhole(ctx, "list experiments", func(t *reading) error {
		states, err := t.states(ctx, "parts > 0 AND "+living.experiments)
		if err != nil {
			return err
		}
		for _, s := range states {
			if _, err := t.experiment(ctx, s); err != nil {
				return err
			}
		}
		return t.complete()
	})
}
