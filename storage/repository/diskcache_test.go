package repository

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate/storage"
)

// A gate is a store that counts the requests for bytes of packs and lets them wait.
type gate struct {
	storage.Store
	wait chan struct{} // nil: nobody waits

	mu   sync.Mutex // guards gets
	gets int
}

func (g *gate) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if !strings.HasPrefix(key, packPrefix) {
		return g.Store.Get(ctx, key, off, n)
	}
	g.mu.Lock()
	g.gets++
	g.mu.Unlock()
	if g.wait != nil {
		<-g.wait
	}
	return g.Store.Get(ctx, key, off, n)
}

// cachedBy opens what g holds with a cache in dir.
func cachedBy(t *testing.T, g *gate, dir string, limit int64) (*Repository, func() error) {
	t.Helper()
	r, err := Open(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	var warning error
	r.UseCache(NewCache(dir, limit, func(err error) { warning = errors.Join(warning, err) }))
	return r, func() error { return warning }
}

// readEverything compares every file of a tree with what was stored, by all ways of reading.
func readEverything(t *testing.T, r *Repository, row Row, want map[string][]byte) {
	t.Helper()
	tree, err := r.Tree(t.Context(), row)
	if err != nil {
		t.Fatal(err)
	}
	for i := range tree.Entries {
		e := &tree.Entries[i]
		if e.Kind != File {
			continue
		}
		var out bytes.Buffer
		if err := r.WriteFile(t.Context(), &out, e); err != nil || !bytes.Equal(out.Bytes(), want[e.Path]) {
			t.Errorf("%s: wrote %d bytes, %v", e.Path, out.Len(), err)
		}
		f, err := r.File(t.Context(), e)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(io.NewSectionReader(f, 0, e.Size)); err != nil || !bytes.Equal(got, want[e.Path]) {
			t.Errorf("%s: read %d bytes, %v", e.Path, len(got), err)
		}
	}
	dir := t.TempDir()
	if _, err := r.Checkout(t.Context(), tree, CheckoutOptions{Dir: dir}); err != nil {
		t.Fatal(err)
	}
	for path, data := range want {
		if got, err := os.ReadFile(filepath.Join(dir, path)); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: checked out %d bytes, %v", path, len(got), err)
		}
	}
}

// cacheFiles returns the objects of a cache and their size together.
func cacheFiles(t *testing.T, dir string) (paths []string, size int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Dir(path) == dir {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) { // removed meanwhile
			return nil
		}
		if err == nil {
			paths, size = append(paths, path), size+info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths, size
}

// TestCacheServesOtherProcesses reads with one Repository, and again with another that may ask for nothing.
func TestCacheServesOtherProcesses(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row, want, dir := b.tree(everyForm()...), contents(everyForm()), t.TempDir()
	g := &gate{Store: b.store}
	r, _ := cachedBy(t, g, dir, 0)
	readEverything(t, r, row, want)
	if g.gets == 0 {
		t.Fatal("nothing was asked for")
	}
	g.gets = 0
	r, warning := cachedBy(t, g, dir, 0)
	readEverything(t, r, row, want)
	if g.gets != 0 || warning() != nil {
		t.Errorf("%d requests, warning %v", g.gets, warning())
	}
	r, _ = cachedBy(t, g, t.TempDir(), 0)
	if tree, err := r.Tree(t.Context(), row); err != nil {
		t.Error(err)
	} else if _, err := r.Checkout(t.Context(), tree, CheckoutOptions{Dir: t.TempDir()}); err != nil {
		t.Error(err)
	}
	g.gets = 0
	readEverything(t, r, row, want) // what a checkout fetched is kept too
	if g.gets != 0 {
		t.Errorf("%d requests after a checkout", g.gets)
	}
}

// TestCacheIsNotBelieved damages every object of a cache in some way: all is read right, from the storage.
func TestCacheIsNotBelieved(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row, want := b.tree(everyForm()...), contents(everyForm())
	for name, damage := range map[string]func(path string, data []byte) error{
		"flipped bit": func(path string, data []byte) error { data[len(data)/2] ^= 1; return os.WriteFile(path, data, 0o600) },
		"cut off":     func(path string, data []byte) error { return os.Truncate(path, int64(len(data)-1)) },
		"too long":    func(path string, data []byte) error { return os.WriteFile(path, append(data, 0), 0o600) },
		"empty":       func(path string, data []byte) error { return os.Truncate(path, 0) },
		"a directory": func(path string, data []byte) error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"unreadable":  func(path string, data []byte) error { return errors.Join(os.Remove(path), os.Symlink("nowhere", path)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			g := &gate{Store: b.store}
			r, _ := cachedBy(t, g, dir, 0)
			readEverything(t, r, row, want)
			paths, _ := cacheFiles(t, dir)
			for _, path := range paths {
				data, err := os.ReadFile(path)
				if err == nil {
					err = damage(path, data)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			g.gets = 0
			r, _ = cachedBy(t, g, dir, 0)
			readEverything(t, r, row, want)
			if g.gets == 0 {
				t.Error("nothing was asked for again")
			}
		})
	}
}

// TestCacheForgetsDamageOfTheStorage reads small files whose bytes are wrong in the storage, and again when they are right.
func TestCacheForgetsDamageOfTheStorage(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row := b.tree(fakeSmall("a", string(noise(1, 1000))), fakeSmall("b", string(noise(2, 1000))))
	key := packKey(row.Packs[0])
	right := b.get(key)
	dir := t.TempDir()
	r, _ := cachedBy(t, &gate{Store: b.store}, dir, 0)
	tree, err := r.Tree(t.Context(), row)
	if err != nil {
		t.Fatal(err)
	}
	e := tree.Lookup("a")
	wrong := bytes.Clone(right)
	wrong[e.Extents[0].Off+1+10] ^= 1
	b.put(key, wrong)
	if err := r.WriteFile(t.Context(), io.Discard, e); err == nil {
		t.Fatal("wrong bytes were read")
	}
	b.put(key, right)
	r, _ = cachedBy(t, &gate{Store: b.store}, dir, 0)
	var out bytes.Buffer
	if err := r.WriteFile(t.Context(), &out, e); err != nil || !bytes.Equal(out.Bytes(), noise(1, 1000)) {
		t.Error(out.Len(), err)
	}
}

// TestCacheIsBounded keeps 40 MB in a cache of 8: what was not used for longest goes, and never more than a tenth is too much when it is quiet.
func TestCacheIsBounded(t *testing.T) {
	const limit = 8 << 20
	dir := t.TempDir()
	c := NewCache(dir, limit, func(err error) { t.Error(err) })
	ref := func(i int) (Ref, []byte) {
		data := noise(uint64(i), 256<<10)
		return Ref{Hash: hashOf(data), Raw: uint32(len(data))}, data
	}
	old := time.Now().Add(-2 * cachedFor)
	for i := range 160 {
		r, data := ref(i)
		c.put(r, data)
		c.trim.Lock() // it has finished, and does not begin
		os.Chtimes(c.path(r), old, old.Add(time.Duration(i)*time.Second))
		c.trim.Unlock()
		if _, ok := c.get(Ref{Hash: hashOf(noise(0, 256<<10)), Raw: 256 << 10}); !ok {
			t.Fatalf("what is used all the time was removed after %d", i)
		}
	}
	if _, size := cacheFiles(t, dir); size > limit+limit/10 || size < limit/2 {
		t.Errorf("%d bytes are kept", size)
	}
	if r, _ := ref(159); !c.has(r) {
		t.Error("the newest was removed")
	}
	if r, _ := ref(1); c.has(r) {
		t.Error("the oldest is still there")
	}
}

// TestCacheIsBoundedWhenACommandEnds keeps far too much while the size is being looked at, and so that nobody looks any more.
func TestCacheIsBoundedWhenACommandEnds(t *testing.T) {
	const limit = 8 << 20
	dir := t.TempDir()
	c := NewCache(dir, limit, func(err error) { t.Error(err) })
	c.trim.Lock()
	for i := range 100 {
		data := noise(uint64(i), 256<<10)
		c.put(Ref{Hash: hashOf(data), Raw: uint32(len(data))}, data)
	}
	c.trim.Unlock()
	c.Wait()
	if _, size := cacheFiles(t, dir); size > limit+limit/10 || size < limit/2 {
		t.Errorf("%d bytes are kept", size)
	}
}

// TestCacheCannotBeWritten reads with a cache folder that is a file: said once, and all is read.
func TestCacheCannotBeWritten(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row, want := b.tree(everyForm()...), contents(everyForm())
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r, warning := cachedBy(t, &gate{Store: b.store}, filepath.Join(file, "cache"), 0)
	readEverything(t, r, row, want)
	if err := warning(); err == nil || strings.Count(err.Error(), "keep what was read") != 1 {
		t.Errorf("warning: %v", err)
	}
}

// TestOneDownload lets nine readers wait for the same file: each frame is asked for once.
func TestOneDownload(t *testing.T) {
	b := newBuilder(t, memStore(t))
	data := noise(1, 5_000_001)
	row := b.tree(fakeFile("large", string(data)))
	g := &gate{Store: b.store}
	r, _ := cachedBy(t, g, t.TempDir(), 0)
	tree, err := r.Tree(t.Context(), row)
	if err != nil {
		t.Fatal(err)
	}
	f, err := r.File(t.Context(), tree.Lookup("large"))
	if err != nil {
		t.Fatal(err)
	}
	g.gets, g.wait = 0, make(chan struct{})
	var readers sync.WaitGroup
	for range 9 {
		readers.Go(func() {
			if got, err := io.ReadAll(io.NewSectionReader(f, 0, int64(len(data)))); err != nil || !bytes.Equal(got, data) {
				t.Errorf("read %d bytes, %v", len(got), err)
			}
		})
	}
	close(g.wait)
	readers.Wait()
	if most := len(data)/b.chunk + 1; g.gets > most {
		t.Errorf("%d requests for %d frames", g.gets, most)
	}
}

// TestReadAhead reads in order while nothing arrives: what follows must have been asked for, more each time; a random read asks for its own frame.
func TestReadAhead(t *testing.T) {
	b := newBuilder(t, memStore(t))
	b.chunk = 1 << 20
	row := b.tree(fakeFile("large", string(noise(1, 40<<20))))
	r, _ := cachedBy(t, &gate{Store: b.store}, t.TempDir(), 0)
	tree, err := r.Tree(t.Context(), row)
	if err != nil {
		t.Fatal(err)
	}
	opened := func() *file {
		f, err := r.File(t.Context(), tree.Lookup("large"))
		if err != nil {
			t.Fatal(err)
		}
		return f.(*file)
	}
	const step = 128 << 10
	expect := func(f *file, off int64) []int {
		end := int((off+step-1)>>20) + 1
		from, to := f.expect(off, step, end)
		return []int{from, to}
	}
	f := opened()
	for i, want := range [][]int{{39, 40}, {1, 2}, {2, 3}, {3, 5}, {5, 9}, {9, 17}, {17, 33}, {33, 40}, {40, 40}} {
		if got := expect(f, int64(i)*step); !slices.Equal(got, want) {
			t.Errorf("read %d: %v, want %v", i, got, want)
		}
	}
	f = opened()
	for i, off := range []int64{20 << 20, 5 << 20, 30 << 20, 11 << 20, 33 << 20, 2 << 20} {
		if got := expect(f, off); i > 0 && got[0] != got[1] {
			t.Errorf("read at %d asks for %v", off, got)
		}
	}
	f = opened()
	for i := range 4 { // four readers, each in order, the kernel's reads mixed
		expect(f, int64(i)*10<<20)
	}
	for n := range int64(3) {
		for i := range int64(4) {
			if got := expect(f, i*10<<20+(3-n)*step); n == 0 && got[0] == got[1] {
				t.Errorf("reader %d is not recognized", i)
			}
		}
	}
	f = opened()
	r.underway.Store(mostAhead - 3<<20)
	expect(f, 0)
	for i := range int64(8) {
		if got := expect(f, i*step); got[1]-got[0] > 3 {
			t.Errorf("with %d bytes on their way, %v are asked for", mostAhead-3<<20, got)
		}
	}
}

// TestReadAheadAsksForMuchAtOnce reads 500 MB in order: once the reader is known, each request is as large as one may be, and nothing is asked for
// twice or left out.
func TestReadAheadAsksForMuchAtOnce(t *testing.T) {
	extents := make([]Extent, 500)
	for i := range extents {
		extents[i] = Extent{Ref: Ref{Off: uint32(i) << 20, Len: 1<<20 + 1, Raw: 1 << 20}}
	}
	r, err := Create(t.Context(), memStore(t))
	if err != nil {
		t.Fatal(err)
	}
	f := newFile(t.Context(), r, &Entry{Size: 500 << 20}, extents)
	const step = 128 << 10
	until, requests := 1, 0
	for off := int64(0); off < f.entry.Size; off += step {
		from, to := f.expect(off, step, int(off>>20)+1)
		if off == 0 || from == to {
			continue
		}
		requests++
		if from != until {
			t.Fatalf("at %d: from %d, want %d", off, from, until)
		}
		if until = to; off > 2<<20 && to < len(extents) && to-from < maxRun>>20 {
			t.Errorf("at %d: %d frames are asked for", off, to-from)
		}
	}
	if until != len(extents) || requests > 80 {
		t.Errorf("%d requests, up to %d", requests, until)
	}
}
