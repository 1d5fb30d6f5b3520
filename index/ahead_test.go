package index

import (
	"context"
	"iter"
	"sync"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/repository"
)

// A turning store has something happen between its first listing of records and its first of heartbeats.
type turning struct {
	storage.Store
	records chan struct{} // closed when records were listed
	listed  sync.Once
	ended   sync.Once
	between func()
}

func (s *turning) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		if prefix == "live/" {
			<-s.records
			s.ended.Do(s.between)
		}
		s.Store.List(ctx, prefix, after)(yield)
		if prefix == "log/" {
			s.listed.Do(func() { close(s.records) })
		}
	}
}

// TestAnEndBetweenListingsIsSeen has an experiment end after records were listed ahead and before heartbeats were: it has neither then.
func TestAnEndBetweenListingsIsSeen(t *testing.T) {
	for name, known := range map[string]bool{"known": true, "new": false} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			e := id("67")
			w.beat(e)
			w.must(w.repository.Append(t.Context(), encode(t, experimentRecord(replicate.Experiment{ID: e}))...))
			if known {
				w.sync()
			}
			store := repository.Ahead(t.Context(), &turning{Store: w.store, records: make(chan struct{}), between: func() {
				w.must(w.repository.Append(t.Context(), encode(t, setRecord(e, w.now, map[string]string{"status": `"finished"`}))...))
				w.must(w.store.Delete(t.Context(), "live/"+string(e)))
			}})
			w.repository = repository.Known(store, w.repository.ID())
			w.reopen()
			w.sync()
			if got := w.status(e); got != replicate.Finished {
				t.Errorf("it is %s", got)
			}
		})
	}
}
