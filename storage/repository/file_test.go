package repository

import (
	"bytes"
	"context"
	"errors"
	"io"
	mrand "math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/replicate/replicate"
)

// everyForm returns files in every form that a tree knows.
func everyForm() []fake {
	return []fake{
		fakeFile("empty", ""), fakeSmall("group/a", "small a"), fakeSmall("group/b", "small b"), fakeSmall("group/none", ""), fakeDir("group"),
		fakeFile("one plain frame", string(noise(1, 100_000))), fakeFile("one packed frame", string(prose(100_000))),
		fakeFile("few chunks", string(noise(2, 1_500_000))), fakeFile("few packed chunks", string(prose(1_500_000))),
		fakeFile("recipe", string(noise(3, 5_000_001))), fakeFile("packed recipe", string(prose(5_000_001))),
		fakeFile("zeros", string(make([]byte, 5_000_000))), fakeLink("link", "group/a"),
	}
}

func contents(fakes []fake) map[string][]byte {
	all := map[string][]byte{}
	for _, f := range fakes {
		if f.entry.Kind == File {
			all[f.entry.Path] = f.data
		}
	}
	return all
}

func TestFilesReadBack(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t, store)
			want := contents(everyForm())
			r, tree := b.opened(b.tree(everyForm()...))
			for i := range tree.Entries {
				e := &tree.Entries[i]
				if e.Kind != File {
					if _, err := r.File(t.Context(), e); replicate.KindOf(err) != replicate.Usage {
						t.Errorf("%s: opened: %v", e.Path, err)
					}
					continue
				}
				f, err := r.File(t.Context(), e)
				if err != nil {
					t.Fatal(err)
				}
				got, err := io.ReadAll(io.NewSectionReader(f, 0, e.Size+1))
				if err != nil || !bytes.Equal(got, want[e.Path]) {
					t.Errorf("%s: read %d bytes, %v", e.Path, len(got), err)
				}
				var out bytes.Buffer
				if err := r.WriteFile(t.Context(), &out, e); err != nil || !bytes.Equal(out.Bytes(), want[e.Path]) {
					t.Errorf("%s: wrote %d bytes, %v", e.Path, out.Len(), err)
				}
			}
		})
	}
}

// TestRandomReads compares reads at random places, from several goroutines, with the bytes that were stored.
func TestRandomReads(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t, store)
			want := contents(everyForm())
			r, tree := b.opened(b.tree(everyForm()...))
			var readers sync.WaitGroup
			for seed := range uint64(4) {
				readers.Go(func() {
					random := mrand.New(mrand.NewPCG(seed, 1))
					for range 150 {
						e := &tree.Entries[random.IntN(len(tree.Entries))]
						if e.Kind == File {
							checkRead(t, r, e, want[e.Path], random)
						}
					}
				})
			}
			readers.Wait()
		})
	}
}

// checkRead reads a few stretches of a file.
func checkRead(t *testing.T, r *Repository, e *Entry, want []byte, random *mrand.Rand) {
	f, err := r.File(t.Context(), e)
	if err != nil {
		t.Error(err)
		return
	}
	off := random.Int64N(e.Size + 10)
	for range 1 + random.IntN(4) {
		p := make([]byte, random.IntN(400_000))
		n, err := f.ReadAt(p, off)
		rest := want[min(off, e.Size):]
		if wantN := min(len(p), len(rest)); n != wantN || !bytes.Equal(p[:n], rest[:n]) || (err == io.EOF) != (n < len(p)) || err != nil && err != io.EOF {
			t.Errorf("%s: %d bytes at %d: got %d, %v", e.Path, len(p), off, n, err)
			return
		}
		off += int64(n)
	}
}

// TestLentBytesStayUntilTheyAreGivenBack holds on to stretches while others read much more than is kept.
func TestLentBytesStayUntilTheyAreGivenBack(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t, store)
			want := contents(everyForm())
			r, tree := b.opened(b.tree(everyForm()...))
			r.frames.decoded.budget = 1 << 20
			var readers sync.WaitGroup
			for seed := range uint64(4) {
				readers.Go(func() {
					random := mrand.New(mrand.NewPCG(seed, 2))
					var held []func()
					for range 150 {
						if e := &tree.Entries[random.IntN(len(tree.Entries))]; e.Kind == File {
							held = append(held, borrow(t, r, e, want[e.Path], random))
						}
						if len(held) > 5 {
							held[0]()
							held = held[1:]
						}
					}
					for _, giveBack := range held {
						giveBack()
					}
				})
			}
			readers.Wait()
		})
	}
}

// borrow borrows a stretch of a file. The function it returns checks it and gives it back.
func borrow(t *testing.T, r *Repository, e *Entry, want []byte, random *mrand.Rand) (giveBack func()) {
	f, err := r.File(t.Context(), e)
	if err != nil {
		t.Error(err)
		return func() {}
	}
	off := random.Int64N(e.Size + 10)
	p := make([]byte, random.IntN(400_000))
	parts, done, err := f.Lend(p, off)
	if err != nil {
		t.Errorf("%s: %d bytes at %d: %v", e.Path, len(p), off, err)
		return func() {}
	}
	rest := want[min(off, e.Size):]
	return func() {
		if got := bytes.Join(parts, nil); !bytes.Equal(got, rest[:min(len(p), len(rest))]) {
			t.Errorf("%s: %d bytes at %d: got %d that are others", e.Path, len(p), off, len(got))
		}
		done()
	}
}

// TestMemoryOfFramesIsUsedAgain reads a file in order as the mount does.
func TestMemoryOfFramesIsUsedAgain(t *testing.T) {
	const size, piece = 60_000_000, 1 << 20
	b := newBuilder(t, diskStore(t))
	r, tree := b.opened(b.tree(fakeFile("weights", string(noise(7, size)))))
	f, err := r.File(t.Context(), tree.Lookup("weights"))
	if err != nil {
		t.Fatal(err)
	}
	p := make([]byte, piece)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for off := int64(0); off < size; off += piece {
		_, done, err := f.Lend(p, off)
		if err != nil {
			t.Fatal(err)
		}
		done()
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > size/2 {
		t.Errorf("%d bytes were allocated to read %d", n, size)
	}
}

func TestReadOfNothing(t *testing.T) {
	b := newBuilder(t, memStore(t))
	r, tree := b.opened(b.tree(fakeFile("a", "abc")))
	f, err := r.File(t.Context(), tree.Lookup("a"))
	if err != nil {
		t.Fatal(err)
	}
	for off, want := range map[int64]error{0: nil, 3: nil, 4: nil} {
		if n, err := f.ReadAt(nil, off); n != 0 || err != want {
			t.Errorf("at %d: %d, %v", off, n, err)
		}
	}
	if _, err := f.ReadAt(make([]byte, 1), -1); replicate.KindOf(err) != replicate.Usage {
		t.Errorf("at -1: %v", err)
	}
}

func TestTreeOfNothing(t *testing.T) {
	b := newBuilder(t, memStore(t))
	if tree, err := b.repo.Tree(t.Context(), Row{}); err != nil || len(tree.Entries) != 0 {
		t.Fatal(tree, err)
	}
}

func TestTreesAreKept(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row := b.tree(fakeFile("a", "abc"))
	r, tree := b.opened(row)
	b.store.Delete(t.Context(), packKey(row.Packs[0]))
	if again, err := r.Tree(t.Context(), row); err != nil || again != tree {
		t.Fatal(again, err)
	}
}

// TestFileOutlivesItsRequest cancels the context that a file was opened with, and one of two who want the same bytes.
func TestFileOutlivesItsRequest(t *testing.T) {
	b := newBuilder(t, memStore(t))
	r, tree := b.opened(b.tree(fakeFile("a", "abc")))
	ctx, cancel := context.WithCancel(t.Context())
	f, err := r.File(ctx, tree.Lookup("a"))
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := r.WriteFile(ctx, io.Discard, tree.Lookup("a")); err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	p := make([]byte, 3)
	if _, err := f.ReadAt(p, 0); err != nil || string(p) != "abc" {
		t.Error(err)
	}
}
