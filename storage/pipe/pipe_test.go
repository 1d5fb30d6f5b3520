package pipe

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/mem"
	"github.com/replicate/replicate/storage/storagetest"
)

// served returns a store that is read over a connection.
func served(t *testing.T, s storage.Store) *Store {
	t.Helper()
	here, there := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = Serve(context.Background(), s, there, there)
		there.Close()
	}()
	p := Open(here, "run://gpu1/274a9ec")
	t.Cleanup(func() { p.Close(); <-done })
	return p
}

// writable reads through a pipe and writes past it.
type writable struct {
	*Store
	to storage.Store
}

func (w writable) Put(ctx context.Context, key string, body io.ReadSeeker, n int64) (time.Time, error) {
	return w.to.Put(ctx, key, body, n)
}

func (w writable) Delete(ctx context.Context, keys ...string) error { return w.to.Delete(ctx, keys...) }

func TestConformance(t *testing.T) {
	storagetest.Conformance(t, func(t *testing.T) storage.Store {
		to := mem.New(t.Name(), time.Now)
		return writable{served(t, to), to}
	})
}

func TestLargeObjects(t *testing.T) {
	m := mem.New(t.Name(), time.Now)
	s := served(t, m)
	for _, size := range []int{0, 1, pieceSize - 1, pieceSize, pieceSize + 1, 7*pieceSize + 3} {
		want := bytes.Repeat([]byte("abcdefg"), size/7+1)[:size]
		storagetest.Put(t, m, "pack/a", want)
		if got := storagetest.Get(t, s, "pack/a"); !bytes.Equal(got, want) {
			t.Errorf("%d bytes became %d others", size, len(got))
		}
	}
}

func TestSlowReaderKeepsNobodyWaiting(t *testing.T) {
	m := mem.New(t.Name(), time.Now)
	storagetest.Put(t, m, "pack/a", make([]byte, 9*pieceSize))
	s := served(t, m)
	slow, err := s.Get(t.Context(), "pack/a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	if got := storagetest.Get(t, s, "pack/a"); len(got) != 9*pieceSize {
		t.Errorf("%d bytes", len(got))
	}
	if got, err := io.ReadAll(slow); err != nil || len(got) != 9*pieceSize {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestWritingIsRefused(t *testing.T) {
	s := served(t, mem.New(t.Name(), time.Now))
	_, err := s.Put(t.Context(), "log/a", strings.NewReader("a"), 1)
	if replicate.KindOf(err) != replicate.Permission || replicate.KindOf(s.Delete(t.Context(), "log/a")) != replicate.Permission {
		t.Errorf("put says %v", err)
	}
}

func TestEndOfTheConnection(t *testing.T) {
	here, there := net.Pipe()
	s := Open(here, "run://gpu1/274a9ec")
	failed := make(chan error, 1)
	go func() {
		_, err := s.Now(context.Background())
		failed <- err
	}()
	if _, err := bufio.NewReader(there).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	there.Close()
	const want = "read run://gpu1/274a9ec: the other side has closed the connection"
	if err := <-failed; replicate.KindOf(err) != replicate.Unavailable || err.Error() != want {
		t.Errorf("a call under way says %v", err)
	}
	if _, err := s.Stat(t.Context(), "log/a"); replicate.KindOf(err) != replicate.Unavailable {
		t.Errorf("a later one says %v", err)
	}
}

// TestLyingServer answers what no store says. Each answer is an error, and none is believed.
func TestLyingServer(t *testing.T) {
	for name, answer := range map[string]string{
		"NoJSON":       "hello\n",
		"TooLarge":     `{"id":1,"size":999999999}` + "\n",
		"NegativeSize": `{"id":1,"size":-1}` + "\n",
		"LongLine":     strings.Repeat("x", 2*maxLine) + "\n",
		"OtherKey":     `{"id":1,"size":19}` + "\n" + `[{"key":"../../x"}]`,
		"Unsorted":     `{"id":1,"size":37}` + "\n" + `[{"key":"log/b"},{"key":"log/a"}]    `,
		"NoDocument":   `{"id":1,"size":1}` + "\n{",
	} {
		t.Run(name, func(t *testing.T) {
			here, there := net.Pipe()
			go func() {
				_, _ = bufio.NewReader(there).ReadString('\n')
				_, _ = io.WriteString(there, answer)
				there.Close()
			}()
			s := Open(here, "liar")
			defer s.Close()
			var failed error
			for _, err := range s.List(t.Context(), "", "") {
				failed = errors.Join(failed, err)
			}
			if failed == nil {
				t.Error("it was believed")
			}
		})
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"id":1,"size":2}` + "\n{}"))
	f.Add([]byte(`{"id":1,"kind":"not_found","error":"gone"}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := readAnswer(newReader(bytes.NewReader(data)))
		if err == nil && (len(a.data) != a.Size || a.Size > maxPayload) {
			t.Errorf("%+v", a)
		}
	})
}

func FuzzServe(f *testing.F) {
	f.Add([]byte(`{"id":1,"op":"get","key":"log/a","n":9}` + "\n" + `{"id":2,"op":"list"}` + "\n"))
	m := mem.New("fuzz", time.Now)
	_, _ = m.Put(context.Background(), "log/a", strings.NewReader("a"), 1)
	f.Fuzz(func(t *testing.T, data []byte) {
		var out bytes.Buffer
		_ = Serve(t.Context(), m, bytes.NewReader(data), &out)
		for r := newReader(&out); ; {
			if _, err := readAnswer(r); err == io.EOF {
				return
			} else if err != nil {
				t.Fatalf("the answer cannot be read: %v", err)
			}
		}
	})
}
