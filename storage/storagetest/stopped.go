package storagetest

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/replicate/replicate/storage"
)

// ErrStopped is what every call returns once the process is meant to be dead.
var ErrStopped = errors.New("the process was stopped for a test")

// A Stop is the place where a process dies: at the N-th call of its store, from 1, before or after that took effect.
// To die everywhere, a test counts N up until Reached reports false.
type Stop struct {
	N     int
	After bool

	reached atomic.Bool
}

// Reached reports whether the process is dead.
func (s *Stop) Reached() bool { return s.reached.Load() }

// Stopped returns s for a process that dies at stop. Calls that run at that moment finish.
func Stopped(s storage.Store, stop *Stop) storage.Store {
	die := func(c Call, after bool) error {
		if c.Sum == stop.N && after == stop.After {
			stop.reached.Store(true)
		}
		if stop.reached.Load() && (!after || c.Sum == stop.N) {
			return ErrStopped
		}
		return nil
	}
	return Wrap(s, Hooks{
		Before: func(_ context.Context, c Call) error { return die(c, false) },
		After:  func(_ context.Context, c Call) error { return die(c, true) },
	})
}
