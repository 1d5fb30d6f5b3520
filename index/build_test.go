package index

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// files returns the names in the folder of the index.
func (w *world) files() []string {
	w.Helper()
	entries, err := os.ReadDir(w.dir)
	w.must(err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestAFirstSyncThatFailsLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.must(w.repository.Append(t.Context(), encode(t, experimentRecord(replicate.Experiment{ID: id("1")}))...))
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Sync(cancelled); err == nil {
		t.Fatal("synced with a cancelled context")
	}
	w.wantFound(Query{})
	w.must(w.Close())
	if left := w.files(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	w.Index = nil
	w.reopen()
	w.sync()
	w.wantFound(Query{}, "10")
}

// TestABuilderThatDied left a file: nobody takes it for an index, and it goes away when it is old.
func TestABuilderThatDied(t *testing.T) {
	w := newWorld(t)
	left := filepath.Join(w.dir, fileName(w.repository.ID())+".123.new")
	w.must(os.WriteFile(left, []byte("half"), 0o600))
	w.add(experimentRecord(replicate.Experiment{ID: id("1")}))
	w.wantFound(Query{}, "10")
	w.must(w.Close())
	w.Index = nil
	if _, err := os.Stat(left); err != nil {
		t.Errorf("a young file may be somebody's: %v", err)
	}
	old := time.Now().Add(-abandonedAfter - time.Hour)
	w.must(os.Chtimes(left, old, old))
	w.must(os.Remove(filepath.Join(w.dir, fileName(w.repository.ID()))))
	w.reopen()
	w.sync()
	w.wantFound(Query{}, "10")
	if _, err := os.Stat(left); err == nil {
		t.Error("an old file stays for ever")
	}
}

// TestTheFirstOfTwoBuildersWins: both show the same ordinals afterwards, and everything.
func TestTheFirstOfTwoBuildersWins(t *testing.T) {
	w := newWorld(t)
	second, err := Open(t.Context(), w.dir, w.repository, w.options)
	w.must(err)
	defer second.Close()
	w.add(experimentRecord(replicate.Experiment{ID: id("1")}))
	w.must(w.repository.Append(t.Context(), encode(t, experimentRecord(replicate.Experiment{ID: id("2")}))...))
	_, err = second.Sync(t.Context())
	w.must(err)
	if second.Instance() != w.Instance() {
		t.Error("two indexes")
	}
	if _, err := second.Experiment(t.Context(), id("2")); err != nil {
		t.Error(err)
	}
	w.sync()
	w.wantFound(Query{}, "10", "20")
	w.must(w.Close())
	w.must(second.Close())
	if left := w.files(); len(left) != 1 {
		t.Errorf("files: %v", left)
	}
}
