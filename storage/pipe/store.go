package pipe

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strings"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// A Store is the store at the other end of a stream. Put and Delete are refused.
type Store struct {
	url  string
	conn io.ReadWriteCloser

	sending sync.Mutex // held while a request is written

	mu      sync.Mutex // guards the rest
	last    uint64
	waiting map[uint64]chan *answer
	err     error // why nothing more comes
}

// Open returns the store that is served at the other end of conn, which Close closes. url is how errors call it.
func Open(conn io.ReadWriteCloser, url string) *Store {
	s := &Store{url: url, conn: conn, waiting: map[uint64]chan *answer{}}
	go s.receive()
	return s
}

// Close closes the connection. Calls under way fail.
func (s *Store) Close() error { return s.conn.Close() }

// URL is what Open was given.
func (s *Store) URL() string { return s.url }

// receive hands out answers until the connection ends.
func (s *Store) receive() {
	r := newReader(s.conn)
	for {
		a, err := readAnswer(r)
		s.mu.Lock()
		if err != nil {
			s.err = &replicate.Error{Op: "read", Path: s.url, Kind: replicate.Unavailable, Err: ended(err)}
			for _, to := range s.waiting {
				close(to)
			}
			s.waiting = nil
			s.mu.Unlock()
			return
		}
		to := s.waiting[a.ID]
		delete(s.waiting, a.ID)
		s.mu.Unlock()
		if to != nil { // else whoever asked has gone
			to <- a
		}
	}
}

func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return errors.New("the other side has closed the connection")
	}
	return err
}

// start sends a request. Its answer comes from the channel, which is closed without one when the connection ends.
func (s *Store) start(q request) (<-chan *answer, uint64, error) {
	to := make(chan *answer, 1)
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return nil, 0, s.err
	}
	s.last++
	q.ID = s.last
	s.waiting[q.ID] = to
	s.mu.Unlock()
	line, err := json.Marshal(q)
	if err == nil {
		s.sending.Lock()
		_, err = s.conn.Write(append(line, '\n'))
		s.sending.Unlock()
	}
	if err != nil {
		s.forget(q.ID)
		return nil, 0, &replicate.Error{Op: "ask", Path: s.url, Kind: replicate.Unavailable, Err: err}
	}
	return to, q.ID, nil
}

func (s *Store) forget(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.waiting, id)
}

// await waits for the answer to a request.
func (s *Store) await(ctx context.Context, from <-chan *answer, id uint64) ([]byte, error) {
	select {
	case <-ctx.Done():
		s.forget(id)
		return nil, ctx.Err()
	case a, ok := <-from:
		if !ok {
			s.mu.Lock()
			defer s.mu.Unlock()
			return nil, s.err
		}
		return a.data, a.err()
	}
}

func (s *Store) ask(ctx context.Context, q request) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	from, id, err := s.start(q)
	if err != nil {
		return nil, err
	}
	return s.await(ctx, from, id)
}

// askFor asks for a document.
func (s *Store) askFor(ctx context.Context, q request, document any) error {
	data, err := s.ask(ctx, q)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, document); err != nil {
		return replicate.Errorf(replicate.Corrupt, "the answer to %s is no document: %w", q.Op, err)
	}
	return nil
}

// Stat returns an object without its bytes.
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := storage.CheckKey(key); err != nil {
		return storage.Object{}, err
	}
	var o object
	err := s.askFor(ctx, request{Op: opStat, Key: key}, &o)
	if err == nil && o.Key != key {
		err = replicate.Errorf(replicate.Corrupt, "asked for %s, told of %q", key, o.Key)
	}
	return storage.Object(o), err
}

// Now returns the clock of the store.
func (s *Store) Now(ctx context.Context) (t time.Time, err error) {
	err = s.askFor(ctx, request{Op: opNow}, &t)
	return t, err
}

// List yields the objects whose key begins with prefix and is greater than after, page by page. Keys that are none, and such as are out of order, are an
// error.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		after := after
		for more := true; more; {
			var page []object
			if err := s.askFor(ctx, request{Op: opList, Key: prefix, After: after}, &page); err != nil {
				yield(storage.Object{}, err)
				return
			}
			more = len(page) >= pageSize
			for _, o := range page {
				if storage.CheckKey(o.Key) != nil || !strings.HasPrefix(o.Key, prefix) || o.Key <= after || o.Size < 0 {
					yield(storage.Object{}, replicate.Errorf(replicate.Corrupt, "the listing has %.100q behind %q", o.Key, after))
					return
				}
				after = o.Key
				if !yield(storage.Object(o), nil) {
					return
				}
			}
		}
	}
}

// Put is refused.
func (s *Store) Put(context.Context, string, io.ReadSeeker, int64) (time.Time, error) {
	return time.Time{}, s.readOnly()
}

// Delete is refused.
func (s *Store) Delete(context.Context, ...string) error { return s.readOnly() }

func (s *Store) readOnly() error {
	return replicate.Errorf(replicate.Permission, "%s is for reading", s.url)
}
