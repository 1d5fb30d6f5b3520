package repository

import (
	"context"
	"errors"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// A nearby store reads packs that are in an outbox from there, and all else from the storage. With nowhere as the storage it is what a training
// may wait for: files of this machine.
type nearby struct {
	storage.Store
	dir string // of the outbox
}

// Get reads a pack that is on this machine, or asks the storage.
func (n nearby) Get(ctx context.Context, key string, off, size int64) (io.ReadCloser, error) {
	if name, ok := parsePackKey(key); ok {
		for _, folder := range []string{packsName, keptName} {
			f, err := os.Open(filepath.Join(n.dir, folder, name.String()))
			if err == nil {
				return partOf(f, off, size), nil
			}
			if !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
		}
	}
	return n.Store.Get(ctx, key, off, size)
}

// partOf is size bytes of a file from off, to its end if size < 0.
func partOf(f *os.File, off, size int64) io.ReadCloser {
	if size < 0 {
		size = math.MaxInt64 - off
	}
	return section{io.NewSectionReader(f, off, size), f}
}

// A nowhere is a storage that is not asked. It has the URL of the one that it stands for.
type nowhere string

// errFar says that something is in the storage only, which a training does not wait for.
var errFar = replicate.Errorf(replicate.Unavailable, "it is not on this machine")

// Get has nothing.
func (nowhere) Get(context.Context, string, int64, int64) (io.ReadCloser, error) { return nil, errFar }

// Put stores nothing.
func (nowhere) Put(context.Context, string, io.ReadSeeker, int64) (time.Time, error) {
	return time.Time{}, errFar
}

// List has nothing.
func (nowhere) List(context.Context, string, string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) { yield(storage.Object{}, errFar) }
}

// Stat has nothing.
func (nowhere) Stat(context.Context, string) (storage.Object, error) {
	return storage.Object{}, errFar
}

// Delete removes nothing.
func (nowhere) Delete(context.Context, ...string) error { return errFar }

// Now has no clock.
func (nowhere) Now(context.Context) (time.Time, error) { return time.Time{}, errFar }

// URL names the storage.
func (n nowhere) URL() string { return string(n) }
