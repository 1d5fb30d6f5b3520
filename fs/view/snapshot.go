package view

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

const (
	// keptRows is how many experiments are kept as they were read from the index.
	keptRows = 1000
	// keptCommits is how many commits are kept, and how many in lists of those of an experiment.
	keptCommits = 10_000
	// manyChanges is from where on names are read again instead of changed.
	manyChanges = 1000
)

// A snapshot is what the index said at one version. It is filled as things are asked for, and dropped when the version changes.
type snapshot struct {
	version int64
	rows    *cache[int64, *index.Experiment]
	lists   *cache[int64, []*index.Commit] // of an experiment, in order of ordinal
	commits *cache[int64, *index.Commit]
	streams *cache[streamKey, []repository.StreamRow]

	mu     sync.Mutex // guards what follows
	names  [2]*shorts // nil until somebody asks
	latest *index.Experiment
}

// What there are names of.
const (
	ofExperiments = iota
	ofCommits
)

func newSnapshot(version int64) *snapshot {
	return &snapshot{
		version: version,
		rows:    newCache[int64, *index.Experiment](keptRows),
		lists:   newCache[int64, []*index.Commit](keptCommits),
		commits: newCache[int64, *index.Commit](keptCommits),
		streams: newCache[streamKey, []repository.StreamRow](keptRows),
	}
}

// experiment returns a living experiment by its ordinal.
func (v *View) experiment(ctx context.Context, s *snapshot, ord int64) (*index.Experiment, error) {
	return s.rows.get(ord, func() (*index.Experiment, int64, error) {
		e, err := v.index.ByOrd(ctx, ord)
		return e, 1, gone(err)
	})
}

// commit returns a living commit by its ordinal.
func (v *View) commit(ctx context.Context, s *snapshot, ord int64) (*index.Commit, error) {
	return s.commits.get(ord, func() (*index.Commit, int64, error) {
		c, err := v.index.CommitByOrd(ctx, ord)
		return c, 1, gone(err)
	})
}

// gone makes an error of a missing row: a node that names it is stale, not missing.
func gone(err error) error {
	if replicate.KindOf(err) == replicate.NotFound {
		return ErrStale
	}
	return err
}

// namesOf returns the names of all experiments or commits.
func (v *View) namesOf(ctx context.Context, s *snapshot, what int) (*shorts, error) {
	s.mu.Lock()
	known := s.names[what]
	s.mu.Unlock()
	if known != nil {
		return known, nil
	}
	v.naming.Lock() // one reads them, the others wait
	defer v.naming.Unlock()
	s.mu.Lock()
	known = s.names[what]
	s.mu.Unlock()
	if known != nil {
		return known, nil
	}
	read := v.index.ExperimentNames
	if what == ofCommits {
		read = v.index.CommitNames
	}
	rows, err := read(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]named, len(rows))
	for i, r := range rows {
		all[i] = named{r.Ord, head(r.ID), r.Changed.UnixNano()}
	}
	names := newShorts(all)
	s.mu.Lock()
	s.names[what] = names
	s.mu.Unlock()
	return names, nil
}

// renew forgets the names of commits if the index has changed: rows were fetched that have no names yet.
func (v *View) renew(s *snapshot, before int64) {
	if v.index.Version() == before {
		return
	}
	s.mu.Lock()
	s.names[ofCommits] = nil
	s.mu.Unlock()
}

// newestRef is what people type for the newest experiment.
const newestRef = "@latest"

// newest returns the newest experiment by creation, nil if there is none.
func (v *View) newest(ctx context.Context, s *snapshot) (*index.Experiment, error) {
	s.mu.Lock()
	known := s.latest
	s.mu.Unlock()
	if known != nil {
		return known, nil
	}
	t, err := v.index.Resolve(ctx, newestRef)
	if replicate.KindOf(err) == replicate.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.latest = t.Experiment
	s.mu.Unlock()
	return t.Experiment, nil
}

// Refresh brings the index up to date and returns the names that changed.
func (v *View) Refresh(ctx context.Context) ([]Change, error) {
	v.refreshing.Lock()
	defer v.refreshing.Unlock()
	warnings, err := v.index.Sync(ctx)
	v.merges.Begin(v.repo, rand.Reader)
	defer v.firstSync.Do(func() { close(v.synced) })
	if err == nil {
		err = v.fresh()
	}
	if err != nil {
		return nil, err
	}
	old := v.current.Load()
	version := v.index.Version()
	if version == old.version {
		return nil, errors.Join(warnings...)
	}
	next := newSnapshot(version)
	experiments, commits, err := v.index.Changes(ctx, old.version)
	if err != nil {
		return nil, err
	}
	changes, err := v.carry(ctx, old, next, experiments, commits)
	if err != nil {
		return nil, err
	}
	v.current.Store(next)
	return changes, errors.Join(warnings...)
}

// carry carries the names over to the next snapshot, and says what changed in directories.
func (v *View) carry(ctx context.Context, old, next *snapshot, experiments, commits []int64) ([]Change, error) {
	changes := []Change{{Root, rootNames[experimentsCSV]}, {Root, rootNames[experimentsJSONL]}, {Root, rootNames[rootLatest]}}
	if len(experiments)+len(commits) > manyChanges {
		return changes, nil
	}
	old.mu.Lock()
	names := old.names
	old.mu.Unlock()
	var present []named
	gone := make(map[int64]bool)
	for _, ord := range experiments {
		e, err := v.experiment(ctx, next, ord)
		if err != nil && !errors.Is(err, ErrStale) {
			return nil, err
		}
		gone[ord] = true
		if e != nil {
			present = append(present, named{ord, head(e.ID), e.Changed.UnixNano()})
			for k := experimentJSON; k < lastName; k++ {
				changes = append(changes, Change{newID(dirOf, ord, int64(experimentKind)), experimentNames[k]})
			}
		}
	}
	next.names[ofExperiments] = names[ofExperiments].with(present, gone)
	changes = append(changes, moved(experimentsDir, names[ofExperiments], next.names[ofExperiments], experiments)...)

	present, gone = nil, make(map[int64]bool)
	for _, ord := range commits {
		c, err := v.commit(ctx, next, ord)
		if err != nil && !errors.Is(err, ErrStale) {
			return nil, err
		}
		gone[ord] = true
		if c != nil {
			present = append(present, named{ord, head(c.ID), c.Time.UnixNano()})
		}
	}
	next.names[ofCommits] = names[ofCommits].with(present, gone)
	return append(changes, moved(commitsDir, names[ofCommits], next.names[ofCommits], commits)...), nil
}

// moved lists the names in a directory that some ordinals had and have.
func moved(dir ID, before, after *shorts, ords []int64) (changes []Change) {
	if before == nil || after == nil {
		return nil
	}
	for _, ord := range ords {
		a, was := before.nameOf(ord)
		b, is := after.nameOf(ord)
		if was && a != b {
			changes = append(changes, Change{dir, a})
		}
		if is && a != b {
			changes = append(changes, Change{dir, b})
		}
	}
	return changes
}
