package repository

import (
	"context"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// A nearby store reads packs that are in an outbox from there, and all else from the storage. Without a storage it is what a training may
// wait for: files of this machine.
type nearby struct {
	storage.Store        // may be nil: then nothing but Get of a pack may be called
	dir           string // of the outbox
	url           string
}

// errFar says that something is in the storage only, which a training does not wait for.
var errFar = replicate.Errorf(replicate.Unavailable, "it is not on this machine")

// URL names the storage.
func (n nearby) URL() string { return n.url }

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
	if n.Store == nil {
		return nil, errFar
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
