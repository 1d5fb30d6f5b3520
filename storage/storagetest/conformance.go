package storagetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// Conformance tests that the stores which open returns, each of them empty, do what storage.Store says, and nothing else: it asserts no
// conditional put, no snapshot listing.
func Conformance(t *testing.T, open func(t *testing.T) storage.Store) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, s storage.Store)
	}{
		{"Put", testPut},
		{"Overwrite", testOverwrite},
		{"Sizes", testSizes},
		{"Ranges", testRanges},
		{"Missing", testMissing},
		{"Keys", testKeys},
		{"BadKeys", testBadKeys},
		{"List", testList},
		{"ListPages", testListPages},
		{"ListStops", testListStops},
		{"Delete", testDelete},
		{"Clock", testClock},
		{"ShortBody", testShortBody},
		{"Cancelled", testCancelled},
		{"ParallelPuts", testParallelPuts},
		{"PutIsAtomic", testPutIsAtomic},
		{"URL", testURL},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, open(t)) })
	}
}

// Put stores data under key, or fails the test.
func Put(t testing.TB, s storage.Store, key string, data []byte) time.Time {
	t.Helper()
	at, err := s.Put(t.Context(), key, bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
	return at
}

// Get returns what is stored under key, or fails the test.
func Get(t testing.TB, s storage.Store, key string) []byte {
	t.Helper()
	data, err := read(t.Context(), s, key, 0, -1)
	if err != nil {
		t.Fatalf("get %s: %v", key, err)
	}
	return data
}

// Keys returns the keys with a prefix behind after, in the order of the listing, or fails the test.
func Keys(t testing.TB, s storage.Store, prefix, after string) []string {
	t.Helper()
	keys := []string{}
	for o, err := range s.List(t.Context(), prefix, after) {
		if err != nil {
			t.Fatalf("list %q after %q: %v", prefix, after, err)
		}
		keys = append(keys, o.Key)
	}
	return keys
}

func read(ctx context.Context, s storage.Store, key string, off, n int64) ([]byte, error) {
	r, err := s.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func testPut(t *testing.T, s storage.Store) {
	want := []byte("hello")
	at := Put(t, s, "log/1", want)
	if got := Get(t, s, "log/1"); !bytes.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	o, err := s.Stat(t.Context(), "log/1")
	if err != nil || o.Key != "log/1" || o.Size != 5 {
		t.Errorf("stat = %+v, %v", o, err)
	}
	if !near(o.Time, at) {
		t.Errorf("Put said %v, Stat says %v", at, o.Time)
	}
	for o, err := range s.List(t.Context(), "", "") {
		if err != nil || o.Key != "log/1" || o.Size != 5 || !near(o.Time, at) {
			t.Errorf("list = %+v, %v", o, err)
		}
	}
	body := bytes.NewReader([]byte("0123456789"))
	body.Seek(7, io.SeekStart)
	if _, err := s.Put(t.Context(), "log/2", body, 4); err != nil {
		t.Fatal(err)
	}
	if got := Get(t, s, "log/2"); string(got) != "0123" {
		t.Errorf("Put of 4 bytes of a longer body that was read before stored %q", got)
	}
}

// near reports whether a Put may return at for an object of a Time.
func near(of, at time.Time) bool {
	return !at.Before(of.Add(-time.Second)) && !at.After(of.Add(time.Minute))
}

func testOverwrite(t *testing.T, s storage.Store) {
	for _, want := range []string{"first, long", "second", "", "third"} {
		Put(t, s, "live/1", []byte(want))
		if got := Get(t, s, "live/1"); string(got) != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if keys := Keys(t, s, "", ""); len(keys) != 1 {
		t.Errorf("list = %v", keys)
	}
}

func testSizes(t *testing.T, s storage.Store) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 1 << 20, 64 << 20} {
		want := randomBytes(size)
		key := fmt.Sprintf("pack/%d", size)
		Put(t, s, key, want)
		if got := Get(t, s, key); sha256.Sum256(got) != sha256.Sum256(want) {
			t.Errorf("%d bytes came back as %d other ones", size, len(got))
		}
		if o, err := s.Stat(t.Context(), key); err != nil || o.Size != int64(size) {
			t.Errorf("stat of %d bytes = %+v, %v", size, o, err)
		}
	}
}

func testRanges(t *testing.T, s storage.Store) {
	data := randomBytes(1000)
	Put(t, s, "pack/a", data)
	Put(t, s, "pack/empty", nil)
	for _, r := range []struct{ off, n, from, to int64 }{
		{0, 1000, 0, 1000}, {0, -1, 0, 1000}, {1, -1, 1, 1000}, {0, 1, 0, 1}, {999, 1, 999, 1000}, {10, 20, 10, 30},
		{990, 100, 990, 1000}, {0, 5000, 0, 1000}, {1000, -1, 0, 0}, {1000, 5, 0, 0}, {5000, -1, 0, 0}, {5000, 7, 0, 0},
		{0, 0, 0, 0}, {500, 0, 0, 0}, {1 << 40, 1 << 40, 0, 0},
	} {
		if got, err := read(t.Context(), s, "pack/a", r.off, r.n); err != nil || !bytes.Equal(got, data[r.from:r.to]) {
			t.Errorf("%d bytes from %d: %d bytes, %v; want [%d, %d)", r.n, r.off, len(got), err, r.from, r.to)
		}
	}
	if got, err := read(t.Context(), s, "pack/empty", 0, -1); err != nil || len(got) != 0 {
		t.Errorf("empty object: %q, %v", got, err)
	}
	if got, err := read(t.Context(), s, "pack/empty", 3, 3); err != nil || len(got) != 0 {
		t.Errorf("behind the end of an empty object: %q, %v", got, err)
	}
}

func testMissing(t *testing.T, s storage.Store) {
	check := func(when, key string) {
		t.Helper()
		if _, err := read(t.Context(), s, key, 0, -1); !errors.Is(err, fs.ErrNotExist) || replicate.KindOf(err) != replicate.NotFound {
			t.Errorf("%s: get %s: %v", when, key, err)
		}
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, fs.ErrNotExist) || replicate.KindOf(err) != replicate.NotFound {
			t.Errorf("%s: stat %s: %v", when, key, err)
		}
		if err := s.Delete(t.Context(), key); err != nil {
			t.Errorf("%s: delete %s: %v", when, key, err)
		}
	}
	check("in an empty store", "replicate.json")
	check("in an empty store", "log/a")
	if keys := Keys(t, s, "", ""); len(keys) != 0 {
		t.Errorf("an empty store lists %v", keys)
	}
	if keys := Keys(t, s, "log/", ""); len(keys) != 0 {
		t.Errorf("an empty store lists %v", keys)
	}
	Put(t, s, "log/a", []byte("x"))
	check("beside another object", "log/b")
	check("with the name of a folder", "log")
	check("below another object", "log/a/b")
	if got := Get(t, s, "log/a"); string(got) != "x" {
		t.Errorf("got %q", got)
	}
}

func testKeys(t *testing.T, s storage.Store) {
	keys := []string{
		"replicate.json", "a", "A", "Z-9_z.x", "log/0123456789abcdef0123456789abcdef", "index/1-00ff", "gc/ff.condemned",
		"pack/ab/" + strings.Repeat("c", 62), "a.b/c-d/e_f/g", "x/" + strings.Repeat("y", 200), "tmpx", "x/tmp/y", "-", "_", "1",
	}
	slices.Sort(keys)
	for _, key := range keys {
		Put(t, s, key, []byte(key))
	}
	for _, key := range keys {
		if got := Get(t, s, key); string(got) != key {
			t.Errorf("%s: got %q", key, got)
		}
	}
	if got := Keys(t, s, "", ""); !slices.Equal(got, keys) {
		t.Errorf("list = %q, want %q", got, keys)
	}
}

func testBadKeys(t *testing.T, s storage.Store) {
	for _, key := range []string{
		"", "/", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/.", ".hidden", "a/.hidden", "tmp", "tmp/x", "a b", "a\x00", "a\n",
		"ä", "a\\b", "a%2f", strings.Repeat("x", 600), strings.Repeat("x", 300),
	} {
		if _, err := s.Put(t.Context(), key, strings.NewReader("x"), 1); replicate.KindOf(err) != replicate.Usage {
			t.Errorf("put %q: %v", key, err)
		}
		if _, err := s.Get(t.Context(), key, 0, -1); err == nil {
			t.Errorf("get %q worked", key)
		}
	}
	if keys := Keys(t, s, "", ""); len(keys) != 0 {
		t.Errorf("list = %q", keys)
	}
}

func testList(t *testing.T, s storage.Store) {
	keys := []string{"a-b", "a.b", "a/a", "a/b-c", "a/b/c", "a/b/d", "a/b0", "a0", "ab/c", "abc", "b", "b-/x", "b./x", "b0/x"}
	for _, key := range keys {
		Put(t, s, key, nil)
	}
	prefixes := []string{"", "a", "a/", "a/b", "a/b/", "a/b/c", "a/b/c/", "ab", "b", "b-", "c", "/", "a//", "tmp", "tmp/", "..", "../", "a/.", "A"}
	afters := append([]string{"", "/", "a", "a/", "a-", "a/b/", "a/b/cc", "a/b/\xff", "a0", "a\xff", "b-/x/y", "zz", "0"}, keys...)
	for _, prefix := range prefixes {
		for _, after := range afters {
			want := []string{}
			for _, key := range keys {
				if strings.HasPrefix(key, prefix) && key > after {
					want = append(want, key)
				}
			}
			if got := Keys(t, s, prefix, after); !slices.Equal(got, want) {
				t.Errorf("list %q after %q = %q, want %q", prefix, after, got, want)
			}
		}
	}
}

func testListPages(t *testing.T, s storage.Store) {
	const n = 2500 // three pages of 1,000
	want := make([]string, n)
	jobs := make(chan string)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for key := range jobs {
				if _, err := s.Put(t.Context(), key, strings.NewReader(key), int64(len(key))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range want {
		want[i] = fmt.Sprintf("live/%06d", i*7)
		jobs <- want[i]
	}
	close(jobs)
	wg.Wait()
	if got := Keys(t, s, "live/", ""); !slices.Equal(got, want) {
		t.Errorf("listed %d of %d keys", len(got), n)
	}
	for _, at := range []int{0, 998, 999, 1000, 1999, 2499} {
		if got := Keys(t, s, "live/", want[at]); !slices.Equal(got, want[at+1:]) {
			t.Errorf("after %s: listed %d keys, want %d", want[at], len(got), n-at-1)
		}
	}
	if err := s.Delete(t.Context(), want...); err != nil {
		t.Fatal(err)
	}
	if got := Keys(t, s, "", ""); len(got) != 0 {
		t.Errorf("%d keys are left", len(got))
	}
}

func testListStops(t *testing.T, s storage.Store) {
	for i := range 10 {
		Put(t, s, fmt.Sprintf("log/%d", i), nil)
	}
	seen := 0
	for range s.List(t.Context(), "", "") {
		if seen++; seen == 3 {
			break
		}
	}
	if seen != 3 {
		t.Errorf("saw %d objects", seen)
	}
	list := s.List(t.Context(), "log/", "") // may be run more than once
	for range 2 {
		seen = 0
		for range list {
			seen++
		}
		if seen != 10 {
			t.Errorf("saw %d objects", seen)
		}
	}
}

func testDelete(t *testing.T, s storage.Store) {
	for _, key := range []string{"a/1", "a/2", "a/3", "b/1"} {
		Put(t, s, key, []byte(key))
	}
	if err := s.Delete(t.Context()); err != nil {
		t.Errorf("delete nothing: %v", err)
	}
	if err := s.Delete(t.Context(), "a/1", "a/9", "a/3", "a", "a/1"); err != nil {
		t.Fatal(err)
	}
	if got := Keys(t, s, "", ""); !slices.Equal(got, []string{"a/2", "b/1"}) {
		t.Errorf("list = %q", got)
	}
	if _, err := s.Get(t.Context(), "a/1", 0, -1); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get: %v", err)
	}
	Put(t, s, "a/1", []byte("again"))
	if got := Get(t, s, "a/1"); string(got) != "again" {
		t.Errorf("got %q", got)
	}
}

func testClock(t *testing.T, s storage.Store) {
	const bound = time.Hour
	last, err := s.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		put := Put(t, s, fmt.Sprintf("log/%d", i), nil)
		now, err := s.Now(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if put.Before(last.Add(-bound)) || now.Before(put.Add(-bound)) {
			t.Errorf("the clock went from %v to %v to %v", last, put, now)
		}
		last = now
	}
	if keys := Keys(t, s, "", ""); len(keys) != 20 {
		t.Errorf("Now left objects: %q", keys)
	}
}

func testShortBody(t *testing.T, s storage.Store) {
	if _, err := s.Put(t.Context(), "log/a", strings.NewReader("short"), 100); err == nil {
		t.Error("a body that is too short was stored")
	}
	if _, err := s.Put(t.Context(), "log/a", brokenBody{}, 100); !errors.Is(err, errBroken) {
		t.Errorf("a body that breaks: %v", err)
	}
	if keys := Keys(t, s, "", ""); len(keys) != 0 {
		t.Errorf("list = %q", keys)
	}
}

var errBroken = errors.New("broken")

type brokenBody struct{}

func (brokenBody) Read(p []byte) (int, error)                { return copy(p, "some"), errBroken }
func (brokenBody) Seek(off int64, whence int) (int64, error) { return 0, nil }

func testCancelled(t *testing.T, s storage.Store) {
	Put(t, s, "log/a", []byte("a"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, getErr := read(ctx, s, "log/a", 0, -1)
	_, putErr := s.Put(ctx, "log/b", strings.NewReader("b"), 1)
	_, statErr := s.Stat(ctx, "log/a")
	_, nowErr := s.Now(ctx)
	var listErr error
	for _, err := range s.List(ctx, "", "") {
		listErr = err
	}
	for name, err := range map[string]error{
		"get": getErr, "put": putErr, "stat": statErr, "now": nowErr, "list": listErr, "delete": s.Delete(ctx, "log/a"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got := Keys(t, s, "", ""); !slices.Equal(got, []string{"log/a"}) {
		t.Errorf("list = %q", got)
	}
}

func testParallelPuts(t *testing.T, s storage.Store) {
	data := randomBytes(100_000)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			if _, err := s.Put(t.Context(), "pack/aa/bb", bytes.NewReader(data), int64(len(data))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := Get(t, s, "pack/aa/bb"); !bytes.Equal(got, data) {
		t.Error("64 puts of one content stored another")
	}
	if got := Keys(t, s, "", ""); len(got) != 1 {
		t.Errorf("list = %q", got)
	}
}

// testPutIsAtomic reads and lists an object while it is replaced by others of various sizes.
func testPutIsAtomic(t *testing.T, s storage.Store) {
	contents := make([][]byte, 8)
	whole := map[[32]byte]bool{}
	for i := range contents {
		contents[i] = bytes.Repeat([]byte{byte(i)}, 1+i*30_000)
		whole[sha256.Sum256(contents[i])] = true
	}
	Put(t, s, "live/a", contents[0])
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(done)
		for i := range 100 {
			data := contents[i%len(contents)]
			if _, err := s.Put(t.Context(), "live/a", bytes.NewReader(data), int64(len(data))); err != nil {
				t.Error(err)
			}
		}
	})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if data, err := read(t.Context(), s, "live/a", 0, -1); err != nil || !whole[sha256.Sum256(data)] {
					t.Errorf("read %d bytes that nobody put, %v", len(data), err)
					return
				}
				n := 0
				for o, err := range s.List(t.Context(), "", "") {
					if n++; err != nil || o.Key != "live/a" || (o.Size-1)%30_000 != 0 {
						t.Errorf("list = %+v, %v", o, err)
					}
				}
				if n != 1 {
					t.Errorf("listed %d objects", n)
				}
			}
		})
	}
	wg.Wait()
}

func testURL(t *testing.T, s storage.Store) {
	if !strings.Contains(s.URL(), "://") {
		t.Errorf("URL = %q", s.URL())
	}
}

func randomBytes(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}
