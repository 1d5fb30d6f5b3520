package storage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/replicate/replicate"
)

const (
	// firstWait and longestWait bound the wait before another attempt: it doubles from one to the other, and a random half of it
	// is left out, so that many clients do not come back at once.
	firstWait   = 200 * time.Millisecond
	longestWait = 30 * time.Second
	// silence is longer than any server thinks about a request.
	silence = 30 * time.Second
	// parallel is how many requests a store has under way, so that hundreds of callers do not open hundreds of connections. A listing does not
	// count, nor does a body that is being read: who reads may ask for more meanwhile.
	parallel = 64
)

// A Policy says how long a call is tried again while its store is Unavailable.
type Policy struct {
	Patience time.Duration // 0: until the context of the call ends
	Silence  time.Duration // how long an attempt may carry nothing before it is given up; 0: 30 s
	// Tell is told that an attempt went wrong and how long the next one waits. It may be nil, and is called from many goroutines.
	Tell func(err error, wait time.Duration)
}

// Person is the policy in front of somebody who waits.
var Person = Policy{Patience: 5 * time.Minute}

// Retry returns s with calls that are tried again, with reads that go on where they broke off, with a second read where the first one is slow
// to answer, and with a bound on what is under way. A store that Retry returned gets another policy; a Local store is returned as it is.
//
// A Get reads the first 256 KiB before it returns: objects up to that size are never mixed from two versions. A larger one that was replaced
// while a broken read of it is gone on with is an error.
func Retry(s Store, p Policy) Store {
	switch s := s.(type) {
	case Local:
		return s
	case *retrier:
		again := *s
		again.policy = p
		return &again
	}
	return &retrier{Store: s, policy: p, slots: make(chan struct{}, parallel), answers: &answers{}}
}

// WithPolicy returns a store of Retry with another policy, and any other store as it is.
func WithPolicy(s Store, p Policy) Store {
	if r, ok := s.(*retrier); ok {
		return Retry(r, p)
	}
	return s
}

type retrier struct {
	Store
	policy  Policy
	slots   chan struct{}
	answers *answers
}

// Wild returns the view in which keys may be any text, with the same policy and the same bounds.
func (r *retrier) Wild() Store {
	w, ok := r.Store.(Wild)
	if !ok {
		return r
	}
	again := *r
	again.Store = w.Wild()
	return &again
}

// Unwrap returns the store whose calls are tried again.
func (r *retrier) Unwrap() Store { return r.Store }

// A try repeats one call.
type try struct {
	policy Policy
	began  time.Time
	wait   time.Duration
}

func (r *retrier) try() *try { return &try{policy: r.policy, began: time.Now(), wait: firstWait} }

// progress makes patience begin anew.
func (t *try) progress() { t.began, t.wait = time.Now(), firstWait }

// again waits before another attempt, and returns an error if there is to be none: err, with what became of it.
func (t *try) again(ctx context.Context, err error) error {
	if replicate.KindOf(err) != replicate.Unavailable {
		return err
	}
	if ctx.Err() != nil {
		return stopped(ctx, err)
	}
	wait := t.wait/2 + rand.N(t.wait/2)
	t.wait = min(2*t.wait, longestWait)
	if t.policy.Patience > 0 && time.Since(t.began)+wait > t.policy.Patience {
		return err
	}
	if t.policy.Tell != nil {
		t.policy.Tell(err, wait)
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return stopped(ctx, err)
	}
}

// stopped is the error of a call whose context ended while it was tried again.
func stopped(ctx context.Context, err error) error {
	return fmt.Errorf("%w: %w", context.Cause(ctx), err)
}

// do repeats an attempt until it succeeds or is not worth another one.
func (r *retrier) do(ctx context.Context, attempt func(context.Context, *watch) error) error {
	for t := r.try(); ; {
		err := r.once(ctx, attempt)
		if err == nil {
			return nil
		}
		if err := t.again(ctx, err); err != nil {
			return err
		}
	}
}

// once makes one attempt, which ends when nothing happens for too long.
func (r *retrier) once(ctx context.Context, attempt func(context.Context, *watch) error) error {
	defer r.slot(ctx)()
	w := r.policy.watch(ctx)
	defer w.end()
	return w.judge(attempt(w.ctx, w))
}

// slot waits until another request may be made, and returns what is to be called when it has been answered. When the context has ended, the store
// says so in its own words.
func (r *retrier) slot(ctx context.Context) (release func()) {
	select {
	case r.slots <- struct{}{}:
		return func() { <-r.slots }
	case <-ctx.Done():
		return func() {}
	}
}

// A watch ends an attempt that carries nothing.
type watch struct {
	ctx    context.Context
	end    context.CancelFunc
	timer  *time.Timer
	limit  time.Duration
	silent error // the cause of ctx if the watch ended it
}

func (p Policy) watch(ctx context.Context) *watch {
	ctx, cancel := context.WithCancelCause(ctx)
	w := &watch{ctx: ctx, limit: cmp.Or(p.Silence, silence)}
	w.silent = fmt.Errorf("no answer for %v", w.limit)
	w.timer = time.AfterFunc(w.limit, func() { cancel(w.silent) })
	w.end = func() { w.timer.Stop(); cancel(nil) }
	return w
}

func (w *watch) tick()  { w.timer.Reset(w.limit) }
func (w *watch) pause() { w.timer.Stop() }

// judge returns err, or what really happened if the watch ended the attempt.
func (w *watch) judge(err error) error {
	if err == nil || context.Cause(w.ctx) != w.silent {
		return err
	}
	silent := &replicate.Error{Kind: replicate.Unavailable, Err: w.silent}
	if e, ok := errors.AsType[*replicate.Error](err); ok {
		silent.Op, silent.Path = e.Op, e.Path
	}
	return silent
}

func (r *retrier) Put(ctx context.Context, key string, body io.ReadSeeker, n int64) (at time.Time, err error) {
	err = r.do(ctx, func(ctx context.Context, w *watch) (err error) {
		at, err = r.Store.Put(ctx, key, &watchedBody{body, w}, n)
		return err
	})
	return at, err
}

// A watchedBody tells a watch that a body is being sent.
type watchedBody struct {
	io.ReadSeeker
	watch *watch
}

func (b *watchedBody) Read(p []byte) (int, error) {
	b.watch.tick()
	return b.ReadSeeker.Read(p)
}

func (r *retrier) Stat(ctx context.Context, key string) (o Object, err error) {
	err = r.do(ctx, func(ctx context.Context, _ *watch) (err error) {
		o, err = r.Store.Stat(ctx, key)
		return err
	})
	return o, err
}

// Delete tries each request again by itself: of thousands some always fail on a bad line.
func (r *retrier) Delete(ctx context.Context, keys ...string) error {
	size := max(1, len(keys))
	if b, ok := r.Store.(Batcher); ok {
		size = b.Batch()
	}
	var (
		wg    sync.WaitGroup
		turns = make(chan struct{}, parallel)
		mu    sync.Mutex // guards first
		first error
	)
	for some := range slices.Chunk(keys, size) {
		turns <- struct{}{}
		wg.Go(func() {
			defer func() { <-turns }()
			err := r.do(ctx, func(ctx context.Context, _ *watch) error { return r.Store.Delete(ctx, some...) })
			mu.Lock()
			defer mu.Unlock()
			first = cmp.Or(first, err)
		})
	}
	wg.Wait()
	return first
}

func (r *retrier) Now(ctx context.Context) (now time.Time, err error) {
	err = r.do(ctx, func(ctx context.Context, _ *watch) (err error) {
		now, err = r.Store.Now(ctx)
		return err
	})
	return now, err
}

// List goes on behind the last object when a listing breaks off.
func (r *retrier) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		t, last := r.try(), after
		for {
			err := r.listOnce(ctx, prefix, &last, t, yield)
			if err == errStop || err == nil {
				return
			}
			if err := t.again(ctx, err); err != nil {
				yield(Object{}, err)
				return
			}
		}
	}
}

var errStop = errors.New("the caller has seen enough")

// listOnce yields what it gets, moving last, until an error or the caller stops it.
func (r *retrier) listOnce(ctx context.Context, prefix string, last *string, t *try, yield func(Object, error) bool) error {
	w := r.policy.watch(ctx)
	defer w.end()
	for o, err := range r.Store.List(w.ctx, prefix, *last) {
		if err != nil {
			return w.judge(err)
		}
		w.pause()
		if !yield(o, nil) {
			return errStop
		}
		*last = o.Key
		t.progress()
		w.tick()
	}
	return nil
}
