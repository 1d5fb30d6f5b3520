package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// TestConformance uses folders that do not exist, in a folder that does not either.
func TestConformance(t *testing.T) {
	storagetest.Conformance(t, func(t *testing.T) storage.Store { return open(t, filepath.Join(t.TempDir(), "a b", "ü%20")) })
}

func open(t testing.TB, dir string) *disk.Store {
	t.Helper()
	s, err := disk.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func write(t testing.TB, path, content string) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b#?%ü")
	s := open(t, dir)
	again, err := storage.Open(t.Context(), s.URL())
	if err != nil || again.(*disk.Store).Dir() != dir || again.URL() != s.URL() {
		t.Errorf("%s: %v, %v", s.URL(), again, err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opening made %s: %v", dir, err)
	}
	for _, bad := range []string{"file:", "file://", "file://host/path", "file:relative", "file://relative"} {
		if s, err := storage.Open(t.Context(), bad); replicate.KindOf(err) != replicate.Usage {
			t.Errorf("%s: %v, %v", bad, s, err)
		}
	}
}

func TestReadingMakesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "none")
	s := open(t, dir)
	storagetest.Keys(t, s, "", "")
	s.Get(t.Context(), "replicate.json", 0, -1)
	s.Stat(t.Context(), "replicate.json")
	if err := s.Delete(t.Context(), "replicate.json"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("reading made %s: %v", dir, err)
	}
}

// TestModesAndLeftovers checks every file and folder after all kinds of calls, with a permissive umask.
func TestModesAndLeftovers(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	dir := filepath.Join(t.TempDir(), "x", "storage")
	s := open(t, dir)
	for _, key := range []string{"replicate.json", "replicate.json", "log/1", "log/1", "pack/ab/cd", "live/1"} {
		storagetest.Put(t, s, key, []byte(key))
	}
	s.Put(t.Context(), "log/2", strings.NewReader("short"), 10)
	if _, err := s.Now(t.Context()); err != nil {
		t.Fatal(err)
	}
	var files []string
	err := filepath.WalkDir(filepath.Dir(dir), func(path string, e fs.DirEntry, err error) error {
		info, _ := e.Info()
		if e.IsDir() {
			if info.Mode().Perm() != 0o700 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return err
		}
		if info.Mode() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		rel, _ := filepath.Rel(dir, path)
		files = append(files, rel)
		return err
	})
	if want := []string{"live/1", "log/1", "pack/ab/cd", "replicate.json"}; err != nil || !slices.Equal(files, want) {
		t.Errorf("files %q, %v; want %q", files, err, want)
	}
}

func TestAdopt(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, content := range []string{"one", "two"} { // the second replaces the first
		file := write(t, filepath.Join(dir, "tmp", "w", "pack"), content)
		at, err := s.Adopt(t.Context(), "pack/ab/cd", file)
		if err != nil {
			t.Fatal(err)
		}
		if got := storagetest.Get(t, s, "pack/ab/cd"); string(got) != content {
			t.Errorf("got %q", got)
		}
		if o, err := s.Stat(t.Context(), "pack/ab/cd"); err != nil || !o.Time.Equal(at) {
			t.Errorf("Adopt said %v, Stat says %v, %v", at, o.Time, err)
		}
		if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the file is still there: %v", err)
		}
	}
	if got, err := os.ReadFile(s.Path("pack/ab/cd")); err != nil || string(got) != "two" {
		t.Errorf("path: %q, %v", got, err)
	}
	if _, err := s.Adopt(t.Context(), "pack/ab/ef", filepath.Join(dir, "tmp", "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("adopt nothing: %v", err)
	}
	if _, err := s.Adopt(t.Context(), "../x", filepath.Join(dir, "tmp", "none")); replicate.KindOf(err) != replicate.Usage {
		t.Errorf("adopt outside: %v", err)
	}
}

// TestFirstRepositoryWins lets 16 stores of one folder make a repository: all must agree on one.
func TestFirstRepositoryWins(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	times := make([]time.Time, 16)
	for i := range times {
		wg.Go(func() {
			s := open(t, dir)
			body := bytes.Repeat([]byte{'a' + byte(i)}, 100+i)
			at, err := s.Put(t.Context(), "replicate.json", bytes.NewReader(body), int64(len(body)))
			if err != nil {
				t.Error(err)
			}
			times[i] = at
		})
	}
	wg.Wait()
	s := open(t, dir)
	first := storagetest.Get(t, s, "replicate.json")
	if len(first) != 100+int(first[0]-'a') {
		t.Errorf("the winner is torn: %q", first)
	}
	o, err := s.Stat(t.Context(), "replicate.json")
	if err != nil {
		t.Fatal(err)
	}
	for i, at := range times {
		if !at.Equal(o.Time) {
			t.Errorf("writer %d was told %v, the object is of %v", i, at, o.Time)
		}
	}
	storagetest.Put(t, s, "replicate.json", []byte("another"))
	if got := storagetest.Get(t, s, "replicate.json"); !bytes.Equal(got, first) {
		t.Errorf("replaced by %q", got)
	}
	if err := s.Delete(t.Context(), "replicate.json"); err != nil {
		t.Fatal(err)
	}
	storagetest.Put(t, s, "replicate.json", []byte("another"))
	if got := storagetest.Get(t, s, "replicate.json"); string(got) != "another" {
		t.Errorf("after Delete: %q", got)
	}
}

func TestStrayFilesAreIgnored(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	storagetest.Put(t, s, "log/1", []byte("x"))
	for _, path := range []string{
		".DS_Store", "log/.nfs0001", "log/1 (copy)", "log/ü", "lost+found/x", ".snapshot/daily/log/2", "log/1~", "tmp/w/1/pack", "tmp/put-1",
	} {
		write(t, filepath.Join(dir, path), "stray")
	}
	for from, to := range map[string]string{"log/link": "1", "loop": ".", "dangling": "nowhere"} {
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "log/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "log", "empty"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got := storagetest.Keys(t, s, "", ""); !slices.Equal(got, []string{"log/1"}) {
		t.Errorf("list = %q", got)
	}
	for _, key := range []string{"log/fifo", "log/link", "log/empty"} {
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("stat %s: %v", key, err)
		}
		if _, err := s.Get(t.Context(), key, 0, -1); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("get %s: %v", key, err)
		}
	}
	if err := s.Delete(t.Context(), "log/empty"); err != nil {
		t.Errorf("delete of a folder: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "log", "empty")); err != nil {
		t.Errorf("deleted a folder: %v", err)
	}
	write(t, filepath.Join(dir, "other/object"), "of another program") // is one, and whoever lists must not mind
	if got := storagetest.Keys(t, s, "", "log/1"); !slices.Equal(got, []string{"other/object"}) {
		t.Errorf("list = %q", got)
	}
}

// TestListWhileDeleting deletes objects and a folder between two steps of a listing that has read their names.
func TestListWhileDeleting(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, key := range []string{"a/1", "a/2", "a/3", "b/1", "c/1"} {
		storagetest.Put(t, s, key, nil)
	}
	var got []string
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, o.Key); o.Key != "a/1" {
			continue
		}
		if err := s.Delete(t.Context(), "a/2", "b/1"); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "b")); err != nil {
			t.Fatal(err)
		}
	}
	if want := []string{"a/1", "a/3", "c/1"}; !slices.Equal(got, want) {
		t.Errorf("listed %q, want %q", got, want)
	}
}

func TestStaleFilesAreSwept(t *testing.T) {
	dir := t.TempDir()
	old := time.Now().Add(-25 * time.Hour)
	for _, name := range []string{"put-old", "other-old", "put-young", "w/put-old"} {
		path := write(t, filepath.Join(dir, "tmp", name), "x")
		if strings.HasSuffix(name, "old") {
			if err := os.Chtimes(path, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	storagetest.Put(t, open(t, dir), "log/1", nil)
	got, err := filepath.Glob(filepath.Join(dir, "tmp", "*"))
	for i := range got {
		got[i] = filepath.Base(got[i])
	}
	if want := []string{"other-old", "put-young", "w"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("left: %q, %v; want %q", got, err, want)
	}
}

// TestTimeIsWhenAnObjectBecameVisible adopts a file of last year.
func TestTimeIsWhenAnObjectBecameVisible(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	file := write(t, filepath.Join(dir, "tmp", "pack"), "x")
	year := time.Now().AddDate(-1, 0, 0)
	if err := os.Chtimes(file, year, year); err != nil {
		t.Fatal(err)
	}
	before, err := s.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at, err := s.Adopt(t.Context(), "pack/a", file)
	if err != nil {
		t.Fatal(err)
	}
	after, err := s.Now(t.Context())
	if err != nil || at.Before(before) || after.Before(at) {
		t.Errorf("adopted at %v, between %v and %v; %v", at, before, after, err)
	}
}

func TestDeniedFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	s := open(t, filepath.Join(dir, "closed", "storage"))
	if err := os.Mkdir(filepath.Join(dir, "closed"), 0o555); err != nil {
		t.Fatal(err)
	}
	var err error
	require.Unprivileged(t, func() { _, err = s.Put(t.Context(), "log/1", strings.NewReader("x"), 1) })
	check(t, "put into a folder that cannot be made", err, replicate.Permission, "put "+s.Path("log/1")+": permission denied")

	closed := open(t, filepath.Join(dir, "theirs"))
	storagetest.Put(t, closed, "log/1", []byte("x"))
	if err := os.Chmod(closed.Dir(), 0); err != nil {
		t.Fatal(err)
	}
	require.Unprivileged(t, func() { _, err = closed.Get(t.Context(), "log/1", 0, -1) })
	check(t, "get from somebody else's", err, replicate.Permission, "get "+closed.Path("log/1")+": permission denied")
	require.Unprivileged(t, func() {
		for _, err = range closed.List(t.Context(), "", "") {
		}
	})
	check(t, "list somebody else's", err, replicate.Permission, "list "+closed.Dir()+": permission denied")
	if err := os.Chmod(closed.Dir(), 0o700); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, what string, err error, kind replicate.Kind, text string) {
	t.Helper()
	if err == nil || replicate.KindOf(err) != kind || err.Error() != text || replicate.HintOf(err) == "" {
		t.Errorf("%s: %v (%s, hint %q); want %s (%s)", what, err, replicate.KindOf(err), replicate.HintOf(err), text, kind)
	}
}

func BenchmarkPut(b *testing.B) {
	s := open(b, b.TempDir())
	body := bytes.Repeat([]byte("x"), 1000)
	for _, bb := range []struct{ name, key string }{{"Durable", "log/1"}, {"Heartbeat", "live/1"}} {
		b.Run(bb.name, func(b *testing.B) {
			for b.Loop() {
				storagetest.Put(b, s, bb.key, body)
			}
		})
	}
}

func BenchmarkAdopt(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir)
	storagetest.Put(b, s, "pack/a", nil)
	file := write(b, filepath.Join(dir, "tmp", "pack"), "x")
	for b.Loop() {
		if _, err := s.Adopt(b.Context(), "pack/a", file); err != nil {
			b.Fatal(err)
		}
		if err := os.Rename(s.Path("pack/a"), file); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkNow(b *testing.B) {
	s := open(b, b.TempDir())
	for b.Loop() {
		if _, err := s.Now(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList10000(b *testing.B) {
	dir := b.TempDir()
	s := open(b, dir)
	for i := range 10_000 {
		write(b, filepath.Join(dir, "log", fmt.Sprintf("%032x", i)), "x")
	}
	for b.Loop() {
		if n := len(storagetest.Keys(b, s, "log/", "")); n != 10_000 {
			b.Fatal(n)
		}
	}
}
