package repository

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync/atomic"
	"time"

	"github.com/replicate/replicate/storage"
)

// settle is how long after making replicate.json it is read again: another machine may have made one at the same time.
const settle = time.Second

// A founder is a store in which the repository is made before the first object is put, if there is none: a training that fails before there is
// something to store leaves nothing in the bucket.
type founder struct {
	storage.Store
	pause func(ctx context.Context, d time.Duration) error
	found atomic.Bool   // there is a repository
	turn  chan struct{} // held by who makes it
}

func newFounder(store storage.Store, pause func(context.Context, time.Duration) error) *founder {
	return &founder{Store: store, pause: pause, turn: make(chan struct{}, 1)}
}

// Unwrap returns the store itself.
func (f *founder) Unwrap() storage.Store { return f.Store }

// Put puts an object into a repository.
func (f *founder) Put(ctx context.Context, key string, body io.ReadSeeker, n int64) (time.Time, error) {
	if err := f.make(ctx); err != nil {
		return time.Time{}, err
	}
	return f.Store.Put(ctx, key, body, n)
}

// look looks whether there is a repository. One that cannot be read is an error.
func (f *founder) look(ctx context.Context) error {
	_, err := readConfig(ctx, f.Store)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		f.found.Store(true)
	}
	return err
}

// make makes the repository if there is none.
func (f *founder) make(ctx context.Context) error {
	if f.found.Load() {
		return nil
	}
	select {
	case f.turn <- struct{}{}:
		defer func() { <-f.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := f.look(ctx); err != nil || f.found.Load() {
		return err
	}
	if _, err := makeConfig(ctx, f.Store); err != nil {
		return err
	}
	if err := f.pause(ctx, settle); err != nil {
		return err
	}
	return f.look(ctx)
}
