package repository

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/replicate/replicate"
)

// CheckOptions says how thorough a check is.
type CheckOptions struct {
	ReadData bool                    // read every frame of every pack, not only the packs' directories
	Progress func(done, total int64) // packs; called by one goroutine at a time; may be nil
}

// A Problem is something damaged, and who misses it.
type Problem struct {
	Key        string       // the object of records that cannot be read, or not all of it; "" for what an experiment misses
	Experiment replicate.ID // that misses something
	Commit     replicate.ID // that misses it; "" if it is the experiment's code or a stream
	Path       string       // the file that cannot be read, "metrics" or "output"; "" for all files, or for none that is known
	Err        error
}

// A CheckReport says what was looked at.
type CheckReport struct {
	Records, Rows, Packs int
	Bytes                int64 // of packs
	Problems             int
}

// Check verifies that every record parses, that the packs of every living row exist and are what their ends say, and that trees and
// recipes point at frames that are there, and that digests say what the rows say that they stand for; with ReadData also the bytes of every
// frame. It calls found for each problem, from one
// goroutine, and changes nothing. It reads all records and the directory of every pack.
func (r *Repository) Check(ctx context.Context, o CheckOptions, found func(Problem)) (CheckReport, error) {
	c := &checker{repository: r, options: o, found: found, packs: map[replicate.Hash]*checkedPack{}, trees: map[string]*checkedTree{}}
	for _, step := range []func(context.Context) error{c.readRecords, c.readPacks, c.readTrees} {
		if err := step(ctx); err != nil {
			return c.report, r.failed("check", "", err)
		}
	}
	for i := range c.rows {
		c.checkRow(&c.rows[i])
	}
	return c.report, nil
}

// A checker is one call of Check.
type checker struct {
	repository *Repository
	options    CheckOptions
	found      func(Problem)
	report     CheckReport

	rows  []Record // those that must be whole
	packs map[replicate.Hash]*checkedPack
	trees map[string]*checkedTree // by treeKey
}

func (c *checker) problem(p Problem) {
	c.report.Problems++
	c.found(p)
}

// readRecords reads all records and finds the rows that must be whole: neither deleted, nor published again, nor superseded.
func (c *checker) readRecords(ctx context.Context) error {
	var rows, deletes []Record
	segments := map[string][]Record{} // what was read so far of those that are not read whole
	for batch, err := range c.repository.Sync(ctx, func(string) bool { return false }) {
		if err != nil {
			return err
		}
		if batch.Err != nil {
			c.problem(Problem{Key: batch.Key, Err: batch.Err})
		}
		for _, record := range batch.Records {
			c.report.Records++
			switch {
			case record.row() != nil:
				rows = append(rows, record)
			case record.Delete != nil:
				deletes = append(deletes, record)
			}
		}
		if isLogKey(batch.Key) {
			continue
		}
		segments[batch.Key] = append(segments[batch.Key], batch.Records...)
		if batch.Settled {
			c.checkDigests(batch.Key, segments[batch.Key])
			delete(segments, batch.Key)
		}
	}
	c.rows = effective(alive(rows, deletes))
	c.report.Rows = len(c.rows)
	return nil
}

// alive returns the rows that no deletion kills.
func alive(rows, deletes []Record) []Record {
	last := map[replicate.ID]*Delete{}
	for _, d := range deletes {
		if was := last[d.Delete.ID]; was == nil || was.At.Before(d.Delete.At) {
			last[d.Delete.ID] = d.Delete
		}
	}
	return slices.DeleteFunc(rows, func(r Record) bool {
		experiment, commit := r.ids()
		for _, id := range []replicate.ID{experiment, commit} {
			if d := last[id]; d != nil && d.Kills(*r.row()) {
				return true
			}
		}
		return false
	})
}

// ids returns the experiment that a row belongs to, and the commit that it is.
func (r *Record) ids() (experiment, commit replicate.ID) {
	switch {
	case r.Experiment != nil:
		return r.Experiment.ID, ""
	case r.Commit != nil:
		return r.Commit.Experiment, r.Commit.ID
	case r.Stream != nil:
		return r.Stream.Experiment, ""
	}
	return "", ""
}

// effective drops rows that a reader does not need: those published again later, and stretches of streams that another row contains.
func effective(rows []Record) []Record {
	byID := map[replicate.ID]Record{}
	streams := map[streamKey][]Record{}
	for _, r := range rows {
		if s := r.Stream; s != nil {
			streams[s.key()] = append(streams[s.key()], r)
			continue
		}
		experiment, commit := r.ids()
		id := cmp.Or(commit, experiment)
		if was, ok := byID[id]; !ok || later(r, was) {
			byID[id] = r
		}
	}
	kept := slices.Collect(maps.Values(byID))
	for _, rows := range streams {
		kept = append(kept, maximal(rows)...)
	}
	slices.SortFunc(kept, func(a, b Record) int { return bytes.Compare(a.Hash[:], b.Hash[:]) })
	return kept
}

// later reports whether of two rows of one id a is the one to be read.
func later(a, b Record) bool {
	return cmp.Or(a.row().Before.Compare(b.row().Before), bytes.Compare(a.Hash[:], b.Hash[:])) > 0
}

// maximal returns the rows of one writer's stream that none supersedes.
func maximal(rows []Record) (kept []Record) {
	slices.SortFunc(rows, widestFirst)
	reached := int64(-1)
	for _, r := range rows {
		if r.Stream.To > reached {
			kept = append(kept, r)
			reached = r.Stream.To
		}
	}
	return kept
}
