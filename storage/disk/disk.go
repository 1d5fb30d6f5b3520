// Package disk keeps the objects of a repository as files of a folder: the storage of URLs file:///folder.
//
// The path of an object below the folder is its key. What is being written lies in tmp/, which holds no objects, and is renamed
// when it is complete and durable. Folders have mode 0700 and files 0600. The package knows nothing of what the bytes mean, but
// for two kinds of keys:
//
//   - live/…, heartbeats, are not synced. They are written every half minute and worth nothing after a crash of the machine.
//   - replicate.json is made once: the first Put of it wins, and later ones return the first one's time and change nothing. So two
//     programs that make a repository at the same time agree on one if they read it back.
//
// The store's clock is the clock of the file system, which on NFS is the server's: Object.Time is the ctime of a file, which rename
// sets, and Now is the ctime of a file just made in tmp/.
//
// Delete is not synced: a crash of the machine can bring an object back. Files that are not regular, and files and folders whose
// names are not those of keys, are ignored.
package disk

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

const (
	// tmp is the folder of files that are no objects yet.
	tmp = "tmp"
	// live begins the keys that are not synced.
	live = "live/"
	// once is the key whose first Put wins.
	once = "replicate.json"
	// stale is the age from which a file in tmp/ was left behind by a process that is gone: no Put takes so long.
	stale = 24 * time.Hour
)

// A Store keeps objects in a folder.
type Store struct {
	dir   string
	sweep sync.Once // of stale files in tmp/
}

var _ storage.Local = (*Store)(nil)

func init() {
	storage.Register("file", func(_ context.Context, u *url.URL) (storage.Store, error) {
		if u.Host != "" && u.Host != "localhost" || !filepath.IsAbs(u.Path) {
			return nil, replicate.Errorf(replicate.Usage, "want file:///folder with an absolute path")
		}
		return New(u.Path)
	})
}

// New returns the store of a folder. It creates nothing; the folder is made by the first Put.
func New(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, failed("open", dir, err)
	}
	return &Store{dir: abs}, nil
}

// Dir is the folder that holds everything, absolute.
func (s *Store) Dir() string { return s.dir }

// URL returns file:// and the folder.
func (s *Store) URL() string { return (&url.URL{Scheme: "file", Path: s.dir}).String() }

// Path returns the file that holds an object.
func (s *Store) Path(key string) string { return filepath.Join(s.dir, filepath.FromSlash(key)) }

// Get reads a part of an object.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := cmp.Or(ctx.Err(), storage.CheckKey(key)); err != nil {
		return nil, failed("get", key, err)
	}
	if _, err := s.lstat(key); err != nil {
		return nil, failed("get", s.Path(key), err)
	}
	f, err := open(s.Path(key))
	if err != nil {
		return nil, failed("get", s.Path(key), err)
	}
	return newReader(f, off, n), nil
}

// open opens a file for reading. os.Open offers it to the poller first, which takes no files: that is as many calls of the system as everything
// else that reading a small one needs, and a repository may have hundreds of thousands of them.
func open(path string) (*os.File, error) {
	for {
		fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
		switch {
		case err == nil:
			return os.NewFile(uintptr(fd), path), nil
		case err != syscall.EINTR:
			return nil, err
		}
	}
}

// A reader is a part of a file, and closes it.
type reader struct {
	*io.SectionReader
	file *os.File
}

func newReader(f *os.File, off, n int64) *reader {
	if n < 0 {
		n = math.MaxInt64 - off
	}
	return &reader{io.NewSectionReader(f, off, n), f}
}

func (r *reader) Close() error { return r.file.Close() }

// lstat finds the file of an object. What is no regular file is none, and is never opened.
func (s *Store) lstat(key string) (fs.FileInfo, error) {
	info, err := os.Lstat(s.Path(key))
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	return info, err
}

// Stat returns an object without its bytes.
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := cmp.Or(ctx.Err(), storage.CheckKey(key)); err != nil {
		return storage.Object{}, failed("stat", key, err)
	}
	info, err := s.lstat(key)
	if err != nil {
		return storage.Object{}, failed("stat", s.Path(key), err)
	}
	return storage.Object{Key: key, Size: info.Size(), Time: ctime(info)}, nil
}

// Delete removes objects, in order, up to the first error.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	for _, key := range keys {
		if err := cmp.Or(ctx.Err(), storage.CheckKey(key)); err != nil {
			return failed("delete", key, err)
		}
		// Unlink, as os.Remove would also remove an empty folder of that name.
		err := syscall.Unlink(s.Path(key))
		if err != nil && !missing(err) && !isFolder(s.Path(key)) {
			return failed("delete", s.Path(key), err)
		}
	}
	return nil
}

// Now returns the clock of the file system. Where nothing can be written, on a full disk too, it is the clock of this machine:
// whoever cannot write needs the time only to show ages.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, failed("read the clock of", s.dir, err)
	}
	f, err := s.temp()
	switch kindOf(err) {
	case "":
	case replicate.Permission, replicate.Full:
		return time.Now(), nil
	default:
		return time.Time{}, failed("read the clock of", s.dir, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, failed("read the clock of", s.dir, err)
	}
	return ctime(info), nil
}

func isFolder(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.IsDir()
}

// missing reports whether err says that there is no such file: also when a folder on the way is a file.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// failed is the error of an operation on a path. Paths inside err are dropped, as they say the same or speak of tmp/.
func failed(op, path string, err error) error {
	e := &replicate.Error{Op: op, Path: path, Kind: kindOf(err), Err: cause(err)}
	switch e.Kind {
	case replicate.Full:
		e.Hint = "free some space there"
	case replicate.Permission:
		e.Hint = "check who owns it, and that its disk can be written to"
	}
	return e
}

// cause strips the path of an error of package os.
func cause(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	if l, ok := errors.AsType[*os.LinkError](err); ok {
		return l.Err
	}
	return err
}

// kindOf tells apart what callers treat differently.
func kindOf(err error) replicate.Kind {
	errno, _ := errors.AsType[syscall.Errno](err)
	switch errno {
	case syscall.ENOENT, syscall.ENOTDIR:
		return replicate.NotFound
	case syscall.ENOSPC, syscall.EDQUOT:
		return replicate.Full
	case syscall.EACCES, syscall.EPERM, syscall.EROFS:
		return replicate.Permission
	case syscall.ESTALE, syscall.ETIMEDOUT, syscall.EHOSTDOWN, syscall.EMFILE, syscall.ENFILE:
		return replicate.Unavailable
	}
	return replicate.KindOf(err)
}
