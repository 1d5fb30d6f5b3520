package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"

	"github.com/replicate/replicate"
)

const (
	// frameBudget is how many bytes of decoded frames are kept. A read is 128 KiB and a frame up to 4 MiB: without it each frame would
	// be decoded many times over.
	frameBudget = 32 << 20
	// maxRun is how many bytes of adjacent frames are asked for at once where a request costs a round trip.
	maxRun = 8 << 20
	// maxPlain bounds how many frames are remembered as plain: 64 GiB of files.
	maxPlain = 64 << 10
)

// frameCache holds decoded and verified frames. A frame of a local storage that is stored as it is stays only until it was read once: that it was
// verified is remembered, and its bytes are read from the pack from then on.
type frameCache struct {
	decoded *cache[Ref, content]

	mu    sync.Mutex // guards plain
	plain map[Ref]struct{}
}

func newFrameCache() *frameCache {
	c := &frameCache{decoded: newCache[Ref, content](frameBudget), plain: map[Ref]struct{}{}}
	c.decoded.free = content.free
	return c
}

func (c *frameCache) isPlain(ref Ref) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.plain[ref]
	return ok
}

func (c *frameCache) setPlain(ref Ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.plain) >= maxPlain {
		clear(c.plain) // they are verified again
	}
	c.plain[ref] = struct{}{}
}

// A pending frame is one that is there or being read.
type pending = *entry[Ref, content]

// A content is the bytes of a frame.
type content struct {
	data   []byte
	buffer []byte // the memory in which they lie, to be used again; nil if it may not be
}

func (c content) free() { giveBuffer(c.buffer) }

// load begins to read frames, adjacent ones together, and returns them in the order of refs. Frames with a hash are verified; the bytes of
// others must be verified by who asked. Who is done with one releases it.
func (r *Repository) load(ctx context.Context, refs []Ref) []pending {
	frames := make([]pending, len(refs))
	var run []pending
	for i, ref := range refs {
		e, mine := r.frames.decoded.claim(ref)
		frames[i] = e
		switch {
		case !mine:
			continue
		case r.cache.has(ref):
			go r.take(ctx, e)
			continue
		}
		if len(run) > 0 && !r.joins(run, ref) {
			r.read(ctx, run)
			run = nil
		}
		run = append(run, e)
	}
	if len(run) > 0 {
		r.read(ctx, run)
	}
	return frames
}

// joins reports whether the frame ref can be read in one request with those of run. Local frames are read one by one, in parallel.
func (r *Repository) joins(run []pending, ref Ref) bool {
	first, last := run[0].key, run[len(run)-1].key
	return r.local == nil && adjacent(last, ref) && end(ref)-int64(first.Off) <= maxRun
}

// adjacent reports whether b begins where a ends.
func adjacent(a, b Ref) bool { return a.Pack == b.Pack && int64(b.Off) == end(a) }

// end is where the stored bytes of a frame end.
func end(ref Ref) int64 { return int64(ref.Off) + int64(ref.Len) }

// take takes a frame from the cache, or reads it after all.
func (r *Repository) take(ctx context.Context, e pending) {
	if data, ok := r.cache.get(e.key); ok {
		r.frames.decoded.fulfil(e, content{data, data}, int64(cap(data)), nil)
		r.frames.decoded.release(e, 0)
		return
	}
	r.read(ctx, []pending{e})
}

// read reads adjacent frames in the background, and hands out each as soon as it is there. It goes on when ctx is cancelled: others may be
// waiting for the same frames.
func (r *Repository) read(ctx context.Context, run []pending) {
	ctx = context.WithoutCancel(ctx)
	first, last := run[0].key, run[len(run)-1].key
	r.underway.Add(end(last) - int64(first.Off))
	go func() {
		defer r.underway.Add(int64(first.Off) - end(last))
		body, err := r.openPack(ctx, first.Pack, int64(first.Off), end(last)-int64(first.Off))
		if err == nil {
			defer body.Close()
		}
		for _, e := range run {
			var stored []byte
			if err == nil {
				stored = takeBuffer(int(e.key.Len))
				_, err = io.ReadFull(body, stored)
			}
			if err != nil {
				r.frames.decoded.fulfil(e, content{}, 0, packError(first.Pack, err))
				continue
			}
			r.finish(e, stored)
		}
	}()
}

// finish decodes and verifies one frame. It takes the memory of stored.
func (r *Repository) finish(e pending, stored []byte) {
	made, err := r.open(stored, e.key)
	if err == nil && r.local != nil && stored[0] == codecRaw && !e.key.Hash.IsZero() {
		r.frames.setPlain(e.key)
		e.unread = int64(len(made.data))
	}
	defer r.cache.keeping()()
	r.frames.decoded.fulfil(e, made, int64(cap(made.buffer)), err)
	if err == nil {
		r.cache.put(e.key, made.data)
	}
	r.frames.decoded.release(e, 0)
}

// open decodes and verifies a frame.
func (r *Repository) open(stored []byte, ref Ref) (content, error) {
	if len(stored) > 0 && stored[0] == codecRaw {
		data, err := openFrame(nil, stored, ref)
		return content{data, stored}, err
	}
	buffer := takeBuffer(int(ref.Raw))
	data, err := openFrame(buffer[:0], stored, ref)
	giveBuffer(stored)
	return content{data, buffer}, err
}

// openFrame decodes a stored frame, and verifies it if ref has a hash. What it returns may be a part of stored.
func openFrame(dst, stored []byte, ref Ref) (data []byte, err error) {
	if len(stored) > 0 && stored[0] == codecRaw && len(stored) == int(ref.Raw)+1 {
		data = stored[1:]
		if !ref.Hash.IsZero() && hashOf(data) != ref.Hash {
			err = errWrongBytes
		}
	} else {
		data, err = decodeFrame(dst, stored, ref)
	}
	if err != nil {
		return nil, damaged(ref, err)
	}
	return data, nil
}

var errWrongBytes = errors.New("the bytes are not those that were stored")

// seeCheck is the hint of every error about lost bytes.
const seeCheck = "replicate check lists every damaged file; others can be read"

// damaged says which bytes of which pack are lost.
func damaged(ref Ref, err error) error {
	if e, ok := errors.AsType[*replicate.Error](err); ok {
		err = e.Err // without the place, which is said here
	}
	return replicate.Errorf(replicate.Corrupt, "%d bytes of pack %.12s… at %d are damaged: %w", ref.Len, ref.Pack, ref.Off, err).WithHint(seeCheck)
}

// readPack fills p with the bytes of a pack from off.
func (r *Repository) readPack(ctx context.Context, pack replicate.Hash, off int64, p []byte) error {
	_, err := r.packFile(ctx, pack).ReadAt(p, off)
	return packError(pack, err)
}

// packError says what is wrong with a pack that could not be read.
func packError(pack replicate.Hash, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return replicate.Errorf(replicate.Corrupt, "pack %.12s… is missing", pack).WithHint(seeCheck)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return replicate.Errorf(replicate.Corrupt, "pack %.12s… is cut off", pack).WithHint(seeCheck)
	}
	return fmt.Errorf("read pack %.12s…: %w", pack, err)
}

// openPack begins to read n bytes of a pack from off.
func (r *Repository) openPack(ctx context.Context, pack replicate.Hash, off, n int64) (io.ReadCloser, error) {
	if body := r.near.Load().open(pack, off, n); body != nil {
		return body, nil
	}
	file := r.keptPack(packKey(pack))
	if file == nil && r.local == nil {
		return r.store.Get(ctx, packKey(pack), off, n)
	}
	if file == nil {
		var err error
		if file, err = os.Open(r.local.Path(packKey(pack))); err != nil {
			return nil, err
		}
	}
	return section{io.NewSectionReader(file, off, n), file}, nil
}

// A section is a part of a file, which is closed with it.
type section struct {
	io.Reader
	io.Closer
}

// packFile returns a pack as a file that is opened for each read.
func (r *Repository) packFile(ctx context.Context, pack replicate.Hash) io.ReaderAt {
	return &packFile{repository: r, ctx: ctx, pack: pack}
}

type packFile struct {
	repository *Repository
	ctx        context.Context
	pack       replicate.Hash
}

// ReadAt implements io.ReaderAt.
func (f *packFile) ReadAt(p []byte, off int64) (int, error) {
	body, err := f.repository.openPack(f.ctx, f.pack, off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	defer body.Close()
	n, err := io.ReadFull(body, p)
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return n, err
}
