package repository

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/zeebo/blake3"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// sparseFile makes a file of a size with data at some offsets.
func sparseFile(t *testing.T, size int64, data map[int64][]byte) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "sparse"))
	must(t, err)
	t.Cleanup(func() { f.Close() })
	must(t, f.Truncate(size))
	for off, b := range data {
		_, err := f.WriteAt(b, off)
		must(t, err)
	}
	return f
}

// cuts returns the chunks of what a chunker reads.
func cuts(t *testing.T, c *chunker) (list []Extent) {
	t.Helper()
	for {
		b, err := c.next()
		if err == io.EOF {
			return list
		}
		must(t, err)
		if c.hash() != hashOf(b) {
			t.Fatalf("chunk %d: hash of other bytes", len(list))
		}
		list = append(list, Extent{Ref: Ref{Raw: uint32(len(b)), Hash: c.hash()}})
	}
}

// TestHolesAreTheSameChunks compares what a file is cut into with and without knowing its holes.
func TestHolesAreTheSameChunks(t *testing.T) {
	random := fill(make([]byte, 9<<20), 1)
	for name, tt := range map[string]struct {
		size   int64
		data   map[int64][]byte
		forced []int64
	}{
		"a hole":            {size: 40 << 20},
		"an odd size":       {size: 33<<20 + 12345},
		"no hole":           {size: 9 << 20, data: map[int64][]byte{0: random}},
		"data first":        {size: 50 << 20, data: map[int64][]byte{0: random[:5<<20+77]}},
		"data last":         {size: 50 << 20, data: map[int64][]byte{41<<20 + 5: random}},
		"data between":      {size: 90 << 20, data: map[int64][]byte{20<<20 + 1: random, 60<<20 - 9: random[:100]}},
		"written zeros":     {size: 60 << 20, data: map[int64][]byte{10 << 20: make([]byte, 5<<20), 30 << 20: random[:1]}},
		"cuts in the hole":  {size: 40 << 20, forced: []int64{10<<20 + 1, 10<<20 + 9, 30 << 20}},
		"shorter than most": {size: maxChunk - 1},
		"exactly the most":  {size: maxChunk},
	} {
		t.Run(name, func(t *testing.T) {
			f := sparseFile(t, tt.size, tt.data)
			want := cuts(t, newChunker(io.NewSectionReader(f, 0, tt.size), tt.forced))
			got := cuts(t, newChunker(&source{file: f, size: tt.size}, tt.forced))
			if !slices.Equal(got, want) {
				t.Errorf("%d chunks, want %d", len(got), len(want))
			}
			again := newChunker(&source{file: f, size: tt.size}, tt.forced)
			again.follow(want)
			if got := cuts(t, again); !slices.Equal(got, want) {
				t.Errorf("along the chunks before: %d, want %d", len(got), len(want))
			}
		})
	}
}

// TestHolesAreNotRead cuts what nobody could read in the time of a test.
func TestHolesAreNotRead(t *testing.T) {
	const size = 1 << 40
	f := sparseFile(t, size, map[int64][]byte{size / 2: []byte("in the middle"), size - 5: []byte("end")})
	s := &source{file: f, size: size}
	if s.hole(0) < size/4 {
		require.Missing(t, "a file system that tells holes")
	}
	c := newChunker(s, nil)
	var at int64
	found := false
	for {
		b, err := c.next()
		if err == io.EOF {
			break
		}
		must(t, err)
		if at <= size/2 && size/2 < at+int64(len(b)) {
			found = bytes.HasPrefix(b[size/2-at:], []byte("in the middle"))
		}
		at += int64(len(b))
	}
	if at != size || !found {
		t.Errorf("%d bytes, the middle found: %t", at, found)
	}
}

func TestSparseFileIsStoredOnce(t *testing.T) {
	l := newLab(t, diskStore(t))
	f := sparseFile(t, 256<<20, map[int64][]byte{100 << 20: []byte("in the middle")})
	must(t, os.Rename(f.Name(), filepath.Join(l.root, "sparse")))
	l.settle()
	w, s := l.begin(WriterOptions{})
	if s.Bytes != 256<<20 || s.Added > 64<<10 {
		t.Errorf("%d bytes are stored in %d", s.Bytes, s.Added)
	}
	row, _ := l.commit(w, CommitRequest{Step: replicate.NoStep})
	sum := blake3.New()
	_, err := io.Copy(sum, f)
	must(t, err)
	if e := l.entry(row.Row, "sparse"); e.Hash != replicate.Hash(sum.Sum(nil)) {
		t.Error("the hash is not the file's")
	}
}
