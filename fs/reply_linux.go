package fs

import (
	"errors"
	"io"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// A lender is a file whose bytes can be had where they are: repository.Reader says how.
type lender interface {
	Lend(p []byte, off int64) (parts [][]byte, done func(), err error)
}

// A reply is what a READ is answered with. The kernel takes the bytes from where they were verified.
type reply struct {
	off   int64
	size  int
	parts [][]byte
	done  []func() // called in order once the kernel has them
}

var _ fuse.ReadResult = (*reply)(nil)

// newReply reads at an offset, as much as buf has room for, which is used if need be.
func newReply(r io.ReaderAt, buf []byte, off int64) (*reply, error) {
	a := &reply{off: off}
	if l, ok := r.(lender); ok {
		parts, done, err := l.Lend(buf, off)
		if err != nil {
			return nil, err
		}
		a.parts, a.done = parts, []func(){done}
	} else {
		n, err := r.ReadAt(buf, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		a.parts = [][]byte{buf[:n]}
	}
	for _, part := range a.parts {
		a.size += len(part)
	}
	return a, nil
}

// Size implements fuse.ReadResult.
func (a *reply) Size() int { return a.size }

// Slices has go-fuse write the parts as they are.
func (a *reply) Slices() ([][]byte, fuse.Status) { return a.parts, fuse.OK }

// Bytes implements fuse.ReadResult.
func (a *reply) Bytes(buf []byte) ([]byte, fuse.Status) {
	buf = buf[:0]
	for _, part := range a.parts {
		buf = append(buf, part...)
	}
	return buf, fuse.OK
}

// Done implements fuse.ReadResult.
func (a *reply) Done() {
	for _, done := range a.done {
		done()
	}
}
