package repository

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/replicate/replicate"
)

// A census knows of every row what decides whether its packs are needed: some 80 bytes each, so that ten million rows have room.
type census struct {
	repository *Repository
	known      map[string]bool // objects that were read
	at         time.Time       // store time before the last look
	damage     []error         // objects that it could not read whole

	rows     []countedRow
	stretch  []countedStretch
	packs    []packMark        // of all rows, one behind the other
	deleted  map[idBytes]int64 // the latest deletion of an id, in nanoseconds
	doubtful []packMark        // needed by what is late, or of a kind that is not known: such rows supersede nothing and are not deleted
}

// A packMark is the beginning of a pack's name. Two packs with one mark are taken for one: at worst a dead one is kept.
type packMark uint64

func markOf(pack replicate.Hash) packMark { return packMark(binary.LittleEndian.Uint64(pack[:])) }

type idBytes [16]byte

// bytesOf returns the bytes of an id. Those of 2020 and 2021, of which deletions speak, are twice as long: halves are laid over each other, as the
// first one alone is what a converted copy is called.
func bytesOf(id replicate.ID) (b idBytes) {
	var whole [2 * len(b)]byte
	n, _ := hex.Decode(whole[:], []byte(id)) // it was parsed before
	b = idBytes(whole[:len(b)])
	for i := len(b); i < n; i++ {
		b[i-len(b)] ^= whole[i]
	}
	return b
}

// A countedRow is an experiment or a commit.
type countedRow struct {
	experiment, commit idBytes // no commit: the experiment itself
	before             int64   // nanoseconds
	from, to           uint32  // its packs
}

// A countedStretch is a row of a stream.
type countedStretch struct {
	countedRow
	writer     [8]byte
	kind       StreamKind
	begin, end int64
	hash       uint64 // the beginning of the line's
}

func newCensus(r *Repository) *census {
	return &census{repository: r, known: map[string]bool{}, deleted: map[idBytes]int64{}}
}

// look takes in what is new. Objects that are damaged are in c.damage; what they say is not known.
func (c *census) look(ctx context.Context) (err error) {
	if c.at, err = c.repository.store.Now(ctx); err != nil {
		return err
	}
	c.damage = nil
	var read []string // known is asked while batches come
	var failed error
	s := syncer{repository: c.repository, unjudged: true, known: func(key string) bool { return c.known[key] }}
	s.yield = func(b Batch, err error) bool {
		if failed = err; err != nil {
			return false
		}
		if b.Err != nil {
			c.damage = append(c.damage, b.Err)
		}
		for i := range b.Records {
			c.add(&b.Records[i])
		}
		for _, late := range b.late {
			c.doubtful = appendMarks(c.doubtful, late.row().Packs)
		}
		if b.Settled {
			read = append(append(read, b.Inputs...), b.Key)
		}
		return true
	}
	s.sync(ctx)
	for _, key := range read {
		c.known[key] = true
	}
	return errors.Join(failed, ctx.Err())
}

func appendMarks(marks []packMark, packs []replicate.Hash) []packMark {
	for _, p := range packs {
		marks = append(marks, markOf(p))
	}
	return marks
}

func (c *census) add(r *Record) {
	switch {
	case r.Delete != nil:
		id := bytesOf(r.Delete.ID)
		c.deleted[id] = max(c.deleted[id], r.Delete.At.UnixNano())
	case r.Stream != nil:
		s := countedStretch{countedRow: c.row(r), kind: r.Stream.Stream, begin: r.Stream.From, end: r.Stream.To,
			hash: binary.BigEndian.Uint64(r.Hash[:])}
		_, _ = hex.Decode(s.writer[:], []byte(r.Stream.Writer)) // it was parsed before
		c.stretch = append(c.stretch, s)
	case r.row() != nil:
		c.rows = append(c.rows, c.row(r))
	case r.Set == nil && r.Digest == nil:
		c.doubtful = appendMarks(c.doubtful, packsOfUnknown(r.Line))
	}
}

func (c *census) row(r *Record) countedRow {
	experiment, commit := r.ids()
	row := countedRow{experiment: bytesOf(experiment), before: r.row().Before.UnixNano(), from: uint32(len(c.packs))}
	if commit != "" {
		row.commit = bytesOf(commit)
	}
	c.packs = appendMarks(c.packs, r.row().Packs)
	row.to = uint32(len(c.packs))
	return row
}

// packsOfUnknown returns the packs that a record of a kind from the future needs, if it names them as all others do.
func packsOfUnknown(line []byte) []replicate.Hash {
	var r struct {
		Packs []replicate.Hash `json:"packs"`
	}
	_ = json.Unmarshal(line, &r) // what it could read is what is needed
	return r.Packs
}

// living calls each for the packs of every living row, stretches of streams that others supersede excepted. Rows are counted each for itself, not
// one per id, as some reader may have believed any of them.
func (c *census) living(each func(experiment idBytes, packs []packMark)) {
	for _, r := range c.rows {
		if !c.dead(r) {
			each(r.experiment, c.packs[r.from:r.to])
		}
	}
	slices.SortFunc(c.stretch, func(a, b countedStretch) int {
		return cmp.Or(a.compareStream(&b), cmp.Compare(a.begin, b.begin), cmp.Compare(b.end, a.end), cmp.Compare(a.hash, b.hash))
	})
	var of *countedStretch // the one that reaches furthest, of the stream at hand
	for i := range c.stretch {
		s := &c.stretch[i]
		if c.dead(s.countedRow) || of != nil && of.compareStream(s) == 0 && s.end <= of.end {
			continue
		}
		each(s.experiment, c.packs[s.from:s.to])
		of = s
	}
}

func (s *countedStretch) compareStream(t *countedStretch) int {
	return cmp.Or(bytes.Compare(s.experiment[:], t.experiment[:]), cmp.Compare(s.kind, t.kind), bytes.Compare(s.writer[:], t.writer[:]))
}

// dead reports whether a deletion kills a row.
func (c *census) dead(r countedRow) bool {
	kills := func(id idBytes) bool {
		at, ok := c.deleted[id]
		return ok && r.before < at+int64(LandWithin)
	}
	return kills(r.experiment) || r.commit != idBytes{} && kills(r.commit)
}

// needed returns all packs that must stay.
func (c *census) needed() map[packMark]bool {
	needed := make(map[packMark]bool, len(c.packs))
	for _, p := range c.doubtful {
		needed[p] = true
	}
	c.living(func(_ idBytes, packs []packMark) {
		for _, p := range packs {
			needed[p] = true
		}
	})
	return needed
}
