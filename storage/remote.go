package storage

import (
	"context"
	"errors"
	"io"

	"github.com/replicate/replicate"
)

// ErrNoBucket is in the chain of errors of stores whose bucket does not exist. They are of kind Usage, so that they are not taken for a missing
// object. CreateBucket helps.
var ErrNoBucket = errors.New("bucket does not exist")

// A Resumer is what Get of a remote store returns for an object that is not empty: a reader that can be gone on with after it broke.
type Resumer interface {
	io.ReadCloser
	// Resume returns what follows after at bytes of what this reader gives, of the same version of the object; if there is another one now,
	// an error.
	Resume(ctx context.Context, at int64) (io.ReadCloser, error)
}

// A Batcher is a store that deletes up to Batch keys with one request.
type Batcher interface {
	Store
	Batch() int
}

// Traffic is what the requests of a store carried since it was opened, those that were repeated too.
type Traffic struct {
	Requests       int64
	Sent, Received int64 // bytes of bodies
}

// TrafficOf returns the traffic of a store, or of one that it wraps; zero for stores that make no requests.
func TrafficOf(s Store) Traffic {
	if m, ok := find[interface{ Traffic() Traffic }](s); ok {
		return m.Traffic()
	}
	return Traffic{}
}

// CreateBucket makes the bucket of a store. One that is there and belongs to the caller is no error.
func CreateBucket(ctx context.Context, s Store) error {
	b, ok := find[interface{ CreateBucket(context.Context) error }](s)
	if !ok {
		return replicate.Errorf(replicate.Usage, "%s has no bucket", s.URL())
	}
	return b.CreateBucket(ctx)
}

// Expect tells a store that about n requests will soon come at the same time, so that they do not wait for connections one by one. It does nothing by
// itself: the next request does.
func Expect(s Store, n int) {
	if e, ok := find[interface{ Expect(int) }](s); ok {
		e.Expect(n)
	}
}

// CredentialsOf returns what a process on another machine needs to use a store as this one does: variables of its environment, by name. They are secrets, and some
// end after a while. A store that needs none has none.
func CredentialsOf(ctx context.Context, s Store) (map[string]string, error) {
	if c, ok := find[interface {
		Credentials(context.Context) (map[string]string, error)
	}](s); ok {
		return c.Credentials(ctx)
	}
	return nil, nil
}

// find returns the first of a store and those that it wraps which is a T.
func find[T any](s Store) (T, bool) {
	for s != nil {
		if t, ok := s.(T); ok {
			return t, true
		}
		w, ok := s.(interface{ Unwrap() Store })
		if !ok {
			break
		}
		s = w.Unwrap()
	}
	var none T
	return none, false
}
