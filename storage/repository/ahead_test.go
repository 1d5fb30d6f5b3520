package repository

import (
	"bytes"
	"context"
	"iter"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/mem"
)

// A listed store counts its listings, and makes those of one prefix wait.
type listed struct {
	storage.Store
	lists  atomic.Int64
	slow   string
	answer chan struct{}
}

func (s *listed) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	s.lists.Add(1)
	return func(yield func(storage.Object, error) bool) {
		if prefix == s.slow {
			<-s.answer
		}
		s.Store.List(ctx, prefix, after)(yield)
	}
}

func keys(t *testing.T, s storage.Store, prefix string) (names string) {
	t.Helper()
	for o, err := range s.List(t.Context(), prefix, "") {
		if err != nil {
			t.Fatal(err)
		}
		names += o.Key + " "
	}
	return names
}

func TestListingsAreBegunAhead(t *testing.T) {
	base := mem.New("ahead", time.Now)
	put := func(key string) {
		t.Helper()
		if _, err := base.Put(t.Context(), key, bytes.NewReader(nil), 0); err != nil {
			t.Fatal(err)
		}
	}
	put("log/a")
	put("live/a")
	s := &listed{Store: base}
	a := Ahead(t.Context(), s)
	<-a.(*ahead).lists[livePrefix].done
	<-a.(*ahead).lists[logPrefix].done
	a.(*ahead).lists[logPrefix].answered = a.(*ahead).beats.answered // in the order that counts
	put("log/b")
	if got := keys(t, a, "live/") + keys(t, a, "log/"); got != "live/a log/a " || s.lists.Load() != 2 {
		t.Errorf("%q, %d listings", got, s.lists.Load())
	}
	if got := keys(t, a, "log/"); got != "log/a log/b " || s.lists.Load() != 3 {
		t.Errorf("the second time: %q, %d listings", got, s.lists.Load())
	}
}

// TestRecordsAreNotOlderThanHeartbeats has heartbeats answered last: records are listed again.
func TestRecordsAreNotOlderThanHeartbeats(t *testing.T) {
	base := mem.New("ahead", time.Now)
	s := &listed{Store: base, slow: livePrefix, answer: make(chan struct{})}
	a := Ahead(t.Context(), s)
	<-a.(*ahead).lists[logPrefix].done
	if _, err := base.Put(t.Context(), "log/end", strings.NewReader(""), 0); err != nil {
		t.Fatal(err)
	}
	a.(*ahead).lists[logPrefix].answered = time.Now().Add(-sameMoment)
	close(s.answer)
	if got := keys(t, a, "log/"); got != "log/end " {
		t.Errorf("%q", got)
	}
}
