package pipe

import (
	"context"
	"encoding/json"
	"io"
	"sync"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// servedAtOnce is how many requests are carried out side by side.
const servedAtOnce = 8

// Serve answers requests about a store until in ends, which is no error.
func Serve(ctx context.Context, store storage.Store, in io.Reader, out io.Writer) error {
	s := &server{store: store, out: out}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var working sync.WaitGroup
	defer working.Wait()
	places := make(chan struct{}, servedAtOnce)
	for r := newReader(in); ; {
		line, err := readLine(r)
		if err == io.EOF {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		var q request
		if err := json.Unmarshal(line, &q); err != nil {
			return replicate.Errorf(replicate.Corrupt, "%.100q is no request", line)
		}
		places <- struct{}{}
		working.Go(func() {
			defer func() { <-places }()
			if err := s.answer(ctx, &q); err != nil {
				cancel(err) // nobody reads any more
			}
		})
	}
}

type server struct {
	store storage.Store
	mu    sync.Mutex // held while an answer is written
	out   io.Writer
}

func (s *server) answer(ctx context.Context, q *request) error {
	a := answer{ID: q.ID}
	var err error
	switch q.Op {
	case opGet:
		a.data, err = s.get(ctx, q)
	case opList:
		a.data, err = s.list(ctx, q)
	case opStat:
		var o storage.Object
		if o, err = s.store.Stat(ctx, q.Key); err == nil {
			a.data, err = json.Marshal(object(o))
		}
	case opNow:
		t, failed := s.store.Now(ctx)
		if err = failed; err == nil {
			a.data, err = json.Marshal(t)
		}
	default:
		err = replicate.Errorf(replicate.Usage, "unknown request %q", q.Op)
	}
	if err != nil {
		a = refusal(q.ID, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return a.write(s.out)
}

func (s *server) get(ctx context.Context, q *request) ([]byte, error) {
	if q.Off < 0 || q.N < 0 || q.N > pieceSize {
		return nil, replicate.Errorf(replicate.Usage, "%d bytes from %d are no piece", q.N, q.Off)
	}
	r, err := s.store.Get(ctx, q.Key, q.Off, q.N)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// list returns a page. One that is not full is the last.
func (s *server) list(ctx context.Context, q *request) ([]byte, error) {
	page := []object{}
	for o, err := range s.store.List(ctx, q.Key, q.After) {
		if err != nil {
			return nil, err
		}
		if page = append(page, object(o)); len(page) == pageSize {
			break
		}
	}
	return json.Marshal(page)
}
