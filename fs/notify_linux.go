package fs

import (
	"context"
	"errors"
	"time"

	"github.com/replicate/replicate/fs/view"
)

const (
	// pollEvery is how often the view is refreshed where nothing wakes us, and pollQuiet where something does: for what no
	// event tells, as heartbeats that stop.
	pollEvery = 500 * time.Millisecond
	pollQuiet = 10 * time.Second

	// idleAfter is how long after the last request nothing is refreshed any more.
	idleAfter = time.Minute

	// Notifications take the directory's lock in the kernel: a few at a time.
	notifyBatch = 64
	notifyPause = 10 * time.Millisecond
)

// A notifier keeps a view up to date while it is used, and tells the kernel which names it must not keep. That is a kindness:
// names live for a second anyway.
type notifier struct {
	s     *server
	wake  <-chan struct{}
	every time.Duration
}

func newNotifier(s *server) *notifier { return &notifier{s: s} }

// run works until ctx ends, or until the view is stale as a whole.
func (n *notifier) run(ctx context.Context) error {
	n.every = pollEvery
	if folder := n.s.view.Wake(); folder != "" {
		if wake, err := watchFolder(ctx, folder); err == nil {
			n.wake, n.every = wake, pollQuiet
		}
	}
	for ctx.Err() == nil {
		if err := n.refresh(ctx); err != nil {
			return err
		}
		n.wait(ctx)
	}
	<-ctx.Done()
	return ctx.Err()
}

func (n *notifier) wait(ctx context.Context) {
	for {
		timer := time.NewTimer(n.every)
		select {
		case <-ctx.Done():
		case <-n.wake:
		case <-n.s.woken:
		case <-timer.C:
			if n.s.idle(time.Now()) > idleAfter {
				continue
			}
		}
		timer.Stop()
		return
	}
}

func (n *notifier) refresh(ctx context.Context) error {
	changes, err := n.s.view.Refresh(ctx)
	if errors.Is(err, view.ErrStale) {
		return err
	}
	if err != nil && ctx.Err() == nil && n.s.reported.first(err.Error()) {
		n.s.log.Error("refresh", "error", err)
	}
	n.tell(ctx, changes)
	return nil
}

// tell writes the notifications. That the kernel knows no such name is the usual answer.
func (n *notifier) tell(ctx context.Context, changes []view.Change) {
	k := n.s.kernel.Load()
	if k == nil {
		return
	}
	for i, c := range changes {
		if i%notifyBatch == notifyBatch-1 {
			pause(ctx, notifyPause)
		}
		if ctx.Err() != nil {
			return
		}
		k.EntryNotify(uint64(c.Dir), c.Name)
	}
}

// forgotten is a file of which there is a copy, and its name: the kernel need not keep what it knows of it.
type forgotten struct {
	node uint64
	name view.Change
}

// forgetFiles has the kernel forget files until ctx ends. Their pages go first, as nobody waits for that: who looks a name up that has become
// another file's would, and so would all who look up names in a directory that something is notified of.
func (s *server) forgetFiles(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case f := <-s.forget:
			if k := s.kernel.Load(); k != nil {
				k.InodeNotify(f.node, 0, 0)
				k.EntryNotify(uint64(f.name.Dir), f.name.Name)
			}
		}
	}
}
