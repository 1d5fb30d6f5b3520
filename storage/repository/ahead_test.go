package repository

import (
	"bytes"
	"context"
	"iter"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/mem"
)

// A listed store counts its listings.
type listed struct {
	storage.Store
	lists atomic.Int64
}

func (s *listed) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	s.lists.Add(1)
	return s.Store.List(ctx, prefix, after)
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
	put("log/b")
	if got := keys(t, a, "live/") + keys(t, a, "log/"); got != "live/a log/a " || s.lists.Load() != 2 {
		t.Errorf("%q, %d listings", got, s.lists.Load())
	}
	if got := keys(t, a, "log/"); got != "log/a log/b " || s.lists.Load() != 3 {
		t.Errorf("the second time: %q, %d listings", got, s.lists.Load())
	}
}
