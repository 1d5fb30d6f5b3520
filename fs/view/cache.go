package view

import (
	"container/list"
	"errors"
	"sync"
	"sync/atomic"
)

// A cache keeps what was computed lately, up to a total weight. One goroutine computes a value while the others that want it
// wait; nobody waits for another key.
type cache[K comparable, V any] struct {
	limit int64

	mu    sync.Mutex // guards the rest; never held while something is computed
	used  int64
	items map[K]*list.Element // of *cached[K, V]
	order list.List           // least recently used first
}

type cached[K comparable, V any] struct {
	key    K
	once   sync.Once
	done   atomic.Bool
	value  V
	err    error
	weight int64 // guarded by cache.mu
}

func newCache[K comparable, V any](limit int64) *cache[K, V] {
	return &cache[K, V]{limit: limit, items: make(map[K]*list.Element)}
}

// get returns the value of a key, made by load if need be. Errors are not kept.
func (c *cache[K, V]) get(key K, load func() (value V, weight int64, err error)) (V, error) {
	item := c.item(key)
	item.once.Do(func() {
		var weight int64
		item.err = errPanic
		defer func() {
			item.done.Store(true)
			c.weigh(item, weight)
		}()
		item.value, weight, item.err = load()
	})
	return item.value, item.err
}

// errPanic is what the others get when whoever computed the value panicked.
var errPanic = errors.New("panic while this was computed")

// peek returns the value of a key if it is there.
func (c *cache[K, V]) peek(key K) (value V, ok bool) {
	c.mu.Lock()
	e := c.items[key]
	if e != nil {
		c.order.MoveToBack(e)
	}
	c.mu.Unlock()
	if e == nil {
		return value, false
	}
	item := e.Value.(*cached[K, V])
	if !item.done.Load() || item.err != nil {
		return value, false
	}
	return item.value, true
}

func (c *cache[K, V]) item(key K) *cached[K, V] {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.items[key]; e != nil {
		c.order.MoveToBack(e)
		return e.Value.(*cached[K, V])
	}
	item := &cached[K, V]{key: key}
	c.items[key] = c.order.PushBack(item)
	return item
}

// weigh accounts for a value that was just made, and makes room. The value itself stays, however heavy.
func (c *cache[K, V]) weigh(item *cached[K, V], weight int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if item.err != nil {
		c.remove(c.items[item.key])
		return
	}
	item.weight = weight
	c.used += weight
	for e := c.order.Front(); e != nil && c.used > c.limit; {
		next := e.Next()
		if old := e.Value.(*cached[K, V]); old != item && old.done.Load() {
			c.remove(e)
		}
		e = next
	}
}

func (c *cache[K, V]) remove(e *list.Element) {
	if e == nil {
		return
	}
	old := c.order.Remove(e).(*cached[K, V])
	delete(c.items, old.key)
	c.used -= old.weight
}
