package storagetest

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/replicate/replicate/storage"
)

// Late returns s with listings that lag behind: each shows each key as it was at some moment between bound ago and now, a moment of
// its own. Gets and Stats are true. It knows only the changes that are made through it, so all who share s must share it.
// random decides, and its seed makes a run repeatable; now should be the clock of s.
func Late(s storage.Store, bound time.Duration, now func() time.Time, random *rand.Rand) storage.Store {
	l := &late{store: s, bound: bound, now: now, random: random, changes: map[string][]change{}}
	return Wrap(s, Hooks{Before: l.note, List: l.list})
}

type late struct {
	store storage.Store
	bound time.Duration
	now   func() time.Time

	mu      sync.Mutex // guards random and changes
	random  *rand.Rand
	changes map[string][]change // by key, in order
}

// A change is what a key held until a moment.
type change struct {
	until  time.Time
	object storage.Object
	there  bool
}

// note remembers what keys hold before they change.
func (l *late) note(ctx context.Context, c Call) error {
	if c.Op != OpPut && c.Op != OpAdopt && c.Op != OpDelete {
		return nil
	}
	for _, key := range c.Keys {
		o, err := l.store.Stat(context.WithoutCancel(ctx), key)
		at := l.now()
		l.mu.Lock()
		l.changes[key] = append(l.changes[key], change{at, o, err == nil})
		l.mu.Unlock()
	}
	return nil
}

// list returns objects with some of the changes that are younger than the bound undone.
func (l *late) list(prefix, after string, objects []storage.Object) []storage.Object {
	now := l.now()
	l.mu.Lock()
	defer l.mu.Unlock()
	shown := map[string]storage.Object{}
	for _, o := range objects {
		shown[o.Key] = o
	}
	for _, key := range l.keys(prefix, after) {
		seen := now.Add(-time.Duration(l.random.Float64() * float64(l.bound)))
		for _, c := range l.changes[key] {
			if !c.until.After(seen) {
				continue
			}
			if c.there {
				shown[key] = c.object
			} else {
				delete(shown, key)
			}
			break
		}
	}
	list := objects[:0:0]
	for _, o := range shown {
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b storage.Object) int { return strings.Compare(a.Key, b.Key) })
	return list
}

// keys returns the changed keys of a listing, sorted, so that random decides the same each time.
func (l *late) keys(prefix, after string) []string {
	var keys []string
	for key := range l.changes {
		if strings.HasPrefix(key, prefix) && key > after {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}
