package repository

import (
	"context"
	"iter"
	"sync"
	"time"

	"github.com/replicate/replicate/storage"
)

const (
	// aheadFor is how old a listing that was begun ahead may be when somebody asks for it.
	aheadFor = 2 * time.Second
	// sameMoment is how far apart two answers may be that count as one: between the end of an experiment and the end of its heartbeat lie an
	// answer, syncs of a disk and another request.
	sameMoment = 2 * time.Millisecond
)

// Ahead returns a store that has begun to list heartbeats and new records, for a program that opens a repository, asks for its Heartbeats and then
// Syncs, and that saves it two round trips. Each listing is given once, in place of the one that is asked for within two seconds.
//
// Whoever does so relies on heartbeats being older than records: one that goes away does so after the end of its experiment was recorded.
// Both are asked for at the same moment, and that for records does not count if it was answered first.
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
			l.answered = time.Now()
		}()
	}
	a.beats = a.lists[livePrefix]
	return a
}

type ahead struct {
	storage.Store
	beats *early

	mu    sync.Mutex // guards lists
	lists map[string]*early
}

// An early listing was begun before anybody asked for it.
type early struct {
	began time.Time

	done     chan struct{} // closed when the rest is there
	answered time.Time
	objects  []storage.Object
	err      error
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
		if !a.isUsable(ctx, l) {
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

// isUsable waits for a listing, and reports whether it may stand for a new one.
func (a *ahead) isUsable(ctx context.Context, l *early) bool {
	for _, wait := range []*early{l, a.beats} {
		select {
		case <-wait.done:
		case <-ctx.Done():
			return false
		}
	}
	return l.err == nil && a.beats.err == nil && a.beats.answered.Sub(l.answered) < sameMoment
}
