package view

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"runtime/debug"
	"strings"

	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

const (
	// largeTree is from how many paths on what reading a tree leaves behind is given back at once: a server may then be idle for days.
	largeTree = 50_000
	// draftBuffer and levelBuffer are in what pieces a tree is written, in the order of the commit and in that of the places: a commit may be two
	// thousand directories deep, and each level has two buffers.
	draftBuffer = 64 << 10
	levelBuffer = 2 << 10
)

// buildTree makes the tree of a commit. Where the cache directory takes no more, it is kept in memory.
func (v *View) buildTree(ctx context.Context, row repository.Row, ord int64) (*tree, error) {
	t, err := v.buildIn(ctx, v.cache, row, ord)
	if _, onDisk := errors.AsType[*fs.PathError](err); onDisk {
		t, err = v.buildIn(ctx, "", row, ord)
	}
	if err == nil && t.count > largeTree {
		debug.FreeOSMemory()
	}
	return t, err
}

// buildIn makes a tree whose files are below dir. It takes no more memory for a larger tree.
func (v *View) buildIn(ctx context.Context, dir string, row repository.Row, ord int64) (*tree, error) {
	d := newDraft(dir)
	if err := v.repo.EachEntry(ctx, row, d.add); err != nil {
		return nil, err
	}
	t, err := d.tree()
	if err != nil {
		return nil, err
	}
	return t, t.number(ord, func(files []index.File) ([]int64, error) { return v.index.FileNumbers(ctx, files) })
}

// A draft is the records of a commit in its own order, which is depth first, each behind its length in 4 bytes. As siblings have the same order
// in both, breadth first is this order level by level: how many records a level has, and of how many bytes, is all that must be known to put them
// there one after another.
type draft struct {
	dir    string
	kept   *spill
	out    *bufio.Writer
	record record
	levels []level
}

// A level is the paths of one depth.
type level struct {
	count int
	bytes int64

	place   int   // of the next one
	off     int64 // of its record
	rows    *bufio.Writer
	records *bufio.Writer
}

func newDraft(dir string) *draft {
	kept := newSpill(dir)
	return &draft{dir: dir, kept: kept, out: bufio.NewWriterSize(kept, draftBuffer)}
}

func (d *draft) add(e *repository.Entry) error {
	d.record = appendRecord(d.record[:0], e)
	depth := strings.Count(e.Path, "/")
	for len(d.levels) <= depth {
		d.levels = append(d.levels, level{})
	}
	l := &d.levels[depth]
	l.count++
	l.bytes += int64(len(d.record))
	_, err := d.out.Write(binary.LittleEndian.AppendUint32(d.out.AvailableBuffer(), uint32(len(d.record))))
	if err == nil {
		_, err = d.out.Write(d.record)
	}
	return err
}

// tree puts the records where they belong.
func (d *draft) tree() (*tree, error) {
	if err := d.out.Flush(); err != nil {
		return nil, err
	}
	d.kept.publish()
	t := &tree{count: 1}
	for _, l := range d.levels {
		t.count += l.count
		t.size += l.bytes
	}
	records := int64(t.count+1) * spotSize
	t.size += records
	var err error
	if t.data, err = newShelf(d.dir, t.size); err != nil {
		return nil, err
	}
	place, off := 1, records
	for i := range d.levels {
		l := &d.levels[i]
		l.place, l.off = place, off
		l.rows = bufio.NewWriterSize(io.NewOffsetWriter(t.data, int64(place)*spotSize), levelBuffer)
		l.records = bufio.NewWriterSize(io.NewOffsetWriter(t.data, off), levelBuffer)
		place, off = place+l.count, off+l.bytes
	}
	if _, err := t.data.WriteAt(appendRow(nil, records, 1), 0); err != nil {
		return nil, err
	}
	if _, err := t.data.WriteAt(appendRow(nil, t.size, t.count), int64(t.count)*spotSize); err != nil {
		return nil, err
	}
	if err := d.place(t); err != nil {
		return nil, err
	}
	for _, l := range d.levels {
		if err := errors.Join(l.rows.Flush(), l.records.Flush()); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func (d *draft) place(t *tree) error {
	in := bufio.NewReaderSize(io.NewSectionReader(d.kept, 0, d.kept.Size()), draftBuffer)
	var length [4]byte
	for range t.count - 1 {
		if _, err := io.ReadFull(in, length[:]); err != nil {
			return err
		}
		n := int(binary.LittleEndian.Uint32(length[:]))
		if cap(d.record) < n {
			d.record = make(record, n)
		}
		r := d.record[:n]
		if _, err := io.ReadFull(in, r); err != nil {
			return err
		}
		depth := bytes.Count(r.path(), []byte{'/'})
		l, child := &d.levels[depth], t.count
		if depth+1 < len(d.levels) {
			child = d.levels[depth+1].place
		}
		if _, err := l.rows.Write(appendRow(l.rows.AvailableBuffer(), l.off, child)); err != nil {
			return err
		}
		if _, err := l.records.Write(r); err != nil {
			return err
		}
		l.place++
		l.off += int64(n)
	}
	return nil
}

func appendRow(b []byte, off int64, first int) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(off))
	b = binary.LittleEndian.AppendUint32(b, uint32(first))
	return binary.LittleEndian.AppendUint32(b, 0)
}
