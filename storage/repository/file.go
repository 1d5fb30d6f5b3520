package repository

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/zeebo/blake3"

	"github.com/replicate/replicate"
)

const (
	// treeBudget is how many bytes of trees are kept, by treeCost: about twenty trees of 20,000 files.
	treeBudget = 128 << 20
	// treeCost is how much larger a tree is in memory than as lines.
	treeCost = 2
	// window is how many bytes of a file are decoded at the same time by one reader.
	window = 8 << 20
	// framesAhead is how many frames are decoded ahead of whoever reads a file in order, where the bytes are on this machine.
	framesAhead = 2
	// firstAhead and mostAhead are how many bytes are fetched ahead where they are not: it begins small and doubles, as most readers
	// stop soon, and one that goes on must see no round trip. A store 20 ms away needs 6 MiB in flight for 300 MB/s. mostAhead also bounds
	// what is on its way to all readers of a process together.
	firstAhead = 1 << 20
	mostAhead  = 64 << 20
	// readersOfFile is how many places of one file are read ahead from: the workers of a data loader share a file.
	readersOfFile = 4
	// outOfOrder is how far from where it was expected a read may be and still continue what was read before: the kernel sends the reads of one
	// reader in parallel.
	outOfOrder = 1 << 20
)

// Tree reads the tree of a row. A row without frames has an empty tree. Trees read lately are kept.
func (r *Repository) Tree(ctx context.Context, row Row) (*Tree, error) {
	return r.tree(ctx, row, r.readTree)
}

func (r *Repository) tree(ctx context.Context, row Row, read func(context.Context, []Ref) (*Tree, int64, error)) (*Tree, error) {
	if len(row.Tree) == 0 {
		return &Tree{}, nil
	}
	t, err := r.trees.get(ctx, treeKey(row.Tree), func(ctx context.Context) (*Tree, int64, error) {
		if _, _, isForeign := row.Foreign(); isForeign && r.foreign != nil {
			return r.foreign.tree(ctx, row)
		}
		return read(ctx, row.Tree)
	})
	if err != nil {
		return nil, listError(err)
	}
	return t, nil
}

// listError says that a tree could not be read.
func listError(err error) error {
	return &replicate.Error{Op: "read", Path: "the list of files", Kind: replicate.KindOf(err), Err: err}
}

// treeKey joins what names a tree's frames.
func treeKey(refs []Ref) string {
	var key strings.Builder
	for _, ref := range refs {
		key.Write(ref.Pack[:])
		key.Write(ref.Hash[:])
	}
	return key.String()
}

func (r *Repository) readTree(ctx context.Context, refs []Ref) (*Tree, int64, error) {
	raws := make([][]byte, len(refs))
	err := parallel(ctx, r.atOnce(r.workers()), len(refs), func(ctx context.Context, i int) (err error) {
		raws[i], err = r.readFrame(ctx, refs[i])
		return err
	})
	if err != nil {
		return nil, 0, err
	}
	var size int64
	for _, raw := range raws {
		size += int64(len(raw))
	}
	t, err := decodeTree(raws, refs[0].Pack)
	return t, treeCost * size, err
}

// readFrame reads a frame that is not worth keeping in memory.
func (r *Repository) readFrame(ctx context.Context, ref Ref) ([]byte, error) {
	return r.readFrameInto(ctx, ref, new(frameRoom))
}

// frameRoom is memory for a frame, used again for the next one.
type frameRoom struct{ stored, raw []byte }

// readFrameInto is readFrame for who reads several: what it returns is valid until room is used again.
func (r *Repository) readFrameInto(ctx context.Context, ref Ref, room *frameRoom) ([]byte, error) {
	if err := ref.check(); err != nil {
		return nil, damaged(ref, err)
	}
	if data, ok := r.cache.get(ref); ok {
		return data, nil
	}
	room.stored = slices.Grow(room.stored[:0], int(ref.Len))[:ref.Len]
	if err := r.readPack(ctx, ref.Pack, int64(ref.Off), room.stored); err != nil {
		return nil, err
	}
	if room.stored[0] != codecRaw {
		room.raw = slices.Grow(room.raw[:0], int(ref.Raw))
	}
	data, err := openFrame(room.raw[:0], room.stored, ref)
	if err == nil {
		r.cache.put(ref, data)
	}
	return data, err
}

// A Reader reads a regular file of a tree. Every byte is verified before it is returned; damage is an error of kind Corrupt that names the
// path. It may be used by several goroutines, and reads ahead when they read in order. Nothing needs to be closed.
type Reader interface {
	io.ReaderAt
	// Lend is ReadAt for who can do with bytes where they are: in p, or in memory of the repository, which stays as it is until done is called.
	// parts are in order, and together as long as p unless the file ends before. done must be called, unless there is an error.
	Lend(p []byte, off int64) (parts [][]byte, done func(), err error)
}

// File opens a regular file of a tree. ctx is for opening: its end does not end later reads, so that a file can outlive the request that opened it.
func (r *Repository) File(ctx context.Context, e *Entry) (Reader, error) {
	extents, err := r.extents(ctx, e)
	if err != nil {
		return nil, fileError(e, err)
	}
	return newFile(context.WithoutCancel(ctx), r, e, extents), nil
}

func fileError(e *Entry, err error) error {
	return &replicate.Error{Op: "read", Path: e.Path, Kind: replicate.KindOf(err), Err: err}
}

// extents returns where the bytes of a file are: as many as its size, each extent a whole frame if there are several.
func (r *Repository) extents(ctx context.Context, e *Entry) ([]Extent, error) {
	if e.Kind != File {
		return nil, replicate.Errorf(replicate.Usage, "not a regular file")
	}
	if err := e.check(); err != nil {
		return nil, replicate.Errorf(replicate.Corrupt, "%w", err)
	}
	if e.Recipe != nil {
		data, err := r.readFrame(ctx, *e.Recipe)
		if err != nil {
			return nil, err
		}
		return decodeRecipe(data, e.Recipe.Pack, e.Size)
	}
	extents := slices.Clone(e.Extents)
	if len(extents) == 1 && int64(extents[0].Raw) == e.Size {
		extents[0].Hash = e.Hash // the frame is the file
	}
	return extents, nil
}

// extentSize is how many bytes of the file are in extent i: all of the file if it is the only one, else the rest of the frame.
func extentSize(e *Entry, extents []Extent, i int) int64 {
	if len(extents) == 1 {
		return e.Size
	}
	return int64(extents[i].Raw) - int64(extents[i].From)
}

// A file reads one file of a tree.
type file struct {
	repository *Repository
	ctx        context.Context
	entry      *Entry
	extents    []Extent
	ends       []int64 // where each extent ends in the file

	mu      sync.Mutex // guards readers
	readers []follower // the one that read last in front
}

// A follower is somebody who reads a file in order.
type follower struct {
	next  int64 // the byte expected next
	ahead int64 // how much is read ahead, in bytes
	until int   // the extent up to which all have been begun
}

func newFile(ctx context.Context, r *Repository, e *Entry, extents []Extent) *file {
	f := &file{repository: r, ctx: ctx, entry: e, extents: extents, ends: make([]int64, len(extents))}
	var end int64
	for i := range extents {
		end += extentSize(e, extents, i)
		f.ends[i] = end
	}
	return f
}

// ReadAt implements io.ReaderAt.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.within(p, off)
	if err != nil {
		return 0, err
	}
	for done := 0; done < n; {
		step := min(n-done, window)
		if err := f.fill(p[done:done+step], off+int64(done)); err != nil {
			return done, fileError(f.entry, err)
		}
		done += step
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Lend implements Reader.
func (f *file) Lend(p []byte, off int64) (parts [][]byte, done func(), err error) {
	n, err := f.within(p, off)
	if err != nil || n == 0 {
		return nil, func() {}, err
	}
	if parts, done, err = f.borrow(p[:n], off); err != nil {
		return nil, nil, fileError(f.entry, err)
	}
	return parts, done, nil
}

// within returns how many bytes of p the file fills from off.
func (f *file) within(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fileError(f.entry, replicate.Errorf(replicate.Usage, "offset %d", off))
	}
	return int(max(0, min(int64(len(p)), f.entry.Size-off))), nil
}

// fill reads a stretch that lies inside the file.
func (f *file) fill(p []byte, off int64) error {
	parts, done, err := f.borrow(p, off)
	if err != nil {
		return err
	}
	defer done()
	for _, part := range parts {
		if len(part) > 0 && &part[0] != &p[0] {
			copy(p, part)
		}
		p = p[len(part):]
	}
	return nil
}

// borrow is Lend for a stretch that lies inside the file.
func (f *file) borrow(p []byte, off int64) (parts [][]byte, done func(), err error) {
	first, _ := slices.BinarySearch(f.ends, off+1)
	end, _ := slices.BinarySearch(f.ends, off+int64(len(p)))
	end++
	frames := f.load(first, end)
	parts = make([][]byte, end-first)
	done = func() { f.release(frames, parts) }
	f.readAhead(off, int64(len(p)), end)
	for i := first; i < end; i++ {
		n := min(int64(len(p)), f.ends[i]-off)
		if parts[i-first], err = f.part(frames[i-first], i, off, p[:n]); err != nil {
			done()
			return nil, nil, err
		}
		p, off = p[n:], off+n
	}
	return parts, done, nil
}

// part returns as many bytes at off as p has room for, which are of extent i: out of its frame, or read from the pack into p if that is nil.
func (f *file) part(frame pending, i int, off int64, p []byte) ([]byte, error) {
	x := f.extents[i]
	at := int64(x.From) + off - (f.ends[i] - extentSize(f.entry, f.extents, i))
	if frame == nil {
		return p, f.repository.readPack(f.ctx, x.Pack, int64(x.Off)+1+at, p)
	}
	data, err := f.verified(frame, i)
	if err != nil {
		return nil, err
	}
	return data[at:][:len(p)], nil
}

// load begins to read the frames of extents. It returns nil for those that are not in memory and whose bytes can be taken from the pack. All others
// are to be released.
func (f *file) load(first, end int) []pending {
	frames := make([]pending, max(end-first, 0))
	var refs []Ref
	var missing []int
	for i := range frames {
		ref := f.extents[first+i].Ref
		if frames[i] = f.repository.frames.decoded.find(ref); frames[i] == nil && !f.repository.frames.isPlain(ref) {
			refs, missing = append(refs, ref), append(missing, i)
		}
	}
	for i, frame := range f.repository.load(f.ctx, refs) {
		frames[missing[i]] = frame
	}
	return frames
}

// release gives back frames, of which parts were read.
func (f *file) release(frames []pending, parts [][]byte) {
	for i, frame := range frames {
		if frame != nil {
			f.repository.frames.decoded.release(frame, int64(len(parts[i])))
		}
	}
}

// readAhead begins to read what follows n bytes at off, the last of them in the extent before end, if these continue what was read before. The
// first read of all also begins the end of the file, where formats keep their lists of contents.
func (f *file) readAhead(off, n int64, end int) {
	from, to := f.expect(off, n, end)
	frames := f.load(from, to)
	f.release(frames, make([][]byte, len(frames)))
}

// expect notes a read and returns the extents that are to be read ahead.
func (f *file) expect(off, n int64, end int) (from, to int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	i := slices.IndexFunc(f.readers, func(r follower) bool { return r.next-outOfOrder <= off && off <= r.next+outOfOrder })
	if i < 0 {
		first := len(f.readers) == 0
		f.readers = slices.Insert(f.readers, 0, follower{next: off + n, until: end})
		f.readers = f.readers[:min(len(f.readers), readersOfFile)]
		if first && f.repository.local == nil {
			return len(f.extents) - 1, len(f.extents)
		}
		return end, end
	}
	r := f.readers[i]
	r.next = max(r.next, off+n)
	r.ahead = min(max(firstAhead, 2*r.ahead), mostAhead)
	to, _ = slices.BinarySearch(f.ends, r.next+r.ahead)
	to = min(to+1, len(f.extents))
	if f.repository.local != nil {
		to = min(end+framesAhead, len(f.extents))
	}
	from = max(end, r.until)
	to = f.affordable(from, to)
	if f.repository.local == nil && to < len(f.extents) && f.size(from, to) < min(r.ahead/4, maxRun) {
		to = from // not yet worth a request
	}
	r.until = to
	copy(f.readers[1:], f.readers[:i])
	f.readers[0] = r
	return from, to
}

// size is how many bytes of the file are in the extents from ... to.
func (f *file) size(from, to int) int64 {
	if from >= to {
		return 0
	}
	return f.ends[to-1] - f.ends[from] + extentSize(f.entry, f.extents, from)
}

// affordable returns up to which of the extents from ... to the process has memory for while they are on their way.
func (f *file) affordable(from, to int) int {
	left := mostAhead - f.repository.underway.Load()
	for i := from; i < to; i++ {
		if left -= int64(f.extents[i].Len); left < 0 {
			return i
		}
	}
	return max(from, to)
}

// verified waits for the frame of extent i. A frame without a hash holds several files; then the file's own hash verifies its part.
func (f *file) verified(frame pending, i int) ([]byte, error) {
	made, err := frame.wait(f.ctx)
	if err != nil {
		return nil, err
	}
	data := made.data
	x := f.extents[i]
	if x.Hash.IsZero() && hashOf(data[x.From:int64(x.From)+f.entry.Size]) != f.entry.Hash {
		f.repository.cache.drop(x.Ref)
		return nil, damaged(x.Ref, errWrongBytes)
	}
	return data, nil
}

// WriteFile writes the whole content of a regular file, in order. Every frame is verified before it is written, and all of them together
// against the file's own hash at the end.
func (r *Repository) WriteFile(ctx context.Context, w io.Writer, e *Entry) error {
	if err := r.writeFile(ctx, w, e); err != nil {
		return fileError(e, err)
	}
	return nil
}

func (r *Repository) writeFile(ctx context.Context, w io.Writer, e *Entry) error {
	extents, err := r.extents(ctx, e)
	if err != nil {
		return err
	}
	f := newFile(ctx, r, e, extents)
	whole := blake3.New()
	ahead := f.frames(0)
	for i := 0; i < len(extents); {
		frames := ahead
		ahead = f.frames(i + len(frames))
		for _, frame := range frames {
			data, err := f.verified(frame, i)
			if err != nil {
				return err
			}
			data = data[extents[i].From:][:extentSize(e, extents, i)]
			if _, err := w.Write(data); err != nil {
				return fmt.Errorf("write: %w", err)
			}
			if len(extents) > 1 {
				whole.Write(data)
			}
			r.frames.decoded.release(frame, int64(len(data)))
			i++
		}
	}
	if len(extents) > 1 && replicate.Hash(whole.Sum(nil)) != e.Hash {
		return replicate.Errorf(replicate.Corrupt, "its frames are whole, but together they are not the file that was stored")
	}
	return nil
}

// frames begins to read the frames from extent i that make up a window.
func (f *file) frames(i int) []pending {
	var refs []Ref
	for size := int64(0); i < len(f.extents) && size < window; i++ {
		refs = append(refs, f.extents[i].Ref)
		size += int64(f.extents[i].Raw)
	}
	return f.repository.load(f.ctx, refs)
}
