package repository

import (
	"context"
	"errors"
	"io/fs"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

const (
	// firstOfHead is what is asked for first of a segment that is not read whole: most heads are not much longer.
	firstOfHead = 256 << 10
	// headsAtOnce is how many heads are in memory at the same time: up to 20 MiB each, decoded ten times that, some of it at a time.
	headsAtOnce = 8
	// maxGap is how much between two blocks is read rather than asked for separately, and maxBlockRun how much one request asks for.
	maxGap      = 64 << 10
	maxBlockRun = 8 << 20
	// runsAtOnce is how many requests for blocks are under way.
	runsAtOnce = 16
	// maxNamed bounds the experiments that Named returns of one segment.
	maxNamed = 100
)

// A Body says where the rows of a segment are whose head alone was read.
type Body struct {
	Key    string
	Inputs []string // objects whose records the segment includes
	Part   bool     // other segments have the rest of them
	Data   []byte   // what OpenBody wants with the key

	blocks []segmentBlock
}

// OpenBody reads the Data of a Body.
func OpenBody(key string, data []byte) (*Body, error) {
	h, err := parseSegmentHeader(key, data)
	if err != nil {
		return nil, err
	}
	d, err := h.parseDirectory(data[segmentFirst:])
	if err != nil {
		return nil, &replicate.Error{Op: "read", Path: key, Kind: replicate.Corrupt, Err: err}
	}
	return &Body{Key: key, Inputs: d.Inputs, Part: d.Part, Data: data, blocks: d.Blocks}, nil
}

// SyncHeads is Sync for who can do without rows: of a large segment that was not known it yields the records of the head with a Digest of every
// experiment that has commits or streams there, and the Body for Rows. whole says of which objects all rows are known: a segment whose inputs
// are all whole is passed over.
func (r *Repository) SyncHeads(ctx context.Context, known, whole func(key string) bool) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) {
		s := syncer{repository: r, known: known, whole: whole, yield: yield}
		if s.sync(ctx) && r.foreign != nil {
			r.syncForeign(ctx, known, yield)
		}
	}
}

// readHead reads the head of a segment, or all of one that is small or has no digests.
func (r *Repository) readHead(ctx context.Context, o storage.Object, whole func(key string) bool, emit func(Batch)) error {
	if o.Size <= wholeSegment {
		return r.readSegment(ctx, o, whole, emit)
	}
	s := &segment{key: o.Key}
	var err error
	if s.object, err = readSized(ctx, r.store, o.Key, 0, firstOfHead, firstOfHead); err != nil {
		return err
	}
	if s.header, err = parseSegmentHeader(o.Key, s.object); err != nil {
		return err
	}
	head := int64(segmentFirst) + int64(s.header.Head)
	var stored []byte
	err = parallel(ctx, r.atOnce(2), 2, func(ctx context.Context, i int) (err error) {
		if i == 0 {
			stored, err = s.bytes(ctx, r, int64(s.header.Off)+skippableHead, int64(s.header.Stored))
			return err
		}
		if more := head - int64(len(s.object)); more > 0 {
			rest, err := s.bytes(ctx, r, int64(len(s.object)), more)
			s.object = append(s.object, rest...)
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	if s.directory, err = s.header.parseDirectory(stored); err != nil {
		return s.damaged(err)
	}
	inputs := s.directory.Inputs
	unknown := len(inputs) == 0 || slices.ContainsFunc(inputs, func(key string) bool { return !whole(key) })
	if !unknown || !s.directory.Digests {
		return r.readOpened(ctx, s, unknown, emit)
	}
	body := &Body{Key: o.Key, Inputs: inputs, Part: s.directory.Part, Data: slices.Concat(s.object[:segmentFirst], stored), blocks: s.directory.Blocks}
	s.directory.Blocks = slices.DeleteFunc(slices.Clone(s.directory.Blocks), func(b segmentBlock) bool { return b.Kind != blockHead })
	last := Batch{Key: o.Key, Body: body}
	if !body.Part {
		last.Inputs = inputs
	}
	last.Err = s.emitBlocks(ctx, func(b Batch) {
		b.Body = body
		emit(b)
	})
	last.Settled = last.Err == nil
	emit(last)
	return ctx.Err()
}

// A blockRun is blocks of one segment that one request asks for.
type blockRun struct {
	key    string
	blocks []segmentBlock
}

func (s blockRun) from() int64 { return int64(s.blocks[0].Off) }
func (s blockRun) to() int64 {
	last := s.blocks[len(s.blocks)-1]
	return int64(last.Off) + int64(last.Stored)
}

// runsOf puts the blocks that are wanted together where they lie close to each other.
func runsOf(b *Body, wanted func(segmentBlock) bool) (all []blockRun) {
	for _, block := range b.blocks {
		if !wanted(block) {
			continue
		}
		if n := len(all); n > 0 && int64(block.Off)-all[n-1].to() <= maxGap && int64(block.Off)+int64(block.Stored)-all[n-1].from() <= maxBlockRun {
			all[n-1].blocks = append(all[n-1].blocks, block)
			continue
		}
		all = append(all, blockRun{b.Key, []segmentBlock{block}})
	}
	return all
}

// Rows reads the rows that segments have of some experiments, and yields them in no order. gone are the segments that are there no more: a Sync finds
// what became of them. Damage is not an error of the rest: it is returned beside it.
func (r *Repository) Rows(ctx context.Context, bodies []*Body, experiments []replicate.ID, each func([]Record)) (gone []string, damage []error, err error) {
	wanted := slices.Sorted(slices.Values(experiments))
	var all []blockRun
	for _, b := range bodies {
		all = append(all, runsOf(b, func(block segmentBlock) bool {
			if block.Kind != blockCommits && block.Kind != blockStreams {
				return false
			}
			i, _ := slices.BinarySearch(wanted, block.First)
			return i < len(wanted) && wanted[i] <= block.Last
		})...)
	}
	return r.readRuns(ctx, all, func(lines []byte) error {
		records, err := parseLines(lines)
		records = slices.DeleteFunc(records, func(r Record) bool {
			experiment, _ := r.ids()
			_, ok := slices.BinarySearch(wanted, experiment)
			return !ok
		})
		if len(records) > 0 {
			each(records)
		}
		return err
	})
}

// Named returns the beginnings of the ids of experiments that have a commit, in one of the segments, whose id begins with prefix. They may be a
// few too many: only some digits are looked at. With very many it returns some.
func (r *Repository) Named(ctx context.Context, bodies []*Body, prefix string) (experiments []string, gone []string, damage []error, err error) {
	from, to := replicate.ID(prefix), replicate.ID(prefix+"~") // behind all digits
	prefix = prefix[:min(len(prefix), shortName)]
	var all []blockRun
	for _, b := range bodies {
		all = append(all, runsOf(b, func(block segmentBlock) bool {
			return block.Kind == blockNames && block.First <= to && (block.Last >= from || block.Last.HasPrefix(string(from)))
		})...)
	}
	gone, damage, err = r.readRuns(ctx, all, func(lines []byte) error {
		n := 0
		return eachLine(lines, func(line []byte, _ int) error {
			c := &cursor{data: line}
			pair, err := c.texts()
			if err == nil && len(pair) == 2 && strings.HasPrefix(pair[0], prefix) && n < maxNamed {
				n++
				experiments = append(experiments, pair[1])
			}
			return err
		})
	})
	slices.Sort(experiments)
	return slices.Compact(experiments), gone, damage, err
}

// readRuns reads blocks and calls each with the lines of every one, from one goroutine at a time.
func (r *Repository) readRuns(ctx context.Context, all []blockRun, each func(lines []byte) error) (gone []string, damage []error, err error) {
	var mu sync.Mutex // held while each runs; guards gone and damage
	err = parallel(ctx, r.atOnce(max(runsAtOnce, runtime.GOMAXPROCS(0))), len(all), func(ctx context.Context, i int) error {
		s := all[i]
		data, err := readSized(ctx, r.store, s.key, s.from(), s.to()-s.from(), s.to()-s.from())
		if errors.Is(err, fs.ErrNotExist) {
			mu.Lock()
			defer mu.Unlock()
			gone = append(gone, s.key)
			return nil
		}
		if err != nil {
			return err
		}
		for _, b := range s.blocks {
			from := int64(b.Off) - s.from()
			lines, err := b.decode(data[min(from, int64(len(data))):min(from+int64(b.Stored), int64(len(data)))])
			mu.Lock()
			if err == nil {
				err = each(lines)
			}
			if err != nil {
				damage = append(damage, &replicate.Error{Op: "read", Path: s.key, Kind: replicate.Corrupt, Err: err})
			}
			mu.Unlock()
		}
		return nil
	})
	slices.Sort(gone)
	return slices.Compact(gone), damage, err
}
