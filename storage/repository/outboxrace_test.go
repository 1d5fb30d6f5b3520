package repository

import (
	"context"
	"crypto/rand"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/mem"
)

// TestOutboxIsMadeBySeveralAtOnce begins experiments in an outbox that nobody has made yet, all at the same time.
func TestOutboxIsMadeBySeveralAtOnce(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	store := mem.New(t.Name(), time.Now)
	var all sync.WaitGroup
	for range 16 {
		id, err := replicate.NewID(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			s := OpenOutbox(store, dir)
			w, _, err := s.Begin(context.Background(), replicate.Experiment{ID: id, Created: time.Now()}, WriterOptions{Root: root})
			if err == nil {
				err = w.End(context.Background(), replicate.Finished, nil)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
}
