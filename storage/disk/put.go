package disk

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/replicate/replicate/storage"
)

// Put writes an object to tmp/, makes it durable, renames it to its key and makes the rename durable: two syncs, and one more for
// each folder that had to be made. The first one, replicate.json, also makes the way to the storage durable.
func (s *Store) Put(ctx context.Context, key string, body io.ReadSeeker, n int64) (time.Time, error) {
	if err := storage.CheckKey(key); err != nil {
		return time.Time{}, failed("put", key, err)
	}
	t, err := s.put(ctx, key, body, n)
	if err != nil {
		return time.Time{}, failed("put", s.Path(key), err)
	}
	return t, nil
}

func (s *Store) put(ctx context.Context, key string, body io.ReadSeeker, n int64) (time.Time, error) {
	f, err := s.temp()
	if err != nil {
		return time.Time{}, err
	}
	defer os.Remove(f.Name()) // gone already when it was renamed
	defer f.Close()
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return time.Time{}, fmt.Errorf("read what is to be stored: %w", err)
	}
	if written, err := io.CopyN(f, body, n); errors.Is(err, io.EOF) {
		return time.Time{}, fmt.Errorf("want %d bytes, got %d: %w", n, written, io.ErrUnexpectedEOF)
	} else if err != nil {
		return time.Time{}, err
	}
	durable := !strings.HasPrefix(key, live)
	if durable {
		if err := fdatasync(f); err != nil {
			return time.Time{}, err
		}
	}
	if err := ctx.Err(); err != nil {
		return time.Time{}, err
	}
	move := os.Rename
	if key == once {
		move = renameNew
	}
	if err := s.place(key, f.Name(), move, durable); err != nil {
		return time.Time{}, err
	}
	if key == once {
		syncAbove(s.dir)
	}
	return s.time(key, f)
}

// Adopt renames the file at path, which must be durable and lie on the same file system, to the place of an object. One sync, and
// one more for each folder that had to be made.
func (s *Store) Adopt(ctx context.Context, key, path string) (time.Time, error) {
	if err := cmp.Or(ctx.Err(), storage.CheckKey(key)); err != nil {
		return time.Time{}, failed("put", key, err)
	}
	err := s.place(key, path, os.Rename, true)
	var info fs.FileInfo
	if err == nil {
		info, err = os.Lstat(s.Path(key))
	}
	if err != nil {
		return time.Time{}, failed("put", s.Path(key), err)
	}
	return ctime(info), nil
}

// time returns the ctime of the object that was just put through f.
func (s *Store) time(key string, f *os.File) (time.Time, error) {
	if key == once { // it may be somebody else's
		info, err := os.Lstat(s.Path(key))
		if err != nil {
			return time.Time{}, err
		}
		return ctime(info), nil
	}
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return ctime(info), nil
}

// place moves a file to the place of a key, making its folders if need be.
func (s *Store) place(key, file string, move func(from, to string) error, durable bool) error {
	target := s.Path(key)
	err := move(file, target)
	if errors.Is(err, fs.ErrNotExist) { // the folder is not there yet, or the file is not
		make := mkdir
		if !durable {
			make = func(dir string) error { return os.MkdirAll(dir, 0o700) }
		}
		if err := make(filepath.Dir(target)); err != nil {
			return err
		}
		err = move(file, target)
	}
	if err != nil || !durable {
		return err
	}
	return syncDir(filepath.Dir(target))
}

// renameNew renames file to target unless something has that name already, which is no error. One call where the system can: the
// second step of linkNew moves the ctime, and a loser of the race might have read it before.
func renameNew(file, target string) error {
	switch err := renameExclusive(file, target); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, syscall.EINVAL), errors.Is(err, errors.ErrUnsupported): // NFS, old kernels
		return linkNew(file, target)
	default:
		return err
	}
}

// linkNew is renameNew on file systems that cannot rename exclusively.
func linkNew(file, target string) error {
	err := os.Link(file, target)
	switch {
	case err == nil:
		return os.Remove(file) // now, as it changes the ctime
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, syscall.EPERM), errors.Is(err, errors.ErrUnsupported):
		// A file system without hard links. Two writers within microseconds are told apart by reading back later.
		if _, err := os.Lstat(target); err == nil {
			return nil
		}
		return os.Rename(file, target)
	}
	return err
}

// temp makes a new file in tmp/, and tmp/ itself if need be, which is durable with the first object, replicate.json. The first time it removes what
// dead processes left there.
func (s *Store) temp() (*os.File, error) {
	dir := filepath.Join(s.dir, tmp)
	f, err := os.CreateTemp(dir, putPrefix)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
		f, err = os.CreateTemp(dir, putPrefix)
	}
	if err == nil {
		s.sweep.Do(func() { sweep(dir, f) })
	}
	return f, err
}

// putPrefix begins the names of our files in tmp/. Others belong to whoever put them there.
const putPrefix = "put-"

// sweep removes our files that were stale when young was made. What cannot be removed is left for the next time.
func sweep(dir string, young *os.File) {
	info, err := young.Stat()
	if err != nil {
		return
	}
	now := ctime(info)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), putPrefix) {
			continue
		}
		if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) > stale {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// mkdir makes a folder and those above it, durably. One that another process makes at the same time is durable with the first
// sync inside it, as file systems log the making of a folder with or before its content.
func mkdir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir):
		if err := mkdir(filepath.Dir(dir)); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	case err != nil:
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// syncAbove makes the name of a folder durable, and those of the folders it is in, as far as this user may: somebody else may have made them a
// moment ago and not have cared.
func syncAbove(dir string) {
	for dir != filepath.Dir(dir) {
		dir = filepath.Dir(dir)
		_ = syncDir(dir)
	}
}

// syncDir makes the names in a folder durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // a file system that cannot, CIFS for one
	}
	return err
}
