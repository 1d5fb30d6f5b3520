package storagetest

import (
	"context"
	"io"
	"iter"
	"sync"
	"time"

	"github.com/replicate/replicate/storage"
)

// An Op is a method of storage.Store or storage.Local that does something.
type Op string

// The ops, by the names of their methods.
const (
	OpGet    Op = "get"
	OpPut    Op = "put"
	OpList   Op = "list"
	OpStat   Op = "stat"
	OpDelete Op = "delete"
	OpNow    Op = "now"
	OpAdopt  Op = "adopt"
)

// A Call is one call of a Store.
type Call struct {
	Op   Op
	Keys []string // one, or those of a Delete, or the prefix of a List, or none for Now
	N    int      // 1 for the store's first call of this Op
	Sum  int      // 1 for its first call at all
}

// Key returns the first key, "" if there is none.
func (c Call) Key() string {
	if len(c.Keys) == 0 {
		return ""
	}
	return c.Keys[0]
}

// Hooks change what a store does. Any may be nil. They are called from the goroutine of the call, with no lock held.
type Hooks struct {
	// Before runs before a call takes effect; an error makes it fail and have none.
	Before func(context.Context, Call) error
	// After runs when a call has taken effect without error: for Get when half of the bytes were read, for List when half of the
	// objects were listed. An error makes the call fail.
	After func(context.Context, Call) error
	// Data returns what a reader gets in place of data, which was asked for as n bytes from off.
	Data func(c Call, data []byte, off, n int64) []byte
	// Object returns what Stat and List show in place of an object, and whether they show it at all.
	Object func(storage.Object) (storage.Object, bool)
	// List returns the whole sorted listing in place of the objects.
	List func(prefix, after string, objects []storage.Object) []storage.Object
	// Path returns what a Local store's Path returns in place of path.
	Path func(key, path string) string
}

// Wrap returns s with hooks. If s is a storage.Local, so is what is returned.
func Wrap(s storage.Store, h Hooks) storage.Store {
	w := &wrapper{Store: s, hooks: h, counts: map[Op]int{}}
	if l, ok := s.(storage.Local); ok {
		return &localWrapper{w, l}
	}
	return w
}

type wrapper struct {
	storage.Store
	hooks Hooks

	mu     sync.Mutex // guards counts
	counts map[Op]int // "" counts all
}

type localWrapper struct {
	*wrapper
	local storage.Local
}

var _ storage.Local = (*localWrapper)(nil)

func (w *wrapper) before(ctx context.Context, op Op, keys ...string) (Call, error) {
	w.mu.Lock()
	w.counts[op]++
	w.counts[""]++
	c := Call{op, keys, w.counts[op], w.counts[""]}
	w.mu.Unlock()
	if w.hooks.Before == nil {
		return c, nil
	}
	return c, w.hooks.Before(ctx, c)
}

func (w *wrapper) after(ctx context.Context, c Call, err error) error {
	if err != nil || w.hooks.After == nil {
		return err
	}
	return w.hooks.After(ctx, c)
}

func (w *wrapper) object(o storage.Object) (storage.Object, bool) {
	if w.hooks.Object == nil {
		return o, true
	}
	return w.hooks.Object(o)
}

func (w *wrapper) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	c, err := w.before(ctx, OpGet, key)
	if err != nil {
		return nil, err
	}
	r, err := w.Store.Get(ctx, key, off, n)
	if err != nil || w.hooks.Data == nil && w.hooks.After == nil {
		return r, err
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	if w.hooks.Data != nil {
		data = w.hooks.Data(c, data, off, n)
	}
	return &halfReader{data: data, rest: data, after: func() error { return w.after(ctx, c, nil) }}, nil
}

// A halfReader calls after when half of data was read, and fails if that does.
type halfReader struct {
	data, rest []byte
	after      func() error
	called     bool
}

func (r *halfReader) Read(p []byte) (int, error) {
	half := len(r.data) - len(r.data)/2 // of the rest: reading stops here once
	if len(r.rest) > half {
		p = p[:min(len(p), len(r.rest)-half)]
	} else if !r.called {
		r.called = true
		if err := r.after(); err != nil {
			return 0, err
		}
	}
	if len(r.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *halfReader) Close() error { return nil }

func (w *wrapper) Put(ctx context.Context, key string, body io.ReadSeeker, n int64) (time.Time, error) {
	c, err := w.before(ctx, OpPut, key)
	if err != nil {
		return time.Time{}, err
	}
	t, err := w.Store.Put(ctx, key, body, n)
	return t, w.after(ctx, c, err)
}

func (w *wrapper) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		c, err := w.before(ctx, OpList, prefix)
		if err != nil {
			yield(storage.Object{}, err)
			return
		}
		objects, err := w.listed(ctx, prefix, after)
		for i, o := range objects {
			if i == len(objects)/2 && err == nil {
				if err := w.after(ctx, c, nil); err != nil {
					yield(storage.Object{}, err)
					return
				}
			}
			if !yield(o, nil) {
				return
			}
		}
		if len(objects) == 0 {
			err = w.after(ctx, c, err)
		}
		if err != nil {
			yield(storage.Object{}, err)
		}
	}
}

// listed returns what is to be listed, up to an error.
func (w *wrapper) listed(ctx context.Context, prefix, after string) ([]storage.Object, error) {
	var objects []storage.Object
	var failed error
	for o, err := range w.Store.List(ctx, prefix, after) {
		if err != nil {
			failed = err
			break
		}
		objects = append(objects, o)
	}
	if w.hooks.List != nil {
		objects = w.hooks.List(prefix, after, objects)
	}
	shown := objects[:0]
	for _, o := range objects {
		if o, show := w.object(o); show {
			shown = append(shown, o)
		}
	}
	return shown, failed
}

func (w *wrapper) Stat(ctx context.Context, key string) (storage.Object, error) {
	c, err := w.before(ctx, OpStat, key)
	if err != nil {
		return storage.Object{}, err
	}
	o, err := w.Store.Stat(ctx, key)
	if err := w.after(ctx, c, err); err != nil {
		return storage.Object{}, err
	}
	o, show := w.object(o)
	if !show {
		return storage.Object{}, notExist(OpStat, key)
	}
	return o, nil
}

func (w *wrapper) Delete(ctx context.Context, keys ...string) error {
	c, err := w.before(ctx, OpDelete, keys...)
	if err != nil {
		return err
	}
	return w.after(ctx, c, w.Store.Delete(ctx, keys...))
}

func (w *wrapper) Now(ctx context.Context) (time.Time, error) {
	c, err := w.before(ctx, OpNow)
	if err != nil {
		return time.Time{}, err
	}
	t, err := w.Store.Now(ctx)
	return t, w.after(ctx, c, err)
}

func (w *localWrapper) Dir() string { return w.local.Dir() }

func (w *localWrapper) Path(key string) string {
	path := w.local.Path(key)
	if w.hooks.Path != nil {
		path = w.hooks.Path(key, path)
	}
	return path
}

func (w *localWrapper) Adopt(ctx context.Context, key, path string) (time.Time, error) {
	c, err := w.before(ctx, OpAdopt, key)
	if err != nil {
		return time.Time{}, err
	}
	t, err := w.local.Adopt(ctx, key, path)
	return t, w.after(ctx, c, err)
}
