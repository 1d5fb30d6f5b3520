package disk

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/replicate/replicate"
)

func TestWild(t *testing.T) {
	dir := t.TempDir()
	s, err := New(filepath.Join(dir, "storage"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"secret", "storage/a b/日本.txt", "storage/a b/.hidden", "storage/c", "storage/d/e"} {
		file := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte(name), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "secret"), filepath.Join(dir, "storage", "link")); err != nil {
		t.Fatal(err)
	}
	w := s.Wild()
	for _, tt := range []struct{ prefix, after, want string }{
		{"", "", "a b/.hidden, a b/日本.txt, c, d/e"},
		{"a b/", "a b/.hidden", "a b/日本.txt"},
		{"a", "", "a b/.hidden, a b/日本.txt"},
		{"d/e", "", "d/e"},
		{"../", "", ""},
		{"nothing/", "", ""},
	} {
		var keys []string
		for o, err := range w.List(t.Context(), tt.prefix, tt.after) {
			if err != nil {
				t.Fatal(err)
			}
			keys = append(keys, o.Key)
		}
		if got := strings.Join(keys, ", "); got != tt.want {
			t.Errorf("%q after %q lists %s", tt.prefix, tt.after, got)
		}
	}
	body, err := w.Get(t.Context(), "a b/日本.txt", 2, 7)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if data, err := io.ReadAll(body); string(data) != "orage/a" || err != nil {
		t.Errorf("read %q, %v", data, err)
	}
	for _, key := range []string{"../secret", "/etc/passwd", "a b/../../secret", "link", "a b", "nothing"} {
		if _, err := w.Stat(t.Context(), key); err == nil {
			t.Errorf("%q is there", key)
		}
		if _, err := w.Get(t.Context(), key, 0, -1); err == nil {
			t.Errorf("%q can be read", key)
		}
	}
	if _, err := w.Stat(t.Context(), "nothing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	_, err = w.Put(t.Context(), "c", strings.NewReader("x"), 1)
	for _, err := range []error{err, w.Delete(t.Context(), "c")} {
		if replicate.KindOf(err) != replicate.Permission {
			t.Errorf("changing something: %v", err)
		}
	}
}
