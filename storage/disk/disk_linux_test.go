package disk_test

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"os"
	"os/exec"
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
	strace := require.Program(t, "strace")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "new", "storage")
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, "-f", "-y", "-qq", "-s", "500", "-o", trace, "-e", "trace=fsync,fdatasync,/rename,/link,/mkdir",
		self, "-test.run", "^TestPutSome$", "-put-into", dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		require.Missing(t, "the right to trace: "+string(out))
	}
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"mkdir new", "sync .", "mkdir new/storage", "sync new", "mkdir new/storage/tmp", "sync new/storage",
		"sync new/storage/tmp/put-", "name new/storage/replicate.json", "sync new/storage", "sync new", "sync .",
		"sync new/storage/tmp/put-", "mkdir new/storage/log", "sync new/storage", "name new/storage/log/1", "sync new/storage/log",
		"sync new/storage/tmp/put-", "name new/storage/log/2", "sync new/storage/log",
		"mkdir new/storage/live", "sync new/storage", "name new/storage/live/1",
		"mkdir new/storage/pack", "sync new/storage", "mkdir new/storage/pack/ab", "sync new/storage/pack",
		"name new/storage/pack/ab/cd", "sync new/storage/pack/ab",
	}
	if got := syncs(string(data), filepath.Dir(filepath.Dir(dir))); !slices.Equal(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s\ntrace:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), data)
	}
}

// syncs returns the successful calls of a trace that have to do with paths below top, as "sync path", "mkdir path" or "name path".
func syncs(trace, top string) []string {
	call := regexp.MustCompile(`(f\w*sync|mkdir|rename|link)\w*\((.*)\) += 0`)
	path := regexp.MustCompile(regexp.QuoteMeta(top) + `(?:/([\w./-]*))?[">]`)
	var list []string
	for _, m := range call.FindAllStringSubmatch(joined(trace), -1) {
		paths := path.FindAllStringSubmatch(m[2], -1)
		if len(paths) == 0 || m[1] == "link" && len(paths) == 1 { // unlink
			continue
		}
		name := cmp.Or(paths[len(paths)-1][1], ".")
		if strings.Contains(name, "/put-") {
			name = name[:strings.Index(name, "put-")+4]
		}
		verb := map[string]string{"mkdir": "mkdir", "rename": "name", "link": "name"}[m[1]]
		list = append(list, cmp.Or(verb, "sync")+" "+name)
	}
	return list
}

// joined puts calls that strace wrote in two lines, as another thread was heard in between, into one, where they ended.
func joined(trace string) string {
	var lines []string
	begun := map[string]string{}
	for line := range strings.Lines(trace) {
		pid, _, _ := strings.Cut(line, " ")
		if head, ok := strings.CutSuffix(line, " <unfinished ...>\n"); ok {
			begun[pid] = head
			continue
		}
		if _, tail, ok := strings.Cut(line, " resumed>"); ok && strings.Contains(line, "<... ") {
			line = begun[pid] + tail
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}
