package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/mem"
	"github.com/replicate/replicate/storage/storagetest"
)

var errDown = replicate.Errorf(replicate.Unavailable, "down")

// until returns a store that is down for a time from now on.
func until(s storage.Store, d time.Duration) storage.Store {
	begin := time.Now()
	return storagetest.Wrap(s, storagetest.Hooks{Before: func(context.Context, storagetest.Call) error {
		if time.Since(begin) < d {
			return errDown
		}
		return nil
	}})
}

func TestRetryConformance(t *testing.T) {
	storagetest.Conformance(t, func(t *testing.T) storage.Store { return storage.Retry(mem.New(t.Name(), time.Now), storage.Person) })
}

func TestRetryOutlastsAnOutage(t *testing.T) {
	ops := map[string]func(context.Context, storage.Store) error{
		"get": func(ctx context.Context, s storage.Store) error {
			body, err := s.Get(ctx, "a", 0, -1)
			if err != nil {
				return err
			}
			defer body.Close()
			_, err = io.ReadAll(body)
			return err
		},
		"put": func(ctx context.Context, s storage.Store) error {
			_, err := s.Put(ctx, "b", &repeated{n: 10}, 10)
			return err
		},
		"stat":   func(ctx context.Context, s storage.Store) error { _, err := s.Stat(ctx, "a"); return err },
		"delete": func(ctx context.Context, s storage.Store) error { return s.Delete(ctx, "a") },
		"now":    func(ctx context.Context, s storage.Store) error { _, err := s.Now(ctx); return err },
		"list": func(ctx context.Context, s storage.Store) error {
			for _, err := range s.List(ctx, "", "") {
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	for name, op := range ops {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inner := mem.New("", time.Now)
				storagetest.Put(t, inner, "a", []byte("x"))
				begin := time.Now()
				if err := op(t.Context(), storage.Retry(until(inner, 4*time.Minute), storage.Person)); err != nil {
					t.Errorf("4 minutes: %v", err)
				}
				if took := time.Since(begin); took < 4*time.Minute || took > 5*time.Minute {
					t.Errorf("4 minutes: took %v", took)
				}
				begin = time.Now()
				err := op(t.Context(), storage.Retry(until(inner, 6*time.Minute), storage.Person))
				if took := time.Since(begin); !errors.Is(err, errDown) || took > 5*time.Minute || took < 4*time.Minute {
					t.Errorf("6 minutes: %v, took %v", err, took)
				}
				if err := op(t.Context(), storage.Retry(until(inner, 72*time.Hour), storage.Policy{})); err != nil {
					t.Errorf("3 days: %v", err)
				}
			})
		})
	}
}

// repeated is a body of n bytes.
type repeated struct{ n, at int64 }

func (r *repeated) Read(p []byte) (int, error) {
	if r.at >= r.n {
		return 0, io.EOF
	}
	n := min(int64(len(p)), r.n-r.at)
	r.at += n
	return int(n), nil
}

func (r *repeated) Seek(off int64, _ int) (int64, error) { r.at = off; return off, nil }

func TestRetryTellsAndDoesNotHurry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var waits []time.Duration
		policy := storage.Policy{Tell: func(err error, wait time.Duration) {
			if !errors.Is(err, errDown) {
				t.Errorf("told %v", err)
			}
			waits = append(waits, wait)
		}}
		if _, err := storage.Retry(until(mem.New("", time.Now), time.Hour), policy).Now(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waits[0] < 100*time.Millisecond || waits[0] > 200*time.Millisecond || slices.Max(waits) > 30*time.Second || len(waits) > 300 {
			t.Errorf("%d waits, the first %v, the longest %v", len(waits), waits[0], slices.Max(waits))
		}
	})
}

func TestRetryOnlyWhatIsUnavailable(t *testing.T) {
	for _, kind := range []replicate.Kind{replicate.Permission, replicate.NotFound, replicate.Usage, replicate.Full, replicate.Internal, replicate.Conflict} {
		calls := 0
		s := storagetest.Wrap(mem.New("", time.Now), storagetest.Hooks{Before: func(context.Context, storagetest.Call) error {
			calls++
			return replicate.Errorf(kind, "no")
		}})
		if _, err := storage.Retry(s, storage.Policy{}).Stat(t.Context(), "a"); replicate.KindOf(err) != kind || calls != 1 {
			t.Errorf("%s: %v after %d calls", kind, err, calls)
		}
	}
}

func TestRetryStopsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begin := time.Now()
		_, err := storage.Retry(until(mem.New("", time.Now), time.Hour), storage.Policy{}).Now(ctx)
		if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errDown) || time.Since(begin) > time.Minute {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestSilentAttemptIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New("", time.Now)
		storagetest.Put(t, inner, "a", []byte("x"))
		frozen := storagetest.Wrap(inner, storagetest.Hooks{Before: func(ctx context.Context, c storagetest.Call) error {
			if c.Sum == 1 {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}})
		begin := time.Now()
		if _, err := storage.Retry(frozen, storage.Person).Stat(t.Context(), "a"); err != nil || time.Since(begin) > 31*time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
	})
}

func TestSlowReadIsAskedForTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New("", time.Now)
		storagetest.Put(t, inner, "a", []byte("x"))
		var cancelled atomic.Bool
		s := storage.Retry(storagetest.Wrap(inner, storagetest.Hooks{Before: func(ctx context.Context, c storagetest.Call) error {
			wait := 150 * time.Millisecond
			if c.N == 21 {
				wait = 20 * time.Second
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				cancelled.Store(true)
			}
			return ctx.Err()
		}}), storage.Person)
		for range 20 {
			storagetest.Get(t, s, "a")
		}
		begin := time.Now()
		if got := storagetest.Get(t, s, "a"); string(got) != "x" {
			t.Errorf("got %q", got)
		}
		if took := time.Since(begin); took != 450*time.Millisecond { // twice the median, and the second read
			t.Errorf("took %v", took)
		}
		synctest.Wait()
		if !cancelled.Load() {
			t.Error("the slow read goes on")
		}
	})
}

func TestFewReadsAreAskedForTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New("", time.Now)
		storagetest.Put(t, inner, "a", []byte("x"))
		calls := 0
		s := storage.Retry(storagetest.Slow(inner, func(ctx context.Context, c storagetest.Call) error {
			calls = c.N
			wait := 10 * time.Millisecond
			if c.N > 20 { // the line is full from now on
				wait = 5 * time.Second
			}
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
			return ctx.Err()
		}), storage.Person)
		for range 100 {
			storagetest.Get(t, s, "a")
		}
		if calls < 101 || calls > 106 {
			t.Errorf("100 reads were %d requests", calls)
		}
	})
}

// A narrow store has one object that takes its time to come, and others whose first read is slow to begin.
type narrow struct {
	storage.Store

	mu   sync.Mutex // guards gets
	gets map[string]int
}

func (s *narrow) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	s.mu.Lock()
	s.gets[key]++
	wait := 5 * time.Second
	if key == "coming" || key == "quick" || s.gets[key] > 1 {
		wait = 10 * time.Millisecond
	}
	s.mu.Unlock()
	select {
	case <-time.After(wait):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	body, err := s.Store.Get(ctx, key, off, n)
	if key == "coming" {
		body = &dripping{body}
	}
	return body, err
}

// A dripping body gives 32 KiB every tenth of a second.
type dripping struct{ io.ReadCloser }

func (d *dripping) Read(p []byte) (int, error) {
	time.Sleep(100 * time.Millisecond)
	return d.ReadCloser.Read(p[:min(len(p), 32<<10)])
}

// TestLargeReadsAreNotAskedForTwiceOnAFullLine has reads wait while another one gets its bytes: a large one goes on waiting, a small one does not.
func TestLargeReadsAreNotAskedForTwiceOnAFullLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := &narrow{Store: mem.New("", time.Now), gets: map[string]int{}}
		for _, key := range []string{"quick", "coming", "small", "large", "alone"} {
			storagetest.Put(t, inner.Store, key, make([]byte, 1<<20))
		}
		s := storage.Retry(inner, storage.Person)
		read := func(key string, n int64) time.Duration {
			begin := time.Now()
			body, err := s.Get(t.Context(), key, 0, n)
			if err == nil {
				_, err = io.Copy(io.Discard, body)
				body.Close()
			}
			if err != nil {
				t.Error(err)
			}
			return time.Since(begin)
		}
		for range 100 { // of which few may be asked for twice
			read("quick", 1)
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			read("coming", -1) // which takes 10 s
		}()
		time.Sleep(time.Second)
		if took := read("small", 1000); took > 2*time.Second || inner.gets["small"] != 2 {
			t.Errorf("a small read took %v and %d requests", took, inner.gets["small"])
		}
		if took := read("large", 1<<20); took != 5*time.Second || inner.gets["large"] != 1 {
			t.Errorf("a large read took %v and %d requests", took, inner.gets["large"])
		}
		<-done
		if took := read("alone", 1<<20); took > 2*time.Second || inner.gets["alone"] != 2 {
			t.Errorf("one that is alone took %v and %d requests", took, inner.gets["alone"])
		}
	})
}

func TestRequestsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int64
		s := storage.Retry(storagetest.Wrap(mem.New("", time.Now), storagetest.Hooks{Before: func(context.Context, storagetest.Call) error {
			for n := now.Add(1); n > most.Load(); {
				most.Store(n)
			}
			time.Sleep(time.Second)
			now.Add(-1)
			return nil
		}}), storage.Person)
		begin := time.Now()
		for range 256 {
			go s.Delete(t.Context(), "a")
		}
		synctest.Wait()
		s.Delete(t.Context(), "a")
		if took := time.Since(begin); most.Load() != 64 || took > 6*time.Second {
			t.Errorf("%d at once, took %v", most.Load(), took)
		}
	})
}

// single is a store that deletes one key with each request.
type single struct{ storage.Store }

func (single) Batch() int { return 1 }

func TestDeletesAreTriedAgainOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New("", time.Now)
		keys := make([]string, 300)
		for i := range keys {
			keys[i] = fmt.Sprintf("log/%d", i)
			storagetest.Put(t, inner, keys[i], nil)
		}
		var calls atomic.Int64
		s := storage.Retry(single{storagetest.Wrap(inner, storagetest.Hooks{Before: func(_ context.Context, c storagetest.Call) error {
			if calls.Add(1)%3 == 0 {
				return errDown
			}
			return nil
		}})}, storage.Person)
		if err := s.Delete(t.Context(), keys...); err != nil {
			t.Fatal(err)
		}
		if got := calls.Load(); got < 400 || got > 450 {
			t.Errorf("300 keys took %d requests, of which every third failed", got)
		}
		if left := storagetest.Keys(t, inner, "", ""); len(left) != 0 {
			t.Errorf("%d keys are left", len(left))
		}
	})
}

func TestListGoesOnWhereItBroke(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mem.New("", time.Now)
		want := []string{"a", "b", "c", "d", "e", "f", "g"}
		for _, key := range want {
			storagetest.Put(t, inner, key, nil)
		}
		broken := storagetest.Wrap(inner, storagetest.Hooks{After: func(_ context.Context, c storagetest.Call) error {
			if c.N < 3 {
				return errDown
			}
			return nil
		}})
		if got := storagetest.Keys(t, storage.Retry(broken, storage.Person), "", ""); !slices.Equal(got, want) {
			t.Errorf("listed %q", got)
		}
	})
}

func TestRetryChangesThePolicyAndLeavesDisksAlone(t *testing.T) {
	inner := mem.New("", time.Now)
	s := storage.Retry(storage.Retry(inner, storage.Person), storage.Policy{})
	if u, ok := s.(interface{ Unwrap() storage.Store }); !ok || u.Unwrap() != storage.Store(inner) {
		t.Errorf("%T is wrapped twice", s)
	}
	if err := storage.CreateBucket(t.Context(), s); replicate.KindOf(err) != replicate.Usage {
		t.Errorf("create the bucket of a store that has none: %v", err)
	}
	if got := storage.TrafficOf(s); got != (storage.Traffic{}) {
		t.Errorf("traffic of a store that makes no requests: %+v", got)
	}
}
