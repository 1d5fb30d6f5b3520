package repository

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// dice is randomness that decides for a merge without a delay, or against one.
func dice(wanted bool) *bytes.Reader {
	thrown := make([]byte, 8)
	if !wanted {
		thrown[0] = 1
	}
	return bytes.NewReader(thrown)
}

// crowded is a repository with as many objects of new records as make a merge due.
func crowded(t *testing.T, b *builder) map[string]bool {
	t.Helper()
	for range manyLogs {
		b.log(b.commit(Row{Before: b.now}))
	}
	return linesOf(t, b.repo)
}

// TestMergeLater has somebody who sees a crowd want a merge if the dice say so, and somebody else do it.
func TestMergeLater(t *testing.T) {
	b := newBuilder(t, memStore(t))
	if linesOf(t, b.repo); b.repo.MergeWanted(dice(true)) {
		t.Error("a merge of nothing is wanted")
	}
	want := crowded(t, b)
	if b.repo.MergeWanted(dice(false)) || !b.repo.MergeWanted(dice(true)) {
		t.Error("the dice do not decide")
	}
	if err := b.repo.MergeLater(t.Context(), dice(true)); err != nil {
		t.Fatal(err)
	}
	if n := len(storagetest.Keys(t, b.store, logPrefix, "")); n != 0 {
		t.Errorf("%d of %d objects are left", n, manyLogs)
	}
	if got := linesOf(t, b.repo); !maps.Equal(got, want) {
		t.Errorf("%d records of %d", len(got), len(want))
	}
}

// TestMergeIsLeftToTheOwner has root look at the repository of somebody else, who could not read what root writes.
func TestMergeIsLeftToTheOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		require.Missing(t, "root")
	}
	dir := t.TempDir()
	store, err := disk.New(dir)
	must(t, err)
	b := newBuilder(t, store)
	crowded(t, b)
	if !b.repo.MergeWanted(dice(true)) {
		t.Error("the owner wants no merge")
	}
	must(t, os.Chown(filepath.Join(dir, "log"), 65534, 65534))
	if b.repo.MergeWanted(dice(true)) {
		t.Error("root wants one")
	}
}
