package repository

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/replicate/replicate"
)

// TestCheckoutIsKnownToTheNextExperiment goes back to a commit that nothing in the project reminds of, and begins an experiment there.
func TestCheckoutIsKnownToTheNextExperiment(t *testing.T) {
	for name, tt := range map[string]struct {
		dir    string // below the project
		change bool   // a file of the checkout, before the experiment begins
	}{
		"root":         {"", false},
		"folder":       {"old/files", false},
		"then changed": {"", true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, diskStore(t))
			writeFiles(t, l.root, "train.py", "print()\n", "data/x", "1", "empty", "")
			for i := range uint64(maxBases + 2) { // of one size: which of them a file is like is told by its path
				writeFiles(t, l.root, fmt.Sprintf("ckpt/%d", i), string(randomBytes(i+1, 12<<20)))
			}
			l.settle()
			old, _ := l.begin(WriterOptions{})
			row, _ := l.commit(old, CommitRequest{Step: replicate.NoStep})
			must(t, old.End(t.Context(), replicate.Finished, nil))
			for _, path := range []string{"train.py", "data", "empty", "ckpt"} {
				must(t, os.RemoveAll(filepath.Join(l.root, path)))
			}
			other, _ := l.begin(WriterOptions{}) // the stat cache forgets
			must(t, other.End(t.Context(), replicate.Finished, nil))

			tree, err := l.repo.Tree(t.Context(), row.Row)
			must(t, err)
			dir := filepath.Join(l.root, tt.dir)
			_, err = l.repo.Checkout(t.Context(), tree, CheckoutOptions{Dir: dir, Project: l.root})
			must(t, err)
			most := int64(64 << 10)
			if tt.change {
				f, err := os.OpenFile(dir+"/ckpt/3", os.O_WRONLY, 0)
				must(t, err)
				_, err = f.WriteAt([]byte("changed"), 6<<20)
				must(t, err)
				must(t, f.Close())
				most += 2 * maxChunk
			}
			fresh, snap := l.begin(WriterOptions{})
			if snap.Files != 9 || snap.Added > most {
				t.Errorf("%d files are stored in %d bytes", snap.Files, snap.Added)
			}
			row, _ = l.commit(fresh, CommitRequest{Step: replicate.NoStep})
			if l.read(row.Row, filepath.Join(tt.dir, "ckpt/5")) != string(randomBytes(6, 12<<20)) {
				t.Error("ckpt/5 differs")
			}
		})
	}
}

func TestCheckoutElsewhereLeavesTheStatCacheAlone(t *testing.T) {
	l := newLab(t, diskStore(t))
	writeFiles(t, l.root, "a", "1")
	l.settle()
	w, _ := l.begin(WriterOptions{})
	path := statCachePath(l.root, l.repo.ID())
	before, err := os.ReadFile(path)
	must(t, err)
	_, err = l.repo.Checkout(t.Context(), w.tree, CheckoutOptions{Dir: t.TempDir(), Project: l.root})
	must(t, err)
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, before) {
		t.Error("it was replaced", err)
	}
}
