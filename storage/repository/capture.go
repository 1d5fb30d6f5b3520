package repository

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"sync"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

const (
	// smallFile is the size up to which files share a frame, and groupSize how much goes into one: a read of one file brings its neighbours.
	smallFile = 64 << 10
	groupSize = 256 << 10
	// tries is how often a file that changes is read before it is saved torn.
	tries = 3
	// minRun is the least that is taken from an older pack in one stretch, so that reading a file stays at one request per 4 MiB.
	minRun = 4 << 20
)

// errLeftOut wraps why a file cannot be part of a snapshot: it is gone, or not readable. The snapshot goes on without it.
type errLeftOut struct{ why string }

func (e errLeftOut) Error() string { return e.why }

// A captor reads files for a snapshot. Each goroutine has its own.
type captor struct {
	path   func(j *errand) string // where a file is
	build  *packBuilder
	known  func(ctx context.Context, j *errand) *knownChunks
	spare  chan struct{}     // one for each core that is free
	hooked func(path string) // told when a file has been read and not been looked at again; for tests

	*scratch
}

// scratch is the memory that reading files takes.
type scratch struct {
	small  []byte    // contents of a group
	stored []byte    // a compressed frame
	held   []byte    // chunks that may have to be stored
	blocks [2][]byte // of a large file: with two, one is filled while chunks of the other are used
}

// scratches are kept from one snapshot to the next while commits follow each other: fresh memory costs as much as hashing it.
var scratches = sync.Pool{New: func() any { return &scratch{} }}

// stable opens a file and calls read until the file was the same before and after, at most tries times; then it is torn. read gets the file
// at its beginning and must read no more than the stat's size, which j has when read is called; it returns how much it read.
func (c *captor) stable(j *errand, read func(f *os.File) (int64, error)) (torn bool, err error) {
	for try := 1; ; try++ {
		f, err := c.open(j)
		if err != nil {
			return false, err
		}
		n, err := read(f)
		f.Close()
		if err != nil {
			return false, err
		}
		if c.hooked != nil {
			c.hooked(j.path)
		}
		after, err := lstat(c.path(j))
		if err == nil && after == j.stat && n == j.stat.size {
			return false, nil
		}
		if try == tries {
			j.stat.size = n
			return true, nil
		}
	}
}

// open opens a file for reading, if a regular file stands at its path, and sets j.stat to what it is.
func (c *captor) open(j *errand) (*os.File, error) {
	path := c.path(j)
	st, err := lstat(path)
	if err != nil {
		return nil, errLeftOut{whyOf(err)}
	}
	if st.kind != File {
		return nil, errLeftOut{"changed while it was read"}
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errLeftOut{whyOf(err)}
	}
	var opened unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &opened); err != nil {
		f.Close()
		return nil, errLeftOut{whyOf(err)}
	}
	if j.stat = statOf(&opened); j.stat.kind != File {
		f.Close()
		return nil, errLeftOut{"changed while it was read"}
	}
	return f, nil
}

// readError tells a file that cannot be read from everything else that can go wrong.
func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		return errLeftOut{whyOf(path.Err)}
	}
	return err
}

// errGrown says that a file is too large to be read whole.
var errGrown = errors.New("too large to be read whole")

// whole reads a file below minChunked bytes behind what c.small holds.
func (c *captor) whole(j *errand) (captured, error) {
	start := len(c.small)
	torn, err := c.stable(j, func(f *os.File) (int64, error) {
		if j.stat.size >= minChunked {
			return 0, errGrown
		}
		size := int(j.stat.size)
		if cap(c.small)-start < size {
			c.small = append(make([]byte, 0, start+max(size, groupSize+smallFile)), c.small[:start]...)
		}
		n, err := io.ReadFull(f, c.small[start:start+size])
		c.small = c.small[:start+n]
		return int64(n), readError(err)
	})
	if err != nil {
		c.small = c.small[:start]
		return captured{}, err
	}
	return captured{errand: j, hash: hashOf(c.small[start:]), torn: torn}, nil
}

// large reads a file in chunks, storing those that are not known.
func (c *captor) large(ctx context.Context, j *errand) (captured, error) {
	known := c.known(ctx, j)
	got := captured{errand: j}
	p := placer{captor: c, known: known, next: -1}
	defer p.release()
	var err error
	got.torn, err = c.stable(j, func(f *os.File) (int64, error) {
		size := j.stat.size
		chunks := newChunker(&source{file: f, size: size}, forcedCuts(j.path, f, size))
		chunks.follow(known.sequence)
		sum := blake3.New()
		p.reset(size)
		var n int64
		for chunk := range c.chunks(ctx, chunks) {
			if chunk.err != nil {
				return n, readError(chunk.err)
			}
			sum.Write(chunk.data)
			n += int64(len(chunk.data))
			if err := p.place(chunk.data, chunk.hash); err != nil {
				return n, err
			}
		}
		if err := ctx.Err(); err != nil {
			return n, err
		}
		got.hash = replicate.Hash(sum.Sum(nil))
		return n, p.end()
	})
	got.extents = p.extents
	return got, err
}

// A cutChunk is a chunk of a file, or why there are no more.
type cutChunk struct {
	data []byte
	hash replicate.Hash
	used []byte // the block that the chunks before are in, if this one is in another
	err  error
}

// chunksAhead is how many chunks wait to be used: they level out what differs from chunk to chunk.
const chunksAhead = 2

// chunks yields the chunks of a file, up to its end or the end of ctx. A chunk is valid until the next one is asked for. As soon as a core is
// spare, they are read, cut and hashed in a goroutine of their own: a single file keeps two cores busy.
func (c *captor) chunks(ctx context.Context, from *chunker) iter.Seq[cutChunk] {
	return func(yield func(cutChunk) bool) {
		from.buf = c.block(0)
		for ctx.Err() == nil {
			select {
			case <-c.spare:
				defer func() { c.spare <- struct{}{} }()
				c.ahead(ctx, from, yield)
				return
			default:
			}
			if chunk := from.nextHashed(); chunk.err == io.EOF || !yield(chunk) {
				return
			}
		}
	}
}

// block returns the i-th block, which is made when it is first needed.
func (c *captor) block(i int) []byte {
	if c.blocks[i] == nil {
		c.blocks[i] = make([]byte, chunkBuffer)
	}
	return c.blocks[i]
}

// ahead yields what is left of the chunks of a file, and has the next ones read meanwhile.
func (c *captor) ahead(ctx context.Context, from *chunker, yield func(cutChunk) bool) {
	ctx, cancel := context.WithCancel(ctx)
	free := make(chan []byte, len(c.blocks))
	free <- c.block(1)
	chunks := make(chan cutChunk, chunksAhead)
	go func() {
		defer close(chunks)
		produce(ctx, from, free, chunks)
	}()
	defer func() { // the goroutine ends here: the blocks are free
		cancel()
		for range chunks {
		}
	}()
	for chunk := range chunks {
		if chunk.used != nil {
			free <- chunk.used
		}
		if chunk.err == io.EOF || !yield(chunk) {
			return
		}
	}
}

// produce sends chunks, up to the first error or the end of ctx. A block that is full is swapped for a free one.
func produce(ctx context.Context, from *chunker, free <-chan []byte, chunks chan<- cutChunk) {
	var used []byte
	from.swap = func(full []byte) []byte {
		select {
		case block := <-free:
			used = full
			return block
		case <-ctx.Done():
			return make([]byte, chunkBuffer) // full may still be used, until the end of ctx is noticed there too
		}
	}
	for {
		chunk := from.nextHashed()
		chunk.used, used = used, nil
		select {
		case chunks <- chunk:
		case <-ctx.Done():
			return
		}
		if chunk.err != nil {
			return
		}
	}
}

// nextHashed returns the next chunk with its hash, or why there is none.
func (c *chunker) nextHashed() cutChunk {
	data, err := c.next()
	if err != nil {
		return cutChunk{err: err}
	}
	return cutChunk{data: data, hash: c.hash()}
}
