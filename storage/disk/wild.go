package disk

import (
	"cmp"
	"context"
	"errors"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

var _ storage.Wild = (*Store)(nil)

// Wild returns the folder with all regular files in it, whatever their names.
func (s *Store) Wild() storage.Store { return wild{s} }

type wild struct{ *Store }

// errWild is why nothing can be changed.
var errWild = replicate.Errorf(replicate.Permission, "what other programs stored is only read")

// Put refuses.
func (w wild) Put(context.Context, string, io.ReadSeeker, int64) (time.Time, error) {
	return time.Time{}, errWild
}

// Delete refuses.
func (w wild) Delete(context.Context, ...string) error { return errWild }

// Get reads a part of a file.
func (w wild) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := cmp.Or(ctx.Err(), checkWild(key)); err != nil {
		return nil, failed("get", key, err)
	}
	if _, err := w.lstat(key); err != nil {
		return nil, failed("get", w.Path(key), err)
	}
	f, err := os.Open(w.Path(key))
	if err != nil {
		return nil, failed("get", w.Path(key), err)
	}
	return newReader(f, off, n), nil
}

// Stat returns a file without its bytes.
func (w wild) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := cmp.Or(ctx.Err(), checkWild(key)); err != nil {
		return storage.Object{}, failed("stat", key, err)
	}
	info, err := w.lstat(key)
	if err != nil {
		return storage.Object{}, failed("stat", w.Path(key), err)
	}
	return storage.Object{Key: key, Size: info.Size(), Time: ctime(info)}, nil
}

// checkWild refuses what leads out of the folder.
func checkWild(key string) error {
	if !filepath.IsLocal(key) {
		return replicate.Errorf(replicate.Usage, "%q is not a path in a folder", key)
	}
	return nil
}

// List walks the folder that a prefix names up to its last slash. The order is that of keys within one folder, as WalkDir has it.
func (w wild) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		folder, _ := cutLast(prefix)
		if folder != "" && checkWild(strings.TrimSuffix(folder, "/")) != nil {
			return
		}
		var stopped = errors.New("stopped")
		err := filepath.WalkDir(w.Path(folder), func(path string, e fs.DirEntry, err error) error {
			if err == nil {
				err = ctx.Err()
			}
			if missing(err) || err == nil && !e.Type().IsRegular() && !e.IsDir() {
				return nil
			}
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(w.Dir(), path)
			if err != nil {
				return err
			}
			key := filepath.ToSlash(rel)
			if e.IsDir() {
				if key != "." && !strings.HasPrefix(key+"/", prefix) && !strings.HasPrefix(prefix, key+"/") {
					return fs.SkipDir
				}
				return nil
			}
			if !strings.HasPrefix(key, prefix) || key <= after {
				return nil
			}
			info, err := e.Info()
			if missing(err) {
				return nil
			}
			if err != nil {
				return err
			}
			if !yield(storage.Object{Key: key, Size: info.Size(), Time: ctime(info)}, nil) {
				return stopped
			}
			return nil
		})
		if err != nil && !errors.Is(err, stopped) {
			yield(storage.Object{}, failed("list", w.Path(folder), err))
		}
	}
}
