package disk_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// TestReadOnlyAndFull uses file systems of their own, as permissions do not stop root.
func TestReadOnlyAndFull(t *testing.T) {
	require.Root(t)
	dir := t.TempDir()
	mount := func(flags uintptr, options string) {
		t.Helper()
		if err := syscall.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
			require.Missing(t, "the right to mount: "+err.Error())
		}
	}
	mount(0, "size=64k,nr_inodes=10,mode=0700")
	defer func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	}()
	s := open(t, dir)
	storagetest.Put(t, s, "log/1", []byte("kept"))

	large := make([]byte, 1<<20)
	_, err := s.Put(t.Context(), "pack/ab/cd", bytes.NewReader(large), int64(len(large)))
	check(t, "put on a full disk", err, replicate.Full, "put "+s.Path("pack/ab/cd")+": no space left on device")
	if got := storagetest.Keys(t, s, "", ""); !slices.Equal(got, []string{"log/1"}) {
		t.Errorf("list = %q", got)
	}
	storagetest.Put(t, s, "log/2", []byte("there is room again"))

	full := false
	for i := 0; i < 10 && !full; i++ {
		f, err := os.Create(filepath.Join(dir, "tmp", strconv.Itoa(i)))
		if full = errors.Is(err, syscall.ENOSPC); err == nil {
			f.Close()
		}
	}
	now, err := s.Now(t.Context())
	if !full || err != nil || time.Since(now).Abs() > time.Minute {
		t.Errorf("on a disk that is full (%v) now = %v, %v", full, now, err)
	}

	mount(syscall.MS_REMOUNT|syscall.MS_RDONLY, "")
	_, err = s.Put(t.Context(), "log/3", strings.NewReader("x"), 1)
	check(t, "put on a read-only disk", err, replicate.Permission, "put "+s.Path("log/3")+": read-only file system")
	_, err = s.Adopt(t.Context(), "log/3", s.Path("log/2"))
	check(t, "adopt on a read-only disk", err, replicate.Permission, "put "+s.Path("log/3")+": read-only file system")
	err = s.Delete(t.Context(), "log/1")
	check(t, "delete on a read-only disk", err, replicate.Permission, "delete "+s.Path("log/1")+": read-only file system")
	if got := storagetest.Get(t, s, "log/1"); string(got) != "kept" {
		t.Errorf("got %q", got)
	}
	if now, err := s.Now(t.Context()); err != nil || time.Since(now).Abs() > time.Minute {
		t.Errorf("now = %v, %v", now, err)
	}
}

// storageDir makes the test binary put some objects there and nothing else, for TestSyncs.
var storageDir = flag.String("put-into", "", "folder of a storage that TestPutSome fills")

func TestPutSome(t *testing.T) {
	if *storageDir == "" {
		return // TestSyncs runs it
	}
	s := open(t, *storageDir)
	storagetest.Put(t, s, "replicate.json", []byte("x"))
	storagetest.Put(t, s, "log/1", []byte("x"))
	storagetest.Put(t, s, "log/2", []byte("x"))
	storagetest.Put(t, s, "live/1", []byte("x"))
	if _, err := s.Adopt(t.Context(), "pack/ab/cd", s.Path("log/1")); err != nil {
		t.Fatal(err)
	}
}

// TestSyncs watches the system calls: an object's bytes are synced before it gets its name, and the name after; so are the names of new
// folders; and nothing else is.
func TestSyncs(t *testing.T) {
	top := t.TempDir()
	got := storagetest.Syncs(t, top, "TestPutSome", "-put-into", filepath.Join(top, "new", "storage"))
	want := []string{
		"mkdir new", "mkdir new/storage", "mkdir new/storage/tmp",
		"sync new/storage/tmp/put-", "name new/storage/replicate.json", "sync new/storage", "sync new", "sync .",
		"sync new/storage/tmp/put-", "mkdir new/storage/log", "sync new/storage", "name new/storage/log/1", "sync new/storage/log",
		"sync new/storage/tmp/put-", "name new/storage/log/2", "sync new/storage/log",
		"mkdir new/storage/live", "name new/storage/live/1",
		"mkdir new/storage/pack", "sync new/storage", "mkdir new/storage/pack/ab", "sync new/storage/pack",
		"name new/storage/pack/ab/cd", "sync new/storage/pack/ab",
	}
	for i := range got {
		got[i] = regexp.MustCompile(`put-\d+`).ReplaceAllString(got[i], "put-")
	}
	if !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
