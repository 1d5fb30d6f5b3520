package recorder

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// TestFullDisk fills the disk under a running experiment: commits are refused by name, points wait, and both go on when there is room.
func TestFullDisk(t *testing.T) {
	require.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		require.Missing(t, "the right to mount a tmpfs")
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	write(t, filepath.Join(dir, "replicate.yaml"), "")
	write(t, filepath.Join(dir, "train.py"), "print(1)\n")
	r := start(t, dir)
	id := r.init(map[string]any{"path": "train.py"})
	before := r.call("commit", map[string]any{"step": 0})["commit"].(string)

	junk := filepath.Join(dir, "junk")
	fill(t, junk)
	if err := r.client.Call("commit", map[string]any{"step": 1}, nil); replicate.KindOf(err) != replicate.Full {
		t.Errorf("commit on a full disk: %v (%s)", err, replicate.KindOf(err))
	}
	large := string(bytes.Repeat([]byte("x"), 5000)) // more than what is left of the stream's last block
	for i := range 10 {
		if err := r.client.Post("log", map[string]any{"step": 10 + i, "metrics": map[string]any{"loss": i, "text": large}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.client.Call("commit", nil, nil); replicate.KindOf(err) != replicate.Full {
		t.Errorf("another commit on a full disk: %v", err)
	}
	if err := os.Remove(junk); err != nil {
		t.Fatal(err)
	}
	r.call("commit", map[string]any{"step": 20})
	r.call("end", nil)
	r.close()
	s := recorded(t, dir, id)
	if len(s.commits) != 2 || string(s.newest().Parent) != before || s.row.Status != replicate.Finished {
		t.Errorf("%s, commits: %+v", s.row.Status, s.commits)
	}
	if got := points(t, dir, id); len(got) != 10 {
		t.Errorf("%d points of 10", len(got))
	}
	if len(r.remarks) == 0 {
		t.Error("nobody was warned")
	}
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 16; size > 0; {
		if _, err := f.Write(make([]byte, size)); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestReadOnlyStorage(t *testing.T) {
	require.Root(t)
	dir := newProject(t)
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		require.Missing(t, "the right to mount")
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		require.Missing(t, "the right to mount read-only")
	}
	r := start(t, dir)
	err := r.client.Call("init", map[string]any{"cwd": dir}, nil)
	if kind := replicate.KindOf(err); kind != replicate.Permission {
		t.Errorf("got %v (%s)", err, kind)
	}
	r.close()
}
