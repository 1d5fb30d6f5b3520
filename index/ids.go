package index

import (
	"context"
	"time"

	"github.com/replicate/replicate"
)

// A Name is a living experiment or commit, as directories list them.
type Name struct {
	Ord     int64
	ID      replicate.ID
	Changed time.Time // of an experiment: when anything of it last changed
}

// ExperimentNames and CommitNames return all of them, in no order.
func (x *Index) ExperimentNames(ctx context.Context) ([]Name, error) { return nil, errLater }
func (x *Index) CommitNames(ctx context.Context) ([]Name, error)     { return nil, errLater }
