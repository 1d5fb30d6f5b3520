// Package gcs keeps objects in a bucket of Google Cloud Storage: the storage of URLs gs://bucket/prefix.
//
// Credentials are the application default ones; with STORAGE_EMULATOR_HOST set, the client talks to that host. Nothing is authenticated
// on the way to an address that is not https, so that no token is ever sent in the clear.
//
// The package uses no conditional writes and no resumable uploads: an object is one request, whose body is checked by its MD5. The store's
// clock is the Date of the server's answers, in seconds; Object.Time is the object's time of update.
//
// Each call makes one attempt; New's store is meant to be wrapped by storage.Retry, as the registered Opener does. The client is made by
// the first call, not before.
package gcs

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"errors"
	"io"
	"iter"
	"math"
	"time"

	gcs "cloud.google.com/go/storage"
	"google.golang.org/api/iterator"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/wire"
)

const (
	// clockKey is what Now asks for: whether it is there does not matter.
	clockKey = "replicate.json"
	// page is how many objects one request lists. It is the server's default, but emulators list everything unless told.
	page = 1000
)

// A Store keeps objects in a bucket.
type Store struct {
	bucket storage.Bucket
	client *client
}

var (
	_ storage.Wild    = (*Store)(nil)
	_ storage.Batcher = (*Store)(nil)
)

func init() {
	storage.RegisterBucket("gs", func(b storage.Bucket) storage.Store { return New(b) })
}

// New returns the store of a bucket. It reads and asks nothing yet.
func New(bucket storage.Bucket) *Store { return &Store{bucket, &client{}} }

// Wild returns the bucket with all objects in it, whatever their names.
func (s *Store) Wild() storage.Store {
	bucket := s.bucket
	bucket.Wild = true
	return &Store{bucket, s.client}
}

// URL returns gs://bucket/prefix.
func (s *Store) URL() string { return s.bucket.URL() }

// Traffic counts the requests made so far, those for credentials left out.
func (s *Store) Traffic() storage.Traffic { return s.client.transport.meter.Traffic() }

// object returns the handle of an object.
func (s *Store) object(ctx context.Context, key string) (*gcs.ObjectHandle, error) {
	if err := cmp.Or(ctx.Err(), s.bucket.CheckKey(key)); err != nil {
		return nil, err
	}
	c, err := s.client.get(ctx)
	if err != nil {
		return nil, err
	}
	return c.Bucket(s.bucket.Name).Object(s.bucket.Prefix + key), nil
}

// Get reads a part of an object.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if n == 0 { // no range says so
		if _, err := s.Stat(ctx, key); err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	return s.get(ctx, key, off, n, 0)
}

// get reads n bytes from off, of a generation if there is one.
func (s *Store) get(ctx context.Context, key string, off, n, generation int64) (io.ReadCloser, error) {
	o, err := s.object(ctx, key)
	if err != nil {
		return nil, s.failed("get", key, err)
	}
	if generation != 0 {
		o = o.If(gcs.Conditions{GenerationMatch: generation})
	}
	if n > math.MaxInt64-off {
		n = -1
	}
	body, err := o.NewRangeReader(ctx, off, n)
	if status(err) == statusRange { // behind the end
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	if err != nil {
		return nil, s.failed("get", key, err)
	}
	if generation != 0 && body.Attrs.Generation != generation { // not every server compares them
		body.Close()
		e := s.failed("get", key, errReplaced)
		e.Kind = replicate.Conflict
		return nil, e
	}
	return &reader{body, s, key, off, n}, nil
}

// A reader is n bytes, or all if n < 0, from off of one generation of an object.
type reader struct {
	*gcs.Reader
	store  *Store
	key    string
	off, n int64
}

var _ storage.Resumer = (*reader)(nil)

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	e := r.store.failed("get", r.key, err)
	if e.Kind == replicate.NotFound { // the library asked for this generation again: there may be another one by now
		e.Kind, e.Err = replicate.Unavailable, errReplaced
	}
	return n, e
}

// Resume reads the same generation again from at bytes behind the reader's beginning.
func (r *reader) Resume(ctx context.Context, at int64) (io.ReadCloser, error) {
	n := r.n
	if n >= 0 {
		n -= at
	}
	return r.store.get(ctx, r.key, r.off+at, n, r.Attrs.Generation)
}

// Put stores an object.
func (s *Store) Put(ctx context.Context, key string, from io.ReadSeeker, n int64) (time.Time, error) {
	o, err := s.object(ctx, key)
	if err != nil {
		return time.Time{}, s.failed("put", key, err)
	}
	sum := md5.New()
	body, err := wire.NewBody(from, n, sum)
	if err != nil { // of the caller's, no network's
		return time.Time{}, &replicate.Error{Op: "put", Path: s.bucket.URL() + "/" + key, Kind: replicate.KindOf(err), Err: err}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // without it, a writer that is not closed goes on
	w := o.NewWriter(ctx)
	w.ChunkSize = 0 // else 16 MiB of buffer and several requests for each object
	w.MD5 = sum.Sum(nil)
	w.ContentType = "application/octet-stream"
	w.DisableAutoChecksum = true
	if _, err := io.Copy(w, body); err != nil {
		return time.Time{}, s.failed("put", key, err)
	}
	if err := w.Close(); err != nil {
		return time.Time{}, s.failed("put", key, err)
	}
	return w.Attrs().Updated, nil
}

// List yields objects, a page at a time.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		c, err := s.client.get(ctx)
		if err := cmp.Or(ctx.Err(), err); err != nil {
			yield(storage.Object{}, s.failed("list", prefix, err))
			return
		}
		full, from, ok := s.bucket.Listing(prefix, after)
		if !ok {
			return
		}
		query := &gcs.Query{Prefix: full, StartOffset: from, Projection: gcs.ProjectionNoACL}
		query.SetAttrSelection([]string{"Name", "Size", "Updated"})
		objects := c.Bucket(s.bucket.Name).Objects(ctx, query)
		objects.PageInfo().MaxSize = page
		for {
			o, err := objects.Next()
			if err == iterator.Done {
				return
			}
			if err != nil {
				yield(storage.Object{}, s.failed("list", prefix, err))
				return
			}
			if key, ok := s.bucket.Listed(o.Name, after); ok && !yield(storage.Object{Key: key, Size: o.Size, Time: o.Updated}, nil) {
				return
			}
		}
	}
}

// Stat returns an object without its bytes.
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	o, err := s.object(ctx, key)
	if err != nil {
		return storage.Object{}, s.failed("stat", key, err)
	}
	attrs, err := o.Attrs(ctx)
	if err != nil {
		return storage.Object{}, s.failed("stat", key, err)
	}
	return storage.Object{Key: key, Size: attrs.Size, Time: attrs.Updated}, nil
}

// Batch is how many keys one request deletes.
func (s *Store) Batch() int { return 1 }

// Delete removes objects, in order, up to the first error.
func (s *Store) Delete(ctx context.Context, keys ...string) error {
	if err := ctx.Err(); err != nil {
		return s.failed("delete", "", err)
	}
	for _, key := range keys {
		o, err := s.object(ctx, key)
		if err == nil {
			err = o.Delete(ctx)
		}
		if err != nil && (noBucket(err) || !errors.Is(err, gcs.ErrObjectNotExist)) {
			return s.failed("delete", key, err)
		}
	}
	return nil
}

// Now returns the Date of an answer, which may be that the object asked for is missing or hidden.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	ctx, date := wire.NoteDate(ctx)
	o, err := s.object(ctx, clockKey)
	if err == nil {
		_, err = o.Attrs(ctx)
	}
	if !date.IsZero() && (err == nil || status(err) == statusMissing || status(err) == statusForbidden) {
		return *date, nil
	}
	return time.Time{}, s.failed("read the clock of", "", cmp.Or(err, errNoDate))
}

// CreateBucket makes the bucket in the project of the credentials, for nobody else to see. One that is there and ours is no error.
func (s *Store) CreateBucket(ctx context.Context) error {
	c, err := s.client.get(ctx)
	if err != nil {
		return s.failed("create", "", err)
	}
	project, err := s.client.transport.project(ctx)
	if err != nil {
		return s.failed("create", "", err)
	}
	if project == "" {
		return s.noProject()
	}
	bucket := c.Bucket(s.bucket.Name)
	err = bucket.Create(ctx, project, &gcs.BucketAttrs{
		UniformBucketLevelAccess: gcs.UniformBucketLevelAccess{Enabled: true},
		PublicAccessPrevention:   gcs.PublicAccessPreventionEnforced,
	})
	if status(err) == statusConflict {
		if _, mine := bucket.Attrs(ctx); mine == nil {
			return nil
		}
	}
	if err != nil {
		return s.failed("create", "", err)
	}
	return nil
}
