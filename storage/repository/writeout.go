package repository

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

const (
	// localRun is how many bytes of adjacent frames are read from a local pack at once: a few small frames, or one large.
	localRun = 1 << 20
	// linksAtOnce is how many places without content make one piece of work.
	linksAtOnce = 64
	// holeSize is the size from which a stretch of zeros becomes a hole: a block of most file systems.
	holeSize = 4 << 10
)

// A spot is where a part of a frame goes.
type spot struct {
	place *slot
	from  uint32 // in the frame
	size  int64
	at    int64 // in the file
}

// A writeOut is the second half of a checkout: frames become files. Frames are taken in the order they have in packs, and each is read
// once however many files hold it.
type writeOut struct {
	*checkout
	spots    map[Ref][]spot
	jobs     []job
	progress *progress

	mu     sync.Mutex // guards spots while they are collected, failed and report
	failed []*slot
}

// A job is what one goroutine does at a time: places without content, or adjacent frames.
type job struct {
	places []*slot
	frames []Ref
}

// write writes what is not there. It returns the error that stopped it, or one that names the files that are damaged.
func (c *checkout) write(ctx context.Context) error {
	w := &writeOut{checkout: c, spots: map[Ref][]spot{}}
	if err := w.collect(ctx); err != nil {
		return err
	}
	w.plan()
	w.progress = showProgress(w.total(), w.options.Progress)
	err := w.doAll(ctx)
	w.progress.stop()
	w.clean()
	if err == nil && len(w.failed) > 0 {
		slices.SortFunc(w.failed, func(a, b *slot) int { return ComparePaths(a.entry.Path, b.entry.Path) })
		err = checkoutError("", damagedFiles(w.failed))
	}
	return err
}

// collect finds the frames of all files.
func (w *writeOut) collect(ctx context.Context) error {
	return parallel(ctx, w.repository.workers(), len(w.files), func(ctx context.Context, i int) error {
		p := w.files[i]
		p.temp = w.temp + "-" + strconv.Itoa(i)
		if p.found == same || p.entry.Kind == Link || p.entry.Size == 0 {
			return nil
		}
		extents, err := w.repository.extents(ctx, p.entry)
		w.mu.Lock()
		defer w.mu.Unlock()
		switch {
		case replicate.KindOf(err) == replicate.Corrupt:
			p.failure.Store(&err)
			w.failed = append(w.failed, p)
			return nil
		case err != nil:
			return checkoutError(p.entry.Path, err)
		}
		p.pieces.Store(int64(len(extents)))
		var at int64
		for i, x := range extents {
			size := extentSize(p.entry, extents, i)
			w.spots[x.Ref] = append(w.spots[x.Ref], spot{place: p, from: x.From, size: size, at: at})
			at += size
		}
		return nil
	})
}

// plan makes jobs.
func (w *writeOut) plan() {
	var light []*slot
	for _, p := range w.files {
		if p.pieces.Load() == 0 && p.failure.Load() == nil {
			light = append(light, p)
		}
	}
	for places := range slices.Chunk(light, linksAtOnce) {
		w.jobs = append(w.jobs, job{places: places})
	}
	frames := slices.SortedFunc(maps.Keys(w.spots), func(a, b Ref) int {
		return cmp.Or(bytes.Compare(a.Pack[:], b.Pack[:]), cmp.Compare(a.Off, b.Off))
	})
	most := int64(maxRun)
	if w.repository.local != nil {
		most = localRun
	}
	for len(frames) > 0 {
		n := 1
		kept := w.repository.cache.has(frames[0]) // which needs no request
		for n < len(frames) && !kept && adjacent(frames[n-1], frames[n]) && end(frames[n])-int64(frames[0].Off) <= most && !w.repository.cache.has(frames[n]) {
			n++
		}
		w.jobs = append(w.jobs, job{frames: frames[:n]})
		frames = frames[n:]
	}
}

// doAll does all jobs. Each goroutine has a stretch of them, and when it is done helps with the others: those that lie together write to
// the same file, where goroutines would wait for each other.
func (w *writeOut) doAll(ctx context.Context) error {
	workers := w.repository.workers()
	next := make([]atomic.Int64, workers)
	start := func(stretch int) int64 { return int64(stretch * len(w.jobs) / workers) }
	for i := range next {
		next[i].Store(start(i))
	}
	return parallel(ctx, workers, workers, func(ctx context.Context, first int) error {
		h := &hand{writeOut: w}
		defer h.close()
		for i := range workers {
			stretch := (first + i) % workers
			for job := next[stretch].Add(1) - 1; job < start(stretch+1); job = next[stretch].Add(1) - 1 {
				if err := h.do(ctx, w.jobs[job]); err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// total is how many bytes there are to write.
func (w *writeOut) total() (bytes int64) {
	for _, spots := range w.spots {
		for _, s := range spots {
			bytes += s.size
		}
	}
	return bytes
}

// clean removes what was begun and not finished.
func (w *writeOut) clean() {
	for _, p := range w.files {
		if p.created.Load() {
			w.root.Remove(pathIn(p.parent, p.temp)) // nobody can do anything about an error
		}
	}
}

// pathIn is the path of a name in a folder.
func pathIn(parent *slot, name string) string {
	if parent == nil {
		return name
	}
	return parent.entry.Path + "/" + name
}

// A hand does jobs, one at a time. It keeps open what the next job probably needs too.
type hand struct {
	*writeOut
	parent  *slot
	dir     dirHandle
	pack    replicate.Hash
	file    *os.File // of pack, on local storage
	stored  []byte
	decoded []byte
}

func (h *hand) close() {
	if h.dir.file != nil {
		h.dir.close()
	}
	if h.file != nil {
		h.file.Close()
	}
}

func (h *hand) do(ctx context.Context, j job) error {
	for _, p := range j.places {
		if err := h.light(p); err != nil {
			return checkoutError(p.entry.Path, err)
		}
	}
	if len(j.frames) == 0 {
		return nil
	}
	first := j.frames[0]
	if data, ok := h.repository.cache.get(first); ok && len(j.frames) == 1 {
		return h.place(first, data, nil)
	}
	h.stored = resize(h.stored, int(end(j.frames[len(j.frames)-1])-int64(first.Off)))
	err := h.read(ctx, first.Pack, int64(first.Off), h.stored)
	if err != nil && (ctx.Err() != nil || replicate.KindOf(err) != replicate.Corrupt) {
		return checkoutError("", err)
	}
	for _, ref := range j.frames {
		at := ref.Off - first.Off
		if err := h.frame(ref, h.stored[at:at+ref.Len], err); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func resize(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// read reads a part of a pack.
func (h *hand) read(ctx context.Context, pack replicate.Hash, off int64, p []byte) error {
	local := h.repository.local
	if local == nil || h.repository.foreign != nil {
		return h.repository.readPack(ctx, pack, off, p)
	}
	if h.file == nil || h.pack != pack {
		if h.file != nil {
			h.file.Close()
		}
		var err error
		if h.file, err = os.Open(local.Path(packKey(pack))); err != nil {
			h.file = nil
			return packError(pack, err)
		}
		h.pack = pack
	}
	_, err := h.file.ReadAt(p, off)
	return packError(pack, err)
}

// frame writes a frame everywhere it belongs. readErr is why its bytes could not be read.
func (h *hand) frame(ref Ref, stored []byte, readErr error) error {
	data, err := []byte(nil), readErr
	if err == nil {
		if data, err = openFrame(h.decoded[:0], stored, ref); err == nil && stored[0] != codecRaw {
			h.decoded = data
		}
	}
	if err == nil {
		h.repository.cache.put(ref, data)
	}
	return h.place(ref, data, err)
}

// place writes the bytes of a frame everywhere they belong. readErr is why there are none.
func (h *hand) place(ref Ref, data []byte, readErr error) error {
	for _, s := range h.spots[ref] {
		if err := h.spot(ref, s, data, readErr); err != nil {
			return checkoutError(s.place.entry.Path, err)
		}
	}
	return nil
}

// spot writes a part of a frame to a place, or notes why that is impossible.
func (h *hand) spot(ref Ref, s spot, data []byte, damage error) error {
	p := s.place
	if damage == nil {
		data = data[s.from:][:s.size]
		if ref.Hash.IsZero() && hashOf(data) != p.entry.Hash {
			h.repository.cache.drop(ref)
			damage = damaged(ref, errWrongBytes)
		}
	}
	if damage != nil {
		p.failure.CompareAndSwap(nil, &damage)
	}
	if p.failure.Load() == nil {
		if err := h.piece(p, data, s.at); err != nil {
			return err
		}
	}
	if p.pieces.Add(-1) > 0 {
		return nil
	}
	if p.failure.Load() != nil {
		h.mu.Lock()
		h.failed = append(h.failed, p)
		h.mu.Unlock()
		return nil // clean removes it
	}
	return h.finish(p)
}

// piece writes a stretch of a file under its temporary name.
func (h *hand) piece(p *slot, data []byte, at int64) error {
	if err := h.enter(p.parent); err != nil {
		return err
	}
	hole := isHole(data)
	if int64(len(data)) == p.entry.Size && !hole {
		p.created.Store(true)
		if err := h.dir.write(p.temp, unix.O_CREAT|unix.O_EXCL, data, 0); err != nil {
			return err
		}
	} else {
		var err error
		p.create.Do(func() {
			p.created.Store(true)
			err = h.dir.create(p.temp, p.entry.Size)
		})
		if err == nil && !hole {
			err = h.dir.write(p.temp, 0, data, at)
		}
		if err != nil {
			return err
		}
	}
	h.progress.add(int64(len(data)))
	return nil
}

// isHole reports whether data is nothing but zeros, and many of them.
func isHole(data []byte) bool {
	return len(data) >= holeSize && data[0] == 0 && bytes.Equal(data[1:], data[:len(data)-1])
}

// light makes what has no content: links, empty files, and the modes and mtimes of files that are right otherwise.
func (h *hand) light(p *slot) (err error) {
	if err := h.enter(p.parent); err != nil {
		return err
	}
	if p.found == same {
		h.mu.Lock()
		h.report.Unchanged++
		h.mu.Unlock()
		return h.dir.dress(base(p.entry.Path), p.entry)
	}
	p.created.Store(true)
	if p.entry.Kind == Link {
		err = h.dir.symlink(p.entry.Target, p.temp)
	} else {
		err = h.dir.create(p.temp, 0)
	}
	if err != nil {
		return err
	}
	return h.finish(p)
}

// finish gives a complete file its mode, its mtime and its name.
func (h *hand) finish(p *slot) error {
	name := base(p.entry.Path)
	if err := h.enter(p.parent); err != nil {
		return err
	}
	if err := h.dir.dress(p.temp, p.entry); err != nil {
		return err
	}
	if err := h.keep(h.dir, p); err != nil {
		return fmt.Errorf("keep what is there: %w", err)
	}
	if p.found == folder {
		if err := h.dir.removeDir(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := h.dir.rename(p.temp, name); err != nil {
		return err
	}
	p.created.Store(false)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.report.Files++
	h.report.Bytes += p.entry.Size
	return nil
}

// enter opens a folder, unless it is the one that is open.
func (h *hand) enter(parent *slot) error {
	if h.dir.file != nil {
		if h.parent == parent {
			return nil
		}
		h.dir.close()
	}
	var err error
	h.parent = parent
	h.dir, err = h.openFolder(parent)
	return err
}
