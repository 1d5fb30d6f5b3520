package storagetest

import (
	"context"
	"errors"
	"io/fs"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// ErrFault is the error of a Fault that names none.
var ErrFault = &replicate.Error{Kind: replicate.Unavailable, Err: errors.New("fault made for a test")}

// A Fault says which call fails, and how.
type Fault struct {
	Op    Op    // "" for any
	N     int   // the n-th call of Op, from 1; 0 for every one
	After bool  // the call takes effect, and fails all the same: of a Get and a List half comes through
	Err   error // nil: ErrFault
}

func (f Fault) matches(c Call, after bool) bool {
	n := c.N
	if f.Op == "" {
		n = c.Sum
	}
	return after == f.After && (f.Op == "" || f.Op == c.Op) && (f.N == 0 || f.N == n)
}

// Faulty returns s with faults.
func Faulty(s storage.Store, faults ...Fault) storage.Store {
	hook := func(after bool) func(context.Context, Call) error {
		return func(_ context.Context, c Call) error {
			for _, f := range faults {
				if !f.matches(c, after) {
					continue
				}
				if f.Err != nil {
					return f.Err
				}
				return ErrFault
			}
			return nil
		}
	}
	return Wrap(s, Hooks{Before: hook(false), After: hook(true)})
}

// Slow returns s with calls that first wait: for wait to return, whose error they return. With a wait that takes turns
// a test decides in which order the calls of several goroutines happen.
func Slow(s storage.Store, wait func(context.Context, Call) error) storage.Store {
	return Wrap(s, Hooks{Before: wait})
}

// Forgetful returns s without the objects for whose keys lost returns true, which may change at any time.
func Forgetful(s storage.Store, lost func(key string) bool) storage.Store {
	return Wrap(s, Hooks{
		Before: func(_ context.Context, c Call) error {
			if (c.Op == OpGet || c.Op == OpStat) && lost(c.Key()) {
				return notExist(c.Op, c.Key())
			}
			return nil
		},
		Object: func(o storage.Object) (storage.Object, bool) { return o, !lost(o.Key) },
		Path: func(key, path string) string {
			if lost(key) {
				return path + ".lost"
			}
			return path
		},
	})
}

func notExist(op Op, key string) error {
	return &replicate.Error{Op: string(op), Path: key, Kind: replicate.NotFound, Err: fs.ErrNotExist}
}
