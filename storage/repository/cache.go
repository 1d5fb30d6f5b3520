package repository

import (
	"container/list"
	"context"
	"sync"
)

// A cache keeps the values used last within a budget, and has each value made once however many ask for it at the same time.
type cache[K comparable, V any] struct {
	budget int64
	free   func(V) // if set, told of values that are neither kept nor in use any more

	mu      sync.Mutex // guards entries, recent, cost and what changes of an entry
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
	element *list.Element // nil while it is being made, and once it is not kept any more
	users   int           // claims that were not released
	unread  int64         // if set, it is kept only until so many bytes of it were read
}

func newCache[K comparable, V any](budget int64) *cache[K, V] {
	return &cache[K, V]{budget: budget, entries: map[K]*entry[K, V]{}}
}

// find returns the entry of a key if there is one, as claim does.
func (c *cache[K, V]) find(key K) *entry[K, V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.use(key)
}

// use is find. c.mu is held.
func (c *cache[K, V]) use(key K) *entry[K, V] {
	e := c.entries[key]
	if e == nil {
		return nil
	}
	if e.users++; e.element != nil {
		c.recent.MoveToFront(e.element)
	}
	return e
}

// claim returns the entry of a key. If mine, nobody has begun to make the value, and the caller must see to it that fulfil
// is called. In a cache that frees its values the caller also sees to it that the entry is released, twice if it is mine: once by who makes the
// value, once by who reads it. What is never released is left to the garbage collector.
func (c *cache[K, V]) claim(key K) (e *entry[K, V], mine bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.use(key); e != nil {
		return e, false
	}
	e = &entry[K, V]{key: key, ready: make(chan struct{}), users: 2}
	c.entries[key] = e
	return e, true
}

// release gives back a claim, of an entry of which so many bytes were read. The value must not be used any more.
func (c *cache[K, V]) release(e *entry[K, V], read int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	switch {
	case e.element == nil:
		c.maybeFree(e)
	case e.unread > 0:
		if e.unread -= read; e.unread <= 0 {
			c.drop(e.element)
		}
	}
}

// maybeFree frees the value of an entry that is not kept, unless it is in use. c.mu is held.
func (c *cache[K, V]) maybeFree(e *entry[K, V]) {
	if e.users == 0 && c.free != nil {
		c.free(e.value)
	}
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
	e.element = nil
	c.maybeFree(e)
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
