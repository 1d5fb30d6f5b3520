package repository

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/replicate/replicate/storage"
)

// aheadFor is how old a listing that was begun ahead may be when somebody asks for it.
const aheadFor = 2 * time.Second

// Ahead returns a store that has begun to list heartbeats and new records, for a program that opens a repository, asks for its Heartbeats and then
// Syncs, and that saves it two round trips. Each listing is given once, in place of the one that is asked for within two seconds.
//
// Both are asked for at the same moment, so that the heartbeats may be the newer ones: of an experiment that ends then there is neither a heartbeat nor
// the end. Whoever finds one that fell silent must Sync again to know.
func Ahead(ctx context.Context, store storage.Store) storage.Store {
	if _, local := store.(storage.Local); local {
		return store
	}
	a := &ahead{Store: store, lists: map[string]*early{}}
	for _, prefix := range []string{livePrefix, logPrefix} {
		l := &early{began: time.Now(), done: make(chan struct{})}
		a.lists[prefix] = l
		go func() {
			defer close(l.done)
			for o, err := range store.List(ctx, prefix, "") {
				if l.err = err; err != nil {
					return
				}
				l.objects = append(l.objects, o)
			}
		}()
	}
	return a
}

type ahead struct {
	storage.Store

	mu    sync.Mutex // guards lists
	lists map[string]*early
}

// An early listing was begun before anybody asked for it.
type early struct {
	began time.Time

	done    chan struct{} // closed when the rest is there
	objects []storage.Object
	err     error
}

// Unwrap returns the store that is listed.
func (a *ahead) Unwrap() storage.Store { return a.Store }

// List gives a listing that was begun, or makes one. An error is met again by the latter.
func (a *ahead) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	l := a.take(prefix, after)
	if l == nil {
		return a.Store.List(ctx, prefix, after)
	}
	return func(yield func(storage.Object, error) bool) {
		select {
		case <-l.done:
		case <-ctx.Done():
		}
		if ctx.Err() != nil || l.err != nil {
			a.Store.List(ctx, prefix, after)(yield)
			return
		}
		for _, o := range l.objects {
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (a *ahead) take(prefix, after string) *early {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.lists[prefix]
	delete(a.lists, prefix)
	if l == nil || after != "" || time.Since(l.began) > aheadFor {
		return nil
	}
	return l
}
