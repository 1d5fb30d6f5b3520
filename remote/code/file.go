package code

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// tries is how often a file that changes is read before it is taken torn.
const tries = 3

// errGone says why a file cannot be taken: it is not there any more, or cannot be read. The tree goes without it.
type errGone struct{ why string }

func (e errGone) Error() string { return e.why }

// open opens a file of the tree if it is one still.
func (t *Tree) open(path string) (*os.File, repository.Stamp, error) {
	f, err := os.OpenFile(t.options.Root+"/"+path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, repository.Stamp{}, errGone{reason(err)}
	}
	stamp, ok := repository.StampOf(f)
	if !ok {
		f.Close()
		return nil, stamp, errGone{"changed while it was read"}
	}
	return f, stamp, nil
}

// reason is what a report says of an error of the file system.
func reason(err error) string {
	var errno syscall.Errno
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return "not there"
	case errors.Is(err, os.ErrPermission):
		return "unreadable"
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}

// stable calls read for a file until the file was the same before and after, at most tries times; then it is torn. read gets the file at its
// beginning and the size it has, and returns how much it read.
func (t *Tree) stable(path string, read func(f *os.File, size int64) (int64, error)) (stamp repository.Stamp, torn bool, err error) {
	for try := 1; ; try++ {
		f, before, err := t.open(path)
		if err != nil {
			return before, false, err
		}
		n, err := read(f, before.Size)
		after, _ := repository.StampOf(f)
		f.Close()
		if err != nil {
			return before, false, err
		}
		if after == before && n == before.Size {
			return before, false, nil
		}
		if try == tries {
			after.Size = n
			return after, true, nil
		}
	}
}

// pieces reads a file and cuts it as commits do.
func (t *Tree) pieces(ctx context.Context, path string) (list []Piece, stamp repository.Stamp, torn bool, err error) {
	stamp, torn, err = t.stable(path, func(f *os.File, size int64) (int64, error) {
		list = nil
		if size < repository.ChunkedFrom {
			data, err := io.ReadAll(io.LimitReader(f, size))
			if len(data) > 0 {
				list = []Piece{{Hash: repository.HashOf(data), Size: int64(len(data))}}
			}
			return int64(len(data)), readError(err)
		}
		chunks := repository.NewChunker(path, f, size)
		for n := int64(0); ; {
			chunk, hash, err := chunks.Next()
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return n, readError(err)
			}
			list = append(list, Piece{Hash: hash, Size: int64(len(chunk))})
			n += int64(len(chunk))
		}
	})
	return list, stamp, torn, err
}

// readError tells the end of a file and a file that cannot be read from all else.
func readError(err error) error {
	var path *os.PathError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil
	case errors.As(err, &path):
		return errGone{reason(path.Err)}
	}
	return err
}

// kindOf tells apart what callers treat differently.
func kindOf(err error) replicate.Kind {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return replicate.Full
	}
	return replicate.KindOf(err)
}
