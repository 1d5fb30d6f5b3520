package repository

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"

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
	hooked func(path string) // told when a file has been read and not been looked at again; for tests

	small  []byte // contents of a group
	stored []byte // one encoded frame
	held   []byte
	chunks *chunker
	rooms  chan []byte // for chunks under way
}

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
		c.cut(io.LimitReader(f, size), forcedCuts(j.path, f, size))
		c.chunks.follow(known.sequence)
		sum := blake3.New()
		p.reset(size)
		var n int64
		for chunk := range c.ahead(ctx) {
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

// roomsAhead is how many chunks of a file are under way: one being read, one waiting, one being written.
const roomsAhead = 3

func newCaptor(s *snapshot) *captor {
	c := &captor{path: s.path, build: s.build, known: s.known, hooked: s.project.hooked, rooms: make(chan []byte, roomsAhead)}
	for range roomsAhead {
		c.rooms <- nil
	}
	return c
}

// A cutChunk is a chunk of a file, or why there are no more.
type cutChunk struct {
	data []byte
	hash replicate.Hash
	err  error
}

// ahead yields the chunks of the file that c.chunks reads, up to its end or the end of ctx. They are read, cut and hashed in another goroutine,
// up to two ahead, so that a single file keeps two cores busy. A chunk is valid until the next one is asked for.
func (c *captor) ahead(ctx context.Context) iter.Seq[cutChunk] {
	return func(yield func(cutChunk) bool) {
		ctx, cancel := context.WithCancel(ctx)
		chunks := make(chan cutChunk)
		go func() {
			defer close(chunks)
			c.produce(ctx, chunks)
		}()
		defer func() { // the goroutine ends here, and all rooms come back
			cancel()
			for chunk := range chunks {
				c.rooms <- chunk.data
			}
		}()
		for chunk := range chunks {
			more := chunk.err != io.EOF && yield(chunk)
			c.rooms <- chunk.data
			if !more {
				return
			}
		}
	}
}

// produce copies chunks into rooms, up to the first error.
func (c *captor) produce(ctx context.Context, chunks chan<- cutChunk) {
	for {
		var room []byte
		select {
		case room = <-c.rooms:
		case <-ctx.Done():
			return
		}
		data, err := c.chunks.next()
		if err != nil {
			chunks <- cutChunk{data: room, err: err}
			return
		}
		chunks <- cutChunk{data: append(room[:0], data...), hash: c.chunks.hash()}
	}
}

func (c *captor) cut(r io.Reader, forced []int64) {
	if c.chunks == nil {
		c.chunks = newChunker(r, forced)
		return
	}
	c.chunks.reset(r, forced)
}
