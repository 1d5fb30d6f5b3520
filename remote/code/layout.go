package code

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/storage/repository"
)

// partSuffix stands behind the name of a target that is not complete.
const partSuffix = ".part"

// holeSize is the size from which a stretch of zeros becomes a hole: a block of most file systems.
const holeSize = 4 << 10

// A layout makes a tree of chunks below a directory that becomes the target when it is complete.
type layout struct {
	options ReceiveOptions
	tree    *Manifest
	chunks  chunks
	part    string
	root    *os.Root
	todo    []int // entries that are files not yet complete
}

// newLayout makes the directories. What an earlier one left is removed.
func newLayout(o ReceiveOptions, m *Manifest, c chunks) (*layout, error) {
	l := &layout{options: o, tree: m, chunks: c, part: o.Target + partSuffix}
	if err := os.RemoveAll(l.part); err != nil {
		return nil, err
	}
	if err := os.Mkdir(l.part, 0o700); err != nil {
		return nil, err
	}
	var err error
	if l.root, err = os.OpenRoot(l.part); err != nil {
		return nil, err
	}
	for i := range m.Entries {
		switch e := &m.Entries[i]; e.Kind {
		case repository.Dir:
			err = l.root.Mkdir(e.Path, 0o700)
		case repository.File:
			l.todo = append(l.todo, i)
		}
		if err != nil {
			l.root.Close()
			return nil, err
		}
	}
	return l, nil
}

func (l *layout) close() { l.root.Close() }

// A stretch is some files of one directory, of those that are to do: each costs a few system calls, and opening the directory as many again.
type stretch struct{ from, to int }

// stretches cuts what is to do. Many small files are one, so that it pays, and few large ones several, so that there is something for every hand.
func (l *layout) stretches() (list []stretch) {
	var size int64
	for k, i := range l.todo {
		e := &l.tree.Entries[i]
		if n := len(list); n > 0 && size < batch && path.Dir(e.Path) == path.Dir(l.tree.Entries[l.todo[k-1]].Path) {
			list[n-1].to = k + 1
		} else {
			list, size = append(list, stretch{k, k + 1}), 0
		}
		size += e.Size + batch/stretchFiles
	}
	return list
}

// stretchFiles is how many files a stretch has at most.
const stretchFiles = 64

// files writes the files that are to do, and keeps those to do of which a chunk is damaged.
func (l *layout) files(ctx context.Context) (damaged bool, err error) {
	bad := make([]bool, len(l.todo))
	buffers := sync.Pool{New: func() any {
		b := make([]byte, repository.MaxChunk)
		return &b
	}}
	stretches := l.stretches()
	err = parallel(ctx, len(stretches), func(n int) error {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		return l.stretch(ctx, stretches[n], bad, *buf)
	})
	if err != nil {
		return false, err
	}
	var rest []int
	for k, i := range l.todo {
		if bad[k] {
			rest = append(rest, i)
		}
	}
	l.todo = rest
	return len(rest) > 0, nil
}

// stretch writes the files of a stretch, and notes of which a chunk is damaged.
func (l *layout) stretch(ctx context.Context, s stretch, bad []bool, buf []byte) error {
	dir, err := l.root.Open(path.Dir(l.tree.Entries[l.todo[s.from]].Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	for k := s.from; k < s.to; k++ {
		err := l.file(ctx, dir, &l.tree.Entries[l.todo[k]], buf)
		if bad[k] = err == errDamaged; err != nil && !bad[k] {
			return err
		}
	}
	return nil
}

// file writes one file. If chunks are damaged, all of them are found, so that they are fetched in one round.
func (l *layout) file(ctx context.Context, dir *os.File, e *Entry, buf []byte) error {
	f, err := openAt(dir, path.Base(e.Path), unix.O_CREAT|unix.O_TRUNC|unix.O_WRONLY|unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	err = errors.Join(l.fill(ctx, f, e, buf), f.Close())
	if errors.Is(err, errDamaged) {
		return errDamaged
	}
	if err == nil {
		err = l.dressIn(dir, e)
	}
	return err
}

// openAt opens a regular file in a directory, of the working directory if that is nil. os.OpenFile is for all files, and asks first whether one can be waited for.
func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	at := unix.AT_FDCWD
	if dir != nil {
		at = int(dir.Fd())
	}
	for {
		fd, err := unix.Openat(at, name, flags|unix.O_CLOEXEC, 0o600)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), name), nil
		case unix.EINTR:
		default:
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

func (l *layout) fill(ctx context.Context, f *os.File, e *Entry, buf []byte) error {
	var damage error
	var at, end int64 // end is where what was written ends
	for _, p := range e.Pieces {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := l.chunks.get(p, buf)
		if err == errDamaged {
			damage = err
		} else if err != nil {
			return err
		}
		if damage == nil && !isHole(data) {
			if _, err := f.WriteAt(data, at); err != nil {
				return err
			}
			end = at + p.Size
		}
		at += p.Size
	}
	if damage == nil && end < e.Size {
		return f.Truncate(e.Size)
	}
	return damage
}

// isHole reports whether data is nothing but zeros, and many of them.
func isHole(data []byte) bool {
	return len(data) >= holeSize && data[0] == 0 && bytes.Equal(data[1:], data[:len(data)-1])
}

// finish makes the links, gives directories their modes and times, from the innermost out, and puts the tree in its place.
func (l *layout) finish() error {
	for i := range l.tree.Entries {
		if e := &l.tree.Entries[i]; e.Kind == repository.Link {
			if err := errors.Join(l.root.Symlink(e.Target, e.Path), l.dress(e)); err != nil {
				return err
			}
		}
	}
	for i := len(l.tree.Entries) - 1; i >= 0; i-- {
		if e := &l.tree.Entries[i]; e.Kind == repository.Dir {
			if err := l.dress(e); err != nil {
				return err
			}
		}
	}
	if o := l.options.Owner; o != nil {
		if err := l.root.Chown(".", o.UID, o.GID); err != nil {
			return err
		}
	}
	if err := l.root.Chmod(".", 0o755); err != nil {
		return err
	}
	if err := os.Remove(l.options.Target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Rename(l.part, l.options.Target)
}

// dress gives what is at a path its owner, its mode and its mtime.
func (l *layout) dress(e *Entry) error {
	dir, err := l.root.Open(path.Dir(e.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return l.dressIn(dir, e)
}

// dressIn is dress for an entry of a directory. The mode of a link means nothing.
func (l *layout) dressIn(dir *os.File, e *Entry) error {
	at, name := int(dir.Fd()), path.Base(e.Path)
	if o := l.options.Owner; o != nil {
		if err := unix.Fchownat(at, name, o.UID, o.GID, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "chown", Path: e.Path, Err: err}
		}
	}
	if e.Kind != repository.Link {
		if err := unix.Fchmodat(at, name, e.Mode, 0); err != nil {
			return &os.PathError{Op: "chmod", Path: e.Path, Err: err}
		}
	}
	mtime := unix.NsecToTimespec(e.Mtime)
	if mtime.Nsec < 0 { // before 1970
		mtime.Sec, mtime.Nsec = mtime.Sec-1, mtime.Nsec+1e9
	}
	if err := unix.UtimesNanoAt(at, name, []unix.Timespec{mtime, mtime}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set the time of", Path: e.Path, Err: err}
	}
	return nil
}
