package repository

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

const (
	// wholeSegment is the size up to which a segment is read at once, before it is known whether it is needed.
	wholeSegment = 1 << 20
	// blocksAtOnce is how many blocks make a Batch of a large segment: some 2,000 records of ordinary size, so that whoever imports
	// them can begin long before all are decoded. Several of every segment that is read wait in memory, and what waits is garbage that is
	// collected again and again.
	blocksAtOnce = 12
)

// readSegment reads an object that a merge made and emits its records, unless all that it was made of is known.
func (r *Repository) readSegment(ctx context.Context, o storage.Object, known func(key string) bool, emit func(Batch)) error {
	s, err := r.openSegment(ctx, o)
	if err != nil {
		return err
	}
	inputs := s.directory.Inputs
	return r.readOpened(ctx, s, len(inputs) == 0 || slices.ContainsFunc(inputs, func(key string) bool { return !known(key) }), emit)
}

// readOpened emits the records of a segment, if they are needed.
func (r *Repository) readOpened(ctx context.Context, s *segment, needed bool, emit func(Batch)) error {
	last := Batch{Key: s.key}
	if !s.directory.Part {
		last.Inputs = s.directory.Inputs
	}
	if needed {
		if err := s.fetch(ctx, r); err != nil {
			return err
		}
		last.Err = s.emitBlocks(ctx, emit)
	}
	last.Settled = last.Err == nil
	emit(last)
	return ctx.Err()
}

// A segment is an object that a merge made, as far as it was read.
type segment struct {
	key       string
	header    segmentHeader
	directory *segmentDirectory
	object    []byte // from its beginning; all blocks once fetch returned
}

// openSegment reads the directory of a segment, and all of it if it is small.
func (r *Repository) openSegment(ctx context.Context, o storage.Object) (*segment, error) {
	first := int64(segmentFirst)
	if o.Size <= wholeSegment {
		first = wholeSegment
	}
	s := &segment{key: o.Key}
	var err error
	if s.object, err = readSized(ctx, r.store, o.Key, 0, first, min(o.Size, first)); err != nil {
		return nil, err
	}
	if s.header, err = parseSegmentHeader(o.Key, s.object); err != nil {
		return nil, err
	}
	stored, err := s.bytes(ctx, r, int64(s.header.Off)+skippableHead, int64(s.header.Stored))
	if err != nil {
		return nil, err
	}
	if s.directory, err = s.header.parseDirectory(stored); err != nil {
		return nil, s.damaged(err)
	}
	return s, nil
}

// bytes returns a part of the segment, from memory if it is there.
func (s *segment) bytes(ctx context.Context, r *Repository, off, n int64) ([]byte, error) {
	if int64(len(s.object)) >= off+n {
		return s.object[off : off+n], nil
	}
	data, err := readSized(ctx, r.store, s.key, off, n, n)
	if err == nil && int64(len(data)) < n {
		err = s.damaged(fmt.Errorf("cut off at byte %d", off+int64(len(data))))
	}
	return data, err
}

// fetch reads the blocks.
func (s *segment) fetch(ctx context.Context, r *Repository) (err error) {
	s.object, err = s.bytes(ctx, r, 0, int64(s.header.Off))
	return err
}

func (s *segment) damaged(err error) error {
	return &replicate.Error{Op: "read", Path: s.key, Kind: replicate.Corrupt, Err: err}
}

// emitBlocks emits the records of all blocks, decoded by all cores. The error joins what is wrong with some of them.
func (s *segment) emitBlocks(ctx context.Context, emit func(Batch)) error {
	groups := slices.Collect(slices.Chunk(s.directory.Blocks, blocksAtOnce))
	damage := make([]error, len(groups))
	_ = parallel(ctx, runtime.GOMAXPROCS(0), len(groups), func(ctx context.Context, i int) error { // the caller looks at ctx
		part := segmentDirectory{Blocks: groups[i]}
		records, errs := part.records(s.object)
		damage[i] = errors.Join(errs...)
		emit(Batch{Key: s.key, Records: records})
		return nil
	})
	if err := errors.Join(damage...); err != nil {
		return s.damaged(err)
	}
	return nil
}
