package repository

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// smallDisk mounts a file system of some size.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	require.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		require.Missing(t, "the right to mount")
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}

// TestFullDisk commits to a storage on a small disk.
func TestFullDisk(t *testing.T) {
	dir := smallDisk(t, "8m")
	l := newLab(t, diskAt(t, dir))
	writeFiles(t, l.root, "a", "1")
	w, _ := l.begin(WriterOptions{})
	must(t, os.WriteFile(l.root+"/big", randomBytes(1, 9<<20), 0o644))
	_, _, err := w.Commit(t.Context(), CommitRequest{})
	if replicate.KindOf(err) != replicate.Full || replicate.HintOf(err) == "" || strings.Contains(err.Error(), dir+"/tmp") {
		t.Fatalf("%v (%s), hint %q", err, replicate.KindOf(err), replicate.HintOf(err))
	}
	must(t, os.Remove(l.root+"/big"))
	writeFiles(t, l.root, "a", "2")
	row, _ := l.commit(w, CommitRequest{})
	if l.read(row.Row, "a") != "2" {
		t.Error("the commit after that is not whole")
	}
	fill := dir + "/filling"
	must(t, os.WriteFile(fill, make([]byte, 20<<20)[:1], 0o600))
	if f, err := os.OpenFile(fill, os.O_WRONLY, 0); err == nil {
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		f.Close()
	}
	line := []byte(strings.Repeat("x", 5000) + "\n")
	if err := w.Output(line); replicate.KindOf(err) != replicate.Full {
		t.Fatal(err)
	}
	must(t, os.Remove(fill))
	must(t, w.Output([]byte("after\n")))
	must(t, w.End(t.Context(), replicate.Finished, nil))
	var text bytes.Buffer
	for _, r := range l.records() {
		if r.Stream != nil && r.Stream.Stream == OutputStream {
			must(t, l.repo.Stream([]StreamRow{*r.Stream}).WriteTo(t.Context(), &text))
		}
	}
	if text.String() != "after\n" {
		t.Errorf("a write that failed left something: %d bytes", text.Len())
	}
}

// TestReadOnlyStorage commits to a storage that became read-only.
func TestReadOnlyStorage(t *testing.T) {
	dir := smallDisk(t, "8m")
	l := newLab(t, diskAt(t, dir))
	writeFiles(t, l.root, "a", "1")
	w, _ := l.begin(WriterOptions{})
	writeFiles(t, l.root, "a", "2")
	w.streams.close() // a file open for writing keeps the disk writable
	w.own.close()
	must(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, _, err := w.Commit(t.Context(), CommitRequest{})
	if replicate.KindOf(err) != replicate.Permission || replicate.HintOf(err) == "" {
		t.Errorf("%v (%s)", err, replicate.KindOf(err))
	}
	if _, _, err := l.spool.Begin(t.Context(), replicate.Experiment{ID: l.id(), Created: time.Now()}, WriterOptions{Root: l.root}); replicate.KindOf(err) != replicate.Permission {
		t.Errorf("%v (%s)", err, replicate.KindOf(err))
	}
}

// TestOutboxLeavesRoom commits to an outbox on a disk that has not as much free as it must leave.
func TestOutboxLeavesRoom(t *testing.T) {
	dir := smallDisk(t, "1100m")
	l := newOutboxLab(t, memStore(t))
	l.spool = OpenOutbox(l.store, dir)
	l.spool.pause = hurry
	writeFiles(t, l.root, "a", "1")
	w, _ := l.begin(WriterOptions{})
	fill := dir + "/filling"
	must(t, os.WriteFile(fill, make([]byte, 40<<20), 0o600))
	writeFiles(t, l.root, "a", "2")
	_, _, err := w.Commit(t.Context(), CommitRequest{})
	if replicate.KindOf(err) != replicate.Full || replicate.HintOf(err) == "" {
		t.Fatalf("%v (%s), hint %q", err, replicate.KindOf(err), replicate.HintOf(err))
	}
	must(t, w.Log(Point{Step: 1, Time: time.Now()}))
	must(t, os.Remove(fill))
	row, _ := l.commit(w, CommitRequest{})
	must(t, w.End(t.Context(), replicate.Finished, nil))
	_, err = l.spool.Upload(t.Context())
	must(t, err)
	if found := l.commits(); len(found) != 1 || l.read(found[row.ID].Row, "a") != "2" {
		t.Errorf("found %v", found)
	}
}
