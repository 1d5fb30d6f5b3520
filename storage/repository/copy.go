package repository

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/replicate/replicate"
)

const (
	// copiedRecords is how many bytes of records are published together.
	copiedRecords = 1 << 20
	// convertsAtOnce is how many experiments of another format are converted side by side: the files of one commit of each are on the
	// local disk meanwhile.
	convertsAtOnce = 4
)

// CopyOptions says what to copy.
type CopyOptions struct {
	Only     func(experiment replicate.ID) bool // nil: all experiments
	Distrust bool                               // others could have changed what is copied: rows whose packs are damaged are left out
	DryRun   bool                               // look what there is to do, and do nothing
	Progress func(done, total int64)            // bytes of packs; called by one goroutine at a time; may be nil
	Convert  func(done, total int64)            // the same of experiments and commits of another format, which come last
	Read     func(r *Record)                    // told every record of the source, before anything is copied; may be nil
	Warn     func(err error)                    // told what cannot be read and is left out, by one goroutine at a time; may be nil
}

// A CopyReport says what was copied, or with DryRun what would be.
type CopyReport struct {
	Experiments, Commits int64
	Others               int64 // other records: stretches of streams, facts
	Converted            int64 // experiments and commits among them that are of another format
	Packs, Bytes         int64 // copied as they are
	Problems             int64 // told to Warn
}

// Copy brings what from holds and the repository of the spool does not into that: rows with the packs that they need, under the same ids, and facts
// about experiments. Rows of another format are converted: ids become their first 32 digits, and files are stored anew. What was deleted, here or there,
// stays deleted. A copy can be stopped at any moment and begun again; what it copied so far is visible, each experiment before its commits. What cannot be read
// is reported and left out; of damaged packs what is whole is copied, unless Distrust is set.
func (s *Spool) Copy(ctx context.Context, from *Repository, o CopyOptions) (CopyReport, error) {
	c := &copier{from: from, to: s.repository, spool: s, options: o, experiments: map[replicate.ID]*copied{}}
	if err := c.copy(ctx); err != nil {
		return c.report, &replicate.Error{Op: "copy", Path: from.store.URL(), Kind: replicate.KindOf(err), Err: err, Hint: replicate.HintOf(err)}
	}
	return c.report, nil
}

// A copier is one call of Copy.
type copier struct {
	from, to *Repository
	spool    *Spool
	options  CopyOptions
	report   CopyReport

	there       holdings // of to
	experiments map[replicate.ID]*copied
	others      []Record                 // of kinds that this version does not know
	missing     map[replicate.Hash]int64 // packs that are not there, and their sizes

	warning sync.Mutex // held while somebody is told, guards report.Problems
}

// copied is what of one experiment is to be copied.
type copied struct {
	id      replicate.ID // where it comes from
	created time.Time
	rows    []Record // its own row first, then commits by number, then streams
	facts   []Record // Sets
	foreign bool
}

func (c *copier) copy(ctx context.Context) error {
	if c.from.store.URL() == c.to.store.URL() {
		return replicate.Errorf(replicate.Usage, "source and destination are the same")
	}
	if err := c.read(ctx); err != nil {
		return err
	}
	if err := c.findPacks(ctx); err != nil {
		return err
	}
	c.count()
	if c.options.DryRun {
		return nil
	}
	release, err := c.to.landing(ctx) // packs without records are no garbage until this ends
	if err != nil {
		return err
	}
	defer release()
	if err := c.copyNative(ctx); err != nil {
		return err
	}
	foreign := c.sorted(true)
	shown := showProgress(c.report.Converted, c.options.Convert)
	defer shown.stop()
	return parallel(ctx, convertsAtOnce, len(foreign), func(ctx context.Context, i int) error {
		return c.convert(ctx, foreign[i], shown)
	})
}

// sorted returns the experiments of another format, or all others, the oldest first.
func (c *copier) sorted(foreign bool) []*copied {
	list := slices.DeleteFunc(slices.Collect(maps.Values(c.experiments)), func(e *copied) bool { return e.foreign != foreign })
	slices.SortFunc(list, func(a, b *copied) int { return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.id, b.id)) })
	return list
}

// count sums up what is going to be copied.
func (c *copier) count() {
	for _, e := range c.experiments {
		c.report.Others += int64(len(e.facts))
		for _, r := range e.rows {
			switch {
			case r.Experiment != nil:
				c.report.Experiments++
			case r.Commit != nil:
				c.report.Commits++
			default:
				c.report.Others++
			}
			if e.foreign {
				c.report.Converted++
			}
		}
	}
	c.report.Others += int64(len(c.others))
	c.report.Packs = int64(len(c.missing))
	for _, size := range c.missing {
		c.report.Bytes += size
	}
}

func (c *copier) warn(err error) {
	c.warning.Lock()
	defer c.warning.Unlock()
	c.report.Problems++
	if c.options.Warn != nil {
		c.options.Warn(err)
	}
}

// copyNative copies experiments of this format: packs side by side, and the records of an experiment once its packs are there.
func (c *copier) copyNative(ctx context.Context) error {
	experiments := c.sorted(false)
	packs, err := c.startPacks(ctx, experiments)
	if err != nil {
		return err
	}
	defer packs.stop()
	var group []Record
	size := 0
	add := func(r Record) error {
		if row := r.row(); row != nil {
			if err := packs.wait(ctx, row.Packs); err != nil {
				return err
			}
			if packs.lacks(row.Packs) {
				return nil // which was told
			}
		}
		group, size = append(group, r), size+len(r.Line)
		if size < copiedRecords {
			return nil
		}
		full := group
		group, size = nil, 0
		return c.publish(ctx, full)
	}
	for _, e := range experiments {
		for _, r := range slices.Concat(e.rows, e.facts) {
			if err := add(r); err != nil {
				return err
			}
		}
	}
	for _, r := range c.others {
		if err := add(r); err != nil {
			return err
		}
	}
	return c.publish(ctx, group)
}

// publish makes records visible whose packs are there, rows with a new time.
func (c *copier) publish(ctx context.Context, group []Record) error {
	if len(group) == 0 {
		return nil
	}
	needs := map[replicate.Hash]bool{}
	for _, r := range group {
		if row := r.row(); row != nil {
			for _, p := range row.Packs {
				needs[p] = true
			}
		}
	}
	err := publish(ctx, c.to, nil, slices.Collect(maps.Keys(needs)), func(before time.Time) ([]Record, error) {
		return redated(group, before)
	})
	if gone, ok := errors.AsType[errDoubtful](err); ok {
		return replicate.Errorf(replicate.Conflict, "%d packs are being deleted from %s", len(gone.packs), c.to.store.URL()).
			WithHint("run replicate gc there until it has nothing left to do, and then copy again")
	}
	return err
}

// redated returns records in which rows have another time. All else stays as it is, unknown keys included.
func redated(records []Record, before time.Time) ([]Record, error) {
	list := make([]Record, len(records))
	for i, r := range records {
		list[i] = r
		if r.row() == nil {
			continue
		}
		var err error
		if list[i], err = r.with(map[string][]byte{"before": timeJSON(before)}); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func timeJSON(t time.Time) []byte { return fmt.Appendf(nil, "%q", t.UTC().Format(time.RFC3339Nano)) }

// with returns the record of a line in which some members have other values, or are not there where the value is nil. All else stays as it is.
func (r Record) with(members map[string][]byte) (Record, error) {
	line := []byte{'{'}
	add := func(key, value []byte) {
		if len(line) > 1 {
			line = append(line, ',')
		}
		line = append(append(append(append(line, '"'), key...), `":`...), value...)
	}
	done := map[string]bool{}
	c := &cursor{data: r.Line}
	err := c.object(func(key []byte) error {
		name := string(key)
		value, err := c.raw()
		if other, ok := members[name]; ok {
			done[name] = true
			if value = other; value == nil {
				return err
			}
		}
		add(bytes.TrimSuffix(bytes.TrimPrefix(replicate.AppendJSONString(nil, name), []byte{'"'}), []byte{'"'}), value)
		return err
	})
	if err != nil {
		return Record{}, err
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		if !done[name] && members[name] != nil {
			add([]byte(name), members[name])
		}
	}
	return ParseRecord(append(line, '}'))
}

// newWork makes a folder of the spool for a copy. Should the process die, whoever finds it removes it.
func (c *copier) newWork() (*importer, error) {
	id, err := replicate.NewID(rand.Reader)
	if err != nil {
		return nil, err
	}
	return c.spool.newImporter(id)
}
