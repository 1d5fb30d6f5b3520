// Package storage keeps immutable objects under flat keys: the bytes of a repository, wherever they are.
//
// It knows nothing of experiments and commits; package repository says what the bytes mean. One folder below this one
// holds each place bytes can be (disk, mem, s3, gcs) and registers itself for the schemes of its URLs; storagetest holds the
// conformance suite that every Store passes, and the evil stores that try to break what is built on them.
package storage

import (
	"context"
	"io"
	"iter"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// A Store keeps objects under flat keys. Every implementation guarantees:
//
//  1. Put is atomic: a reader sees all of an object or none; a second Put replaces it whole.
//  2. After Put returned, Get sees it; List sees it within an hour. After Delete, likewise.
//  3. Object.Time and Now are the store's clock: Time is when the object became visible (a slow upload may show its
//     start), and the clock never runs backwards by more than an hour.
//
// Nothing else: no conditional put, no snapshot listing, no order across pages but by key. A missing object is an error for
// which errors.Is(err, fs.ErrNotExist) holds. Keys are what CheckKey accepts, and no key may be a folder of another: with
// a/b there is no a. All methods may be called from several goroutines.
type Store interface {
	// Get reads n bytes of an object from off ≥ 0, to its end if n < 0 or the object is shorter; behind the end there is
	// nothing, which is no error. The caller closes.
	Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error)
	// Put stores the first n bytes of body, which it may read more than once, always from the beginning. A body that is
	// shorter is an error, and nothing is stored. It returns the object's Time, or where the answer does not tell it, the store's clock
	// when the answer began: at most a second before Time, as it may be in whole seconds, and seldom a minute later.
	Put(ctx context.Context, key string, body io.ReadSeeker, n int64) (time.Time, error)
	// List yields the objects whose key begins with prefix and is greater than after, sorted by key. It stops at the
	// first error.
	List(ctx context.Context, prefix, after string) iter.Seq2[Object, error]
	// Stat returns an object without its bytes.
	Stat(ctx context.Context, key string) (Object, error)
	// Delete removes objects. Missing keys are no error.
	Delete(ctx context.Context, keys ...string) error
	// Now returns the store's clock, read after the call began.
	Now(ctx context.Context) (time.Time, error)
	// URL names the store for people, without credentials.
	URL() string
}

// An Object is what a listing says of one object.
type Object struct {
	Key  string
	Size int64
	Time time.Time // by the store's clock
}

// maxKey is the longest key. S3 and GCS take 1,024 bytes, a bucket's prefix included.
const maxKey = 512

// CheckKey reports what is wrong with a key. Keys are names of letters, digits, ".", "_" and "-", joined by single "/"; a name
// does not begin with ".", so that the hidden files of file servers are no objects; the first one is not "tmp", where
// local stores keep what is no object yet.
func CheckKey(key string) error {
	if len(key) > maxKey {
		return replicate.Errorf(replicate.Usage, "key %.40q… is longer than %d bytes", key, maxKey)
	}
	first := true
	for name := range strings.SplitSeq(key, "/") {
		if !IsName(name) || first && name == "tmp" {
			return replicate.Errorf(replicate.Usage, "%q is not a key", key)
		}
		first = false
	}
	return nil
}

// IsName reports whether name can stand between two slashes of a key.
func IsName(name string) bool {
	if name == "" || name[0] == '.' || len(name) > 255 {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// A Local store is a folder of this machine's file system. What is written once can be renamed into it.
type Local interface {
	Store
	// Dir is the folder that holds everything, absolute.
	Dir() string
	// Adopt makes the complete file at path, which must be durable and lie on the same file system, the object key, by rename,
	// and makes the rename durable. An object of that key is replaced.
	Adopt(ctx context.Context, key, path string) (time.Time, error)
	// Path returns the file that holds an object. It may be opened for reading, never written.
	Path(key string) string
}

// An Opener makes the Store of a parsed URL. It does no network I/O and creates nothing.
type Opener func(ctx context.Context, u *url.URL) (Store, error)

var openers = map[string]Opener{}

// Register makes Open know a scheme. Packages call it in init, so it is not safe for later use.
func Register(scheme string, open Opener) { openers[scheme] = open }

// Open returns the store of a URL: file:///absolute/path, gs://bucket/prefix or s3://bucket/prefix, as far as the packages for
// them are linked in.
func Open(ctx context.Context, rawURL string) (Store, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return nil, replicate.Errorf(replicate.Usage, "storage %q is not a URL", rawURL)
	}
	open, ok := openers[u.Scheme]
	if !ok {
		known := slices.DeleteFunc(slices.Sorted(maps.Keys(openers)), func(scheme string) bool { return scheme == "mem" }) // of tests
		return nil, replicate.Errorf(replicate.Usage, "storage %q: unknown scheme %q", u.Redacted(), u.Scheme).
			WithHint("known are %s, and paths", strings.Join(known, ", "))
	}
	s, err := open(ctx, u)
	if err != nil {
		return nil, &replicate.Error{Op: "open storage", Path: u.Redacted(), Err: err}
	}
	return s, nil
}

// A Wild store holds what other programs put there under keys of their own.
type Wild interface {
	Store
	// Wild returns a view of the same place in which keys may be any text: List, Get and Stat know those too that CheckKey refuses. It is for
	// reading.
	Wild() Store
}
