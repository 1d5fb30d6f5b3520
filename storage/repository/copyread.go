package repository

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/replicate/replicate"
)

// holdings are the records of a repository.
type holdings struct {
	rows   []Record // those that readers use
	facts  []Record
	others []Record
	errors []error

	ids     map[replicate.ID]bool // of all rows, dead ones too
	dead    map[replicate.ID]bool // experiments that were deleted
	lines   map[replicate.Hash]bool
	streams map[streamRange]bool
}

// A streamRange is a stretch of a stream. What stands there is the same in all rows of it.
type streamRange struct {
	experiment replicate.ID
	stream     StreamKind
	writer     string
	from, to   int64
}

func rangeOf(s *StreamRow) streamRange {
	return streamRange{s.Experiment, s.Stream, s.Writer, s.From, s.To}
}

// readHoldings reads all records of a repository. told is told each of them; it may be nil.
func readHoldings(ctx context.Context, r *Repository, told func(*Record)) (holdings, error) {
	c := holdings{ids: map[replicate.ID]bool{}, dead: map[replicate.ID]bool{}, lines: map[replicate.Hash]bool{}, streams: map[streamRange]bool{}}
	var rows, deletes []Record
	for batch, err := range r.Sync(ctx, func(string) bool { return false }) {
		if err != nil {
			return c, err
		}
		if batch.Err != nil {
			c.errors = append(c.errors, batch.Err)
		}
		for _, record := range batch.Records {
			if told != nil {
				told(&record)
			}
			switch {
			case record.row() != nil:
				rows = append(rows, record)
			case record.Delete != nil:
				deletes = append(deletes, record)
			case record.Set != nil && !c.lines[record.Hash]:
				c.facts = append(c.facts, record)
			case !c.lines[record.Hash]:
				c.others = append(c.others, record)
			}
			c.lines[record.Hash] = true
		}
	}
	for i := range rows {
		if experiment, commit := rows[i].ids(); rows[i].Stream == nil {
			c.ids[cmp.Or(commit, experiment)] = true
			c.dead[experiment] = c.dead[experiment] || rows[i].Experiment != nil
		} else {
			c.streams[rangeOf(rows[i].Stream)] = true
		}
	}
	c.rows = effective(alive(rows, deletes))
	for i := range c.rows {
		if e := c.rows[i].Experiment; e != nil {
			delete(c.dead, e.ID)
		}
	}
	return c, nil
}

// home is the id under which a row of another format is stored in this one: the digits that people know stay right.
func home(id replicate.ID) replicate.ID {
	if id.IsLegacy() {
		return id[:32]
	}
	return id
}

// read finds out what is to be copied.
func (c *copier) read(ctx context.Context) (err error) {
	var here holdings
	err = parallel(ctx, 2, 2, func(ctx context.Context, i int) (err error) {
		if i == 1 {
			here, err = readHoldings(ctx, c.from, c.options.Read)
		} else if c.there, err = readHoldings(ctx, c.to, nil); err != nil {
			err = fmt.Errorf("read the destination: %w", err)
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, err := range here.errors {
		c.warn(err)
	}
	for _, r := range here.rows {
		experiment, commit := r.ids()
		if !c.wanted(experiment) || c.there.dead[home(experiment)] || r.Stream == nil && c.there.ids[home(cmp.Or(commit, experiment))] ||
			r.Stream != nil && c.there.streams[rangeOf(r.Stream)] {
			continue
		}
		e := c.of(experiment)
		e.rows = append(e.rows, r)
		_, _, e.foreign = r.row().Foreign()
	}
	for _, r := range here.facts {
		if id := r.Set.Experiment; c.wanted(id) && !here.dead[id] && !c.there.dead[home(id)] && !c.there.lines[r.Hash] {
			c.of(id).facts = append(c.of(id).facts, r)
		}
	}
	for _, r := range here.others {
		if !c.there.lines[r.Hash] && c.options.Only == nil {
			c.others = append(c.others, r)
		}
	}
	for _, e := range c.experiments {
		e.sort()
	}
	return nil
}

func (c *copier) wanted(experiment replicate.ID) bool {
	return c.options.Only == nil || c.options.Only(experiment)
}

func (c *copier) of(experiment replicate.ID) *copied {
	e := c.experiments[experiment]
	if e == nil {
		e = &copied{id: experiment}
		c.experiments[experiment] = e
	}
	return e
}

// sort puts the row of the experiment first, so that a copy that is cut off shows no commits of nothing, then commits in the order in which
// they were made.
func (e *copied) sort() {
	rank := func(r *Record) (kind int, seq int64) {
		switch {
		case r.Experiment != nil:
			return 0, 0
		case r.Commit != nil:
			return 1, r.Commit.Seq
		}
		return 2, r.Stream.Seq
	}
	slices.SortFunc(e.rows, func(a, b Record) int {
		kindA, seqA := rank(&a)
		kindB, seqB := rank(&b)
		return cmp.Or(cmp.Compare(kindA, kindB), cmp.Compare(seqA, seqB), bytes.Compare(a.Hash[:], b.Hash[:]))
	})
	for _, r := range e.rows {
		switch {
		case r.Experiment != nil:
			e.created = r.Experiment.Created
		case r.Commit != nil && e.created.IsZero():
			e.created = r.Commit.Time
		}
	}
}

// findPacks finds the packs that are not there, and leaves out rows that need one which is not here either.
func (c *copier) findPacks(ctx context.Context) error {
	var packs []replicate.Hash
	seen := map[replicate.Hash]bool{}
	for _, e := range c.experiments {
		for _, r := range e.rows {
			for _, p := range r.row().Packs {
				if !seen[p] {
					seen[p] = true
					packs = append(packs, p)
				}
			}
		}
	}
	sizes := make([]int64, len(packs)) // −1: there already; −2: nowhere
	err := parallel(ctx, getsAtOnce, len(packs), func(ctx context.Context, i int) error {
		if _, err := c.to.store.Stat(ctx, packKey(packs[i])); !errors.Is(err, fs.ErrNotExist) {
			sizes[i] = -1
			return err
		}
		o, err := c.from.store.Stat(ctx, packKey(packs[i]))
		if errors.Is(err, fs.ErrNotExist) {
			sizes[i] = -2
			return nil
		}
		sizes[i] = o.Size
		return err
	})
	if err != nil {
		return err
	}
	c.missing = map[replicate.Hash]int64{}
	nowhere := map[replicate.Hash]bool{}
	for i, size := range sizes {
		switch {
		case size == -2:
			nowhere[packs[i]] = true
		case size >= 0:
			c.missing[packs[i]] = size
		}
	}
	for _, e := range c.experiments {
		e.rows = slices.DeleteFunc(e.rows, func(r Record) bool { return c.lacks(&r, nowhere) })
	}
	return nil
}

// lacks reports whether a row needs a pack that is gone, and says so.
func (c *copier) lacks(r *Record, gone map[replicate.Hash]bool) bool {
	for _, p := range r.row().Packs {
		if gone[p] {
			c.warn(rowError(r, packError(p, fs.ErrNotExist)))
			return true
		}
	}
	return false
}

// rowError names a row that cannot be copied.
func rowError(r *Record, err error) error {
	experiment, commit := r.ids()
	e := &replicate.Error{Op: "copy", Path: "experiment " + experiment.Short(), Kind: replicate.KindOf(err), Err: err}
	switch {
	case commit != "":
		e.Path = "commit " + commit.Short() + " of " + e.Path
	case r.Stream != nil:
		e.Path = string(r.Stream.Stream) + " of " + e.Path
	}
	return e
}
