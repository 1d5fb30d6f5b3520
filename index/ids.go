package index

import (
	"context"
	"database/sql/driver"
	"time"

	"github.com/replicate/replicate"
)

// A Name is a living experiment or commit, as directories list them.
type Name struct {
	Ord     int64
	ID      replicate.ID
	Changed time.Time // of an experiment: when anything of it last changed
}

// ExperimentNames returns all living experiments by ordinal.
func (x *Index) ExperimentNames(ctx context.Context) ([]Name, error) {
	return x.ids(ctx, "SELECT ord, id, changed FROM experiment WHERE stands IN (1, 2) ORDER BY ord")
}

// CommitNames returns all living commits whose rows are here, by ordinal. After Complete these are all there are.
func (x *Index) CommitNames(ctx context.Context) ([]Name, error) {
	return x.ids(ctx, "SELECT commits.ord, commits.id, 0 "+fromCommits+living.commits+" ORDER BY commits.ord")
}

func (x *Index) ids(ctx context.Context, query string) (all []Name, err error) {
	err = x.read(ctx, "list ids", func(t *reading) error {
		return t.rows(ctx, 3, query, func(row []driver.Value) error {
			all = append(all, Name{row[0].(int64), idOf(blobOf(row[1])), timeOf(row[2].(int64))})
			return nil
		})
	})
	return all, err
}
