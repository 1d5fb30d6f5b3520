package storage

import (
	"context"
	"errors"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/replicate/replicate"
)

func TestCheckKey(t *testing.T) {
	for _, key := range []string{
		"replicate.json", "a", "A/b", "pack/ab/cdef", "index/1-00ff", "x/tmp", "tmpx", "a.b_c-d", "-", strings.Repeat("x", 255),
		strings.Repeat("x/", 255) + "x",
	} {
		if err := CheckKey(key); err != nil {
			t.Errorf("%.40q: %v", key, err)
		}
	}
	for _, key := range []string{
		"", "/", "a/", "/a", "a//b", ".", "..", "a/..", "..a", ".a", "a/.b", "tmp", "tmp/a", "a b", "a\x00", "ä", `a\b`, "a:b", "a*", "~",
		strings.Repeat("x", 256), strings.Repeat("x/", 256) + "x",
	} {
		if err := CheckKey(key); replicate.KindOf(err) != replicate.Usage {
			t.Errorf("%.40q: %v", key, err)
		}
	}
}

// FuzzCheckKey shows that a key is always a path below the folder that it is put into, and no other's.
func FuzzCheckKey(f *testing.F) {
	for _, key := range []string{"a/b", "../a", "a/../b", "a//b", "tmp/x", "a/./b"} {
		f.Add(key)
	}
	f.Fuzz(func(t *testing.T, key string) {
		if CheckKey(key) != nil {
			return
		}
		if !filepath.IsLocal(key) || filepath.Clean(key) != key || strings.HasPrefix(key+"/", "tmp/") {
			t.Errorf("%q is a key", key)
		}
	})
}

func TestOpen(t *testing.T) {
	cause := errors.New("closed today")
	Register("test", func(_ context.Context, u *url.URL) (Store, error) { return nil, cause })
	for _, tt := range []struct{ url, err, hint string }{
		{"test://bucket", "open storage test://bucket: closed today", ""},
		{"ftp://user:secret@host/x", `storage "ftp://user:xxxxx@host/x": unknown scheme "ftp"`, "known are test, and paths"},
		{"/just/a/path", `storage "/just/a/path": unknown scheme ""`, "known are test, and paths"},
		{"test://%zz", `storage "test://%zz" is not a URL`, ""},
	} {
		s, err := Open(t.Context(), tt.url)
		if s != nil || err == nil || err.Error() != tt.err || replicate.HintOf(err) != tt.hint {
			t.Errorf("%s: %v (hint %q); want %s (hint %q)", tt.url, err, replicate.HintOf(err), tt.err, tt.hint)
		}
	}
	if _, err := Open(t.Context(), "test://bucket"); !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
}
