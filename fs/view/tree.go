package view

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"

	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

// A tree gives every path of a commit its place: the root is 0, then directories breadth first, so that the children of a
// directory are contiguous, in order of their names. Places come from the tree alone, whoever computes them.
//
// It is bytes: a row for each place and one for the end, then the records in order of their places. Small ones are in memory, others in a file
// without a name, so that a commit of a million files takes none. A row is
//
//	off u64     where the record begins; it ends where the next one begins. That of the root is empty
//	first u32   the place of the first child; the last is before the first child of the next place
//	number u32  of a large file, which commits share, else 0
type tree struct {
	data  shelf
	size  int64
	count int // places
}

const spotSize = 16

// A shelf is bytes that are written once, in any order.
type shelf interface {
	io.ReaderAt
	io.WriterAt
}

// newShelf returns room for size bytes: above spillAt in a file below dir, unless that is "".
func newShelf(dir string, size int64) (shelf, error) {
	if size <= spillAt || dir == "" {
		return make(memory, size), nil
	}
	return nameless(dir)
}

// memory is a shelf in memory.
type memory []byte

func (m memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

func (m memory) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(m))-int64(len(p)) {
		return 0, io.ErrShortWrite
	}
	return copy(m[off:], p), nil
}

var (
	_ shelf = memory(nil)
	_ shelf = (*os.File)(nil)
)

// A spot is what the rows say of a place.
type spot struct {
	place       int
	first, next int // places of the children: [first, next)
	number      int64
	off, end    int64 // of the record
}

func (t *tree) spotOf(rows []byte, place int) (s spot, err error) {
	s = spot{
		place: place,
		off:   int64(binary.LittleEndian.Uint64(rows)), end: int64(binary.LittleEndian.Uint64(rows[spotSize:])),
		first: int(binary.LittleEndian.Uint32(rows[8:])), next: int(binary.LittleEndian.Uint32(rows[spotSize+8:])),
		number: int64(binary.LittleEndian.Uint32(rows[12:])),
	}
	if s.off < 0 || s.off > s.end || s.end > t.size || s.first < 1 || s.first > s.next || s.next > t.count {
		return s, errRecord
	}
	return s, nil
}

// at returns a place that the tree has, with its record, which for the root is empty.
func (t *tree) at(place int) (s spot, r record, err error) {
	var rows [2 * spotSize]byte
	if _, err = t.data.ReadAt(rows[:], int64(place)*spotSize); err != nil {
		return s, nil, err
	}
	if s, err = t.spotOf(rows[:], place); err != nil || place == 0 {
		return s, nil, err
	}
	r = make(record, s.end-s.off)
	if _, err = t.data.ReadAt(r, s.off); err != nil {
		return s, nil, err
	}
	return s, r, r.check()
}

// has reports whether a place is one of the tree.
func (t *tree) has(place int64) bool { return place >= 0 && place < int64(t.count) }

// find returns a name in a directory.
func (t *tree) find(dir spot, name string) (s spot, r record, found bool, err error) {
	for from, to := dir.first, dir.next; from < to; {
		middle := from + (to-from)/2
		if s, r, err = t.at(middle); err != nil {
			return s, nil, false, err
		}
		switch bytes.Compare(r.name(), []byte(name)) {
		case 0:
			return s, r, true, nil
		case -1:
			from = middle + 1
		default:
			to = middle
		}
	}
	return spot{}, nil, false, nil
}

// listWindow is how many places are read at a time: about what the kernel asks for, which is 32 KiB of names and attributes.
const listWindow = 192

// list calls f for the places [from, to) until it returns an error. A record is valid until f returns.
func (t *tree) list(from, to int, f func(spot, record) error) error {
	var rows [(listWindow + 1) * spotSize]byte
	var records []byte
	for from < to {
		n := min(to-from, listWindow)
		window := rows[:(n+1)*spotSize]
		if _, err := t.data.ReadAt(window, int64(from)*spotSize); err != nil {
			return err
		}
		begin, end := int64(binary.LittleEndian.Uint64(window)), int64(binary.LittleEndian.Uint64(window[n*spotSize:]))
		if begin < 0 || begin > end || end > t.size {
			return errRecord
		}
		if records = records[:0]; int64(cap(records)) < end-begin {
			records = make([]byte, 0, end-begin)
		}
		records = records[:end-begin]
		if _, err := t.data.ReadAt(records, begin); err != nil {
			return err
		}
		for i := range n {
			s, err := t.spotOf(window[i*spotSize:], from+i)
			if err != nil || s.off < begin || s.end > end {
				return errRecord
			}
			r := record(records[s.off-begin : s.end-begin])
			if err := r.check(); err != nil {
				return err
			}
			if err := f(s, r); err != nil {
				return err
			}
		}
		from += n
	}
	return nil
}

// sharedSize is the size from which on a file that several commits hold is one node: what diff -r then need not read, and the
// page cache need not hold twice.
const sharedSize = 64 << 10

// numberBatch is how many large files are given their numbers at a time.
const numberBatch = 4096

// number gives the large files of the tree, which is of a commit, the numbers that of returns.
func (t *tree) number(commit int64, of func([]index.File) ([]int64, error)) error {
	var files []index.File
	flush := func() error {
		numbers, err := of(files)
		if err != nil {
			return err
		}
		var b [4]byte
		for i, f := range files {
			binary.LittleEndian.PutUint32(b[:], uint32(numbers[i]))
			if _, err := t.data.WriteAt(b[:], f.Place*spotSize+12); err != nil {
				return err
			}
		}
		files = files[:0]
		return nil
	}
	err := t.list(1, t.count, func(s spot, r record) error {
		if r.kind() != repository.File || r.attr().Size < sharedSize {
			return nil
		}
		e, err := r.entry()
		if err != nil {
			return err
		}
		files = append(files, index.File{Hash: e.Hash, Size: e.Size, Mode: e.Mode, Mtime: e.Mtime, Commit: commit, Place: int64(s.place)})
		if len(files) < numberBatch {
			return nil
		}
		return flush()
	})
	if err == nil && len(files) > 0 {
		err = flush()
	}
	return err
}

const (
	// A tree in a file counts for so much less than one in memory: there is at most a gigabyte of such files, and a thousand of them.
	fileShare = (1 << 30) / treesLimit
	// treeWeight is what any tree takes in memory.
	treeWeight = 200
)

func (t *tree) weight() int64 {
	if _, ok := t.data.(memory); ok {
		return treeWeight + t.size
	}
	return treeWeight + t.size/fileShare
}
