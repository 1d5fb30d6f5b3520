package repository

import (
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

const (
	// lookEvery is how often an uploader looks for something new. It costs two readdirs.
	lookEvery = 200 * time.Millisecond
	// newsEvery is how often it looks whether somebody says that there is something. It costs two stats.
	newsEvery = 20 * time.Millisecond
	// retryFirst and retryLast bound the pause after an error. They double in between.
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
	// maxBatchPacks and maxBatchRecords bound how much becomes visible at once: enough for requests to be few, and not so much that the
	// first waits long for the last.
	maxBatchPacks   = 256 << 20
	maxBatchRecords = 1 << 20
)

// An uploader publishes what is in an outbox. Four goroutines share the work, as a large pack must keep neither a heartbeat nor a curve
// waiting: one publishes what is ready (U1 to U5), one sends packs of commits that are still being made, one looks after the streams and ends of
// writers, one sends heartbeats.
type uploader struct {
	spool *Spool
	*outbox
	store *founder
	far   *Repository // what is there
	repo  *Repository // and here
	pause func(ctx context.Context, d time.Duration) error

	puts puts
	seen map[replicate.Hash]time.Time // until when packs may be relied on

	turn  chan struct{}        // held by who sends or removes heartbeats: guards ended
	ended map[string]bool      // writers of which no heartbeat may be sent any more
	beats map[string]time.Time // when that of a writer was sent; of beatAll alone
	tails map[string]*tail     // of tend alone

	mu sync.Mutex // guards at
	at time.Time  // the highest that was given to a Set

	merges Merges
	report report
}

// Upload publishes what is in the outbox and what living writers add, until nothing is left and no writer lives. What a store refuses is tried again
// for ever. If another process does so already it returns at once, with false.
func (s *Spool) Upload(ctx context.Context) (bool, error) {
	for {
		mine, err := s.uploadOnce(ctx)
		if !mine || err != nil || s.outbox.isEmpty(s) {
			return mine, s.problem("upload", s.outbox.url, err)
		}
		// Something came after the last look, and its writer may have seen the lock: go on.
	}
}

func (s *Spool) uploadOnce(ctx context.Context) (bool, error) {
	if _, err := os.Stat(s.dir); err != nil {
		return true, missingIsNil(err)
	}
	lock, err := os.OpenFile(filepath.Join(s.dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return true, err
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false, nil
	}
	return true, s.newUploader().run(ctx)
}

func (s *Spool) newUploader() *uploader {
	store := newFounder(s.remote.store.(nearby).Store, s.pause)
	far := newRepository(store, config{ID: s.remote.id})
	far.timing = s.remote.timing
	u := &uploader{
		spool: s, outbox: s.outbox, store: store, far: far, repo: s.remote, pause: s.pause,
		puts: puts{began: s.now(), at: map[replicate.Hash]time.Time{}, busy: map[replicate.Hash]chan struct{}{}, tried: map[replicate.Hash]bool{}},
		seen: s.outbox.readSeen(),
		turn: make(chan struct{}, 1), ended: map[string]bool{}, beats: map[string]time.Time{}, tails: map[string]*tail{},
	}
	if text, err := os.ReadFile(u.path(clockName)); err == nil {
		_ = u.at.UnmarshalText(text) // it begins anew
	}
	u.report.start(s)
	return u
}

// sleep waits, or returns when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run works until nothing is left.
func (u *uploader) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	if err := u.repeat(ctx, "open", func() (bool, error) { return true, u.store.look(ctx) }); err != nil {
		return err
	}
	others.Go(func() { _ = u.repeat(ctx, "beat", func() (bool, error) { return false, u.beatAll(ctx) }) })
	others.Go(func() { _ = u.repeat(ctx, "early", func() (bool, error) { return false, u.sendEarly(ctx) }) })
	others.Go(func() {
		defer u.closeTails()
		_ = u.repeat(ctx, "tend", func() (bool, error) { return false, u.tend(ctx) })
	})
	err := u.repeat(ctx, "send", func() (bool, error) {
		if err := u.publishReady(ctx); err != nil {
			return false, err
		}
		return u.isEmpty(u.spool), nil
	})
	cancel()
	others.Wait()
	u.merges.Stop()
	if err == nil {
		u.sweep()
	}
	u.report.end()
	return err
}

// repeat calls f until it is done, with a pause in between that grows with errors. Only the end of ctx ends it before.
func (u *uploader) repeat(ctx context.Context, what string, f func() (done bool, err error)) error {
	wait := retryFirst
	for {
		asked, told := u.touched(wakeName), u.touched(newsName)
		done, err := f()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		u.report.note(what, err)
		if done && err == nil {
			return nil
		}
		if !exists(u.dir, outboxName) {
			return errVanished
		}
		pause := lookEvery
		news := func() bool { return !u.touched(wakeName).Equal(asked) }
		if err != nil {
			pause = wait/2 + rand.N(wait)
			wait = min(2*wait, retryLast)
		} else {
			wait = retryFirst
			news = func() bool { return !u.touched(wakeName).Equal(asked) || !u.touched(newsName).Equal(told) }
		}
		if err := u.rest(ctx, pause, news); err != nil {
			return err
		}
	}
}

// errVanished says that somebody has removed the outbox: there is nothing to send any more.
var errVanished = replicate.Errorf(replicate.NotFound, "the folder is gone")

// rest waits, but not longer than until there are news.
func (u *uploader) rest(ctx context.Context, d time.Duration, news func() bool) error {
	for {
		part := min(d, newsEvery)
		if err := u.pause(ctx, part); err != nil {
			return err
		}
		if d -= part; d <= 0 || news() {
			return nil
		}
	}
}

// touched is when a file of the outbox was written that says no more than that.
func (o *outbox) touched(name string) time.Time {
	info, err := os.Stat(o.path(name))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Wake asks the uploader that may be at work to try now what it would try later.
func (s *Spool) Wake() {
	if s.outbox != nil {
		_ = os.WriteFile(s.outbox.path(wakeName), nil, 0o600) // it tries again in any case
	}
}

// isEmpty reports whether no writer is left and nothing is ready. Writers are looked at first: what they leave becomes ready, so that it cannot be missed in both.
func (o *outbox) isEmpty(s *Spool) bool {
	for _, name := range s.writers() {
		if state, _ := s.stateOf(name); state != elsewhere {
			return false
		}
	}
	names, err := o.ready("")
	return err == nil && len(names) == 0
}

// writers lists the folders of writers.
func (s *Spool) writers() []string {
	entries, _ := os.ReadDir(s.path()) // no folder: none
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}
