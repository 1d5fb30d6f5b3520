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

// files writes the files that are to do, and keeps those to do of which a chunk is damaged.
func (l *layout) files(ctx context.Context) (damaged bool, err error) {
	bad := make([]bool, len(l.todo))
	buffers := sync.Pool{New: func() any {
		b := make([]byte, repository.MaxChunk)
		return &b
	}}
	err = parallel(ctx, len(l.todo), func(k int) error {
		buf := buffers.Get().(*[]byte)
		defer buffers.Put(buf)
		err := l.file(ctx, &l.tree.Entries[l.todo[k]], *buf)
		if bad[k] = err == errDamaged; bad[k] {
			return nil
		}
		return err
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

// file writes one file. If chunks are damaged, all of them are found, so that they are fetched in one round.
func (l *layout) file(ctx context.Context, e *Entry, buf []byte) error {
	f, err := l.root.OpenFile(e.Path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(l.fill(ctx, f, e, buf), f.Close())
	if errors.Is(err, errDamaged) {
		return errDamaged
	}
	if err == nil {
		err = l.dress(e)
	}
	return err
}

func (l *layout) fill(ctx context.Context, f *os.File, e *Entry, buf []byte) error {
	var damage error
	var at int64
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
		}
		at += p.Size
	}
	if damage == nil {
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
	top := Entry{Path: ".", Kind: repository.Dir, Mode: 0o755}
	if err := l.own(&top); err != nil {
		return err
	}
	if err := l.root.Chmod(".", 0o755); err != nil {
		return err
	}
	if err := os.Remove(l.options.Target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Rename(l.part, l.options.Target)
}

func (l *layout) own(e *Entry) error {
	if l.options.Owner == nil {
		return nil
	}
	return l.root.Lchown(e.Path, l.options.Owner.UID, l.options.Owner.GID)
}

// dress gives what is at a path its owner, its mode and its mtime. The mode of a link means nothing.
func (l *layout) dress(e *Entry) error {
	if err := l.own(e); err != nil {
		return err
	}
	dir, err := l.root.Open(path.Dir(e.Path))
	if err != nil {
		return err
	}
	defer dir.Close()
	name := path.Base(e.Path)
	if e.Kind != repository.Link {
		if err := unix.Fchmodat(int(dir.Fd()), name, e.Mode, 0); err != nil {
			return &os.PathError{Op: "chmod", Path: e.Path, Err: err}
		}
	}
	mtime := unix.NsecToTimespec(e.Mtime)
	if mtime.Nsec < 0 { // before 1970
		mtime.Sec, mtime.Nsec = mtime.Sec-1, mtime.Nsec+1e9
	}
	if err := unix.UtimesNanoAt(int(dir.Fd()), name, []unix.Timespec{mtime, mtime}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &os.PathError{Op: "set the time of", Path: e.Path, Err: err}
	}
	return nil
}
