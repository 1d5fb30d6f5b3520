// Package mem keeps objects in memory: the storage of URLs mem://name, for tests.
//
// Within one process, all stores opened with one name are the same. It knows nothing of what the bytes mean.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// A Store keeps objects in memory. A listing is a snapshot of the moment it began, which no other store promises.
type Store struct {
	name string
	now  func() time.Time

	mu      sync.Mutex // guards objects
	objects map[string]object
}

type object struct {
	data []byte // never changed
	time time.Time
}

var _ storage.Store = (*Store)(nil)

var (
	openMu sync.Mutex // guards opened
	opened = map[string]*Store{}
)

func init() {
	storage.Register("mem", func(_ context.Context, u *url.URL) (storage.Store, error) {
		openMu.Lock()
		defer openMu.Unlock()
		name := u.Host + u.Path
		if opened[name] == nil {
			opened[name] = New(name, time.Now)
		}
		return opened[name], nil
	})
}

// New returns an empty store with a clock, which is called with no lock held. Open does not find it.
func New(name string, now func() time.Time) *Store {
	return &Store{name: name, now: now, objects: map[string]object{}}
}

// URL returns mem:// and the name.
func (s *Store) URL() string { return "mem://" + s.name }

// Get reads a part of an object.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	o, err := s.find(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	data := o.data[min(off, int64(len(o.data))):]
	if n >= 0 {
		data = data[:min(n, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

// Put stores an object.
func (s *Store) Put(ctx context.Context, key string, body io.ReadSeeker, n int64) (time.Time, error) {
	if err := storage.CheckKey(key); err != nil {
		return time.Time{}, s.failed("put", key, err)
	}
	if _, err := body.Seek(0, io.SeekStart); err != nil {
		return time.Time{}, s.failed("put", key, err)
	}
	data := make([]byte, n)
	if got, err := io.ReadFull(body, data); err == io.EOF || err == io.ErrUnexpectedEOF {
		return time.Time{}, s.failed("put", key, fmt.Errorf("want %d bytes, got %d: %w", n, got, io.ErrUnexpectedEOF))
	} else if err != nil {
		return time.Time{}, s.failed("put", key, err)
	}
	if err := ctx.Err(); err != nil {
		return time.Time{}, s.failed("put", key, err)
	}
	o := object{data, s.now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.objects[key] = o
	return o.time, nil
}

// List yields the objects that are there when it begins.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		for _, o := range s.snapshot(prefix, after) {
			if err := ctx.Err(); err != nil {
				yield(storage.Object{}, s.failed("list", prefix, err))
				return
			}
			if !yield(o, nil) {
				return
			}
		}
	}
}

func (s *Store) snapshot(prefix, after string) []storage.Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []storage.Object
	for key, o := range s.objects {
		if strings.HasPrefix(key, prefix) && key > after {
			list = append(list, storage.Object{Key: key, Size: int64(len(o.data)), Time: o.time})
		}
	}
	slices.SortFunc(list, func(a, b storage.Object) int { return strings.Compare(a.Key, b.Key) })
	return list
}

// Stat returns an object without its bytes.
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	o, err := s.find(ctx, "stat", key)
	if err != nil {
		return storage.Object{}, err
	}
	return storage.Object{Key: key, Size: int64(len(o.data)), Time: o.time}, nil
}

// Delete removes objects.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if err := ctx.Err(); err != nil {
		return s.failed("delete", "", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		delete(s.objects, key)
	}
	return nil
}

// Now returns the clock given to New.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, s.failed("read the clock of", "", err)
	}
	return s.now(), nil
}

func (s *Store) find(ctx context.Context, op, key string) (object, error) {
	if err := ctx.Err(); err != nil {
		return object{}, s.failed(op, key, err)
	}
	s.mu.Lock()
	o, ok := s.objects[key]
	s.mu.Unlock()
	if !ok {
		return object{}, s.failed(op, key, fs.ErrNotExist)
	}
	return o, nil
}

func (s *Store) failed(op, key string, err error) error {
	return &replicate.Error{Op: op, Path: s.URL() + "/" + key, Kind: replicate.KindOf(err), Err: err}
}
