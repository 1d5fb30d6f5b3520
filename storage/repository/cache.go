package repository

import (
	"container/list"
	"context"
	"sync"
)

// A cache keeps the values used last within a budget, and has each value made once however many ask for it at the same time.
type cache[K comparable, V any] struct {
	budget int64

	mu      sync.Mutex // guards entries, recent, cost and the element of every entry
	entries map[K]*entry[K, V]
	recent  list.List // of *entry, those that are made; the one used last in front
	cost    int64
}

// An entry is a value that is there or being made.
type entry[K comparable, V any] struct {
	key     K
	ready   chan struct{} // closed when value and err are set
	value   V
	err     error
	cost    int64
	element *list.Element // nil while it is being made
}

func newCache[K comparable, V any](budget int64) *cache[K, V] {
	return &cache[K, V]{budget: budget, entries: map[K]*entry[K, V]{}}
}

// claim returns the entry of a key. If mine, nobody has begun to make the value, and the caller must see to it that fulfil
// is called.
func (c *cache[K, V]) claim(key K) (e *entry[K, V], mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil {
		if e.element != nil {
			c.recent.MoveToFront(e.element)
		}
		return e, false
	}
	e = &entry[K, V]{key: key, ready: make(chan struct{})}
	c.entries[key] = e
	return e, true
}

// fulfil hands a value to all who wait for it. It is kept only if there is no error and its cost is above 0.
func (c *cache[K, V]) fulfil(e *entry[K, V], value V, cost int64, err error) {
	e.value, e.err, e.cost = value, err, cost
	c.mu.Lock()
	if err != nil || cost <= 0 || cost > c.budget {
		delete(c.entries, e.key)
	} else {
		e.element = c.recent.PushFront(e)
		c.cost += cost
		for c.cost > c.budget {
			c.drop(c.recent.Back())
		}
	}
	c.mu.Unlock()
	close(e.ready)
}

// drop forgets an entry. c.mu is held.
func (c *cache[K, V]) drop(element *list.Element) {
	e := c.recent.Remove(element).(*entry[K, V])
	delete(c.entries, e.key)
	c.cost -= e.cost
}

// wait returns the value once it is made.
func (e *entry[K, V]) wait(ctx context.Context) (V, error) {
	select {
	case <-e.ready:
		return e.value, e.err
	default:
	}
	select {
	case <-e.ready:
		return e.value, e.err
	case <-ctx.Done():
		var none V
		return none, ctx.Err()
	}
}

// get returns the value of a key, made by load if it is not there. load goes on when ctx is cancelled, as others may wait for
// the value too.
func (c *cache[K, V]) get(ctx context.Context, key K, load func(context.Context) (V, int64, error)) (V, error) {
	e, mine := c.claim(key)
	if mine {
		go func() {
			value, cost, err := load(context.WithoutCancel(ctx))
			c.fulfil(e, value, cost, err)
		}()
	}
	return e.wait(ctx)
}
