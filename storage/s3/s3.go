// Package s3 keeps objects in a bucket of Amazon S3, or of what speaks its protocol: the storage of URLs s3://bucket/prefix.
//
// Credentials, region and endpoint are what the AWS SDK finds in the environment and in the files of a profile. A bucket in another region
// than that is found. At an endpoint of one's own, buckets are named in the path, unless it is known to refuse that.
//
// The package uses no conditional requests, no multipart uploads and no checksums that only Amazon knows: a body is checked by the SHA-256 that is
// a part of every signature, and by its MD5 where a bucket insists on one, as with Object Lock: that takes three times as long. The store's clock
// is the Date of the server's answers, in seconds; Object.Time is LastModified.
//
// Each call makes one attempt; New's store is meant to be wrapped by storage.Retry, as the registered Opener does. The SDK is set up
// by the first call, not before.
package s3

import (
	"bytes"
	"cmp"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"net/http"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	awss3 "github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go/middleware"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/wire"
)

// clockKey is what Now asks for: whether it is there does not matter.
const clockKey = "replicate.json"

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
	storage.RegisterBucket("s3", func(b storage.Bucket) storage.Store { return New(b) })
}

// New returns the store of a bucket. It reads and asks nothing yet.
func New(bucket storage.Bucket) *Store { return &Store{bucket, newClient()} }

// Wild returns the bucket with all objects in it, whatever their names.
func (s *Store) Wild() storage.Store {
	bucket := s.bucket
	bucket.Wild = true
	return &Store{bucket, s.client}
}

// URL returns s3://bucket/prefix.
func (s *Store) URL() string { return s.bucket.URL() }

// Traffic counts the requests made so far.
func (s *Store) Traffic() storage.Traffic { return s.client.meter.Traffic() }

// Expect makes connections for n requests that will come at the same time.
func (s *Store) Expect(n int) { s.client.spares.Want(n) }

func (s *Store) name(key string) *string { return aws.String(s.bucket.Prefix + key) }

// Get reads a part of an object.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := cmp.Or(ctx.Err(), s.bucket.CheckKey(key)); err != nil {
		return nil, s.failed("get", key, err)
	}
	if n == 0 { // no range says so
		if _, err := s.Stat(ctx, key); err != nil {
			return nil, err
		}
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	return s.get(ctx, key, off, n, nil)
}

// get reads n bytes from off, of the version with an ETag if there is one.
func (s *Store) get(ctx context.Context, key string, off, n int64, tag *string) (io.ReadCloser, error) {
	in := &awss3.GetObjectInput{Bucket: &s.bucket.Name, Key: s.name(key), IfMatch: tag}
	if off > 0 || n >= 0 {
		in.Range = aws.String(byteRange(off, n))
	}
	out, err := call(ctx, s, (*awss3.Client).GetObject, in)
	if status(err) == statusRange { // behind the end
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	if err != nil {
		return nil, s.failed("get", key, err)
	}
	switch {
	case off > 0 && out.ContentRange == nil:
		err = errors.New("the server ignores ranges")
	case tag != nil && aws.ToString(out.ETag) != *tag: // not every server compares them
		err = errReplaced
	}
	if err != nil {
		out.Body.Close()
		return nil, s.failed("get", key, err)
	}
	if n < 0 {
		n = math.MaxInt64 - off
	}
	return &reader{io.LimitReader(out.Body, n), out.Body, s, key, off, n, out.ETag}, nil
}

func byteRange(off, n int64) string {
	if n < 0 || n > math.MaxInt64-off {
		return fmt.Sprintf("bytes=%d-", off)
	}
	return fmt.Sprintf("bytes=%d-%d", off, off+n-1)
}

// A reader is n bytes from off of one version of an object.
type reader struct {
	io.Reader
	body   io.Closer
	store  *Store
	key    string
	off, n int64
	tag    *string
}

var _ storage.Resumer = (*reader)(nil)

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err != nil && err != io.EOF {
		err = r.store.failed("get", r.key, err)
	}
	return n, err
}

func (r *reader) Close() error { return r.body.Close() }

// Resume reads the same version again from at bytes behind the reader's beginning.
func (r *reader) Resume(ctx context.Context, at int64) (io.ReadCloser, error) {
	return r.store.get(ctx, r.key, r.off+at, r.n-at, r.tag)
}

// Put stores an object.
func (s *Store) Put(ctx context.Context, key string, from io.ReadSeeker, n int64) (time.Time, error) {
	if err := cmp.Or(ctx.Err(), storage.CheckKey(key)); err != nil {
		return time.Time{}, s.failed("put", key, err)
	}
	withMD5 := s.client.withMD5.Load()
	date, err := s.put(ctx, key, from, n, withMD5)
	if wantsMD5(err) && !withMD5 {
		s.client.withMD5.Store(true)
		date, err = s.put(ctx, key, from, n, true)
	}
	return date, err
}

func (s *Store) put(ctx context.Context, key string, from io.ReadSeeker, n int64, withMD5 bool) (time.Time, error) {
	signed, tag := sha256.New(), md5.New()
	sums := []io.Writer{signed}
	if withMD5 {
		sums = append(sums, tag)
	}
	body, err := wire.NewBody(from, n, sums...)
	if err != nil { // of the caller's, no network's
		return time.Time{}, &replicate.Error{Op: "put", Path: s.bucket.URL() + "/" + key, Kind: replicate.KindOf(err), Err: err}
	}
	in := &awss3.PutObjectInput{Bucket: &s.bucket.Name, Key: s.name(key), Body: body, ContentLength: &n}
	if withMD5 {
		in.ContentMD5 = aws.String(base64.StdEncoding.EncodeToString(tag.Sum(nil)))
	}
	ctx, date := wire.NoteDate(ctx)
	_, err = call(ctx, s, (*awss3.Client).PutObject, in, withSHA256(hex.EncodeToString(signed.Sum(nil))))
	if err == nil && date.IsZero() {
		err = errNoDate
	}
	if err != nil {
		return time.Time{}, s.failed("put", key, err)
	}
	return *date, nil
}

// withSHA256 spares the SDK computing what is signed of a body, which would be read once more.
func withSHA256(sum string) func(*awss3.Options) {
	return func(o *awss3.Options) {
		o.APIOptions = append(o.APIOptions, func(stack *middleware.Stack) error {
			return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("KnownPayloadHash",
				func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
					return next.HandleInitialize(v4.SetPayloadHash(ctx, sum), in)
				}), middleware.Before)
		})
	}
}

// List yields objects, a page at a time.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		if err := ctx.Err(); err != nil {
			yield(storage.Object{}, s.failed("list", prefix, err))
			return
		}
		full, from, ok := s.bucket.Listing(prefix, after)
		in := &awss3.ListObjectsV2Input{Bucket: &s.bucket.Name, Prefix: &full, StartAfter: optional(from)}
		for ok {
			out, err := call(ctx, s, (*awss3.Client).ListObjectsV2, in)
			if err != nil {
				yield(storage.Object{}, s.failed("list", prefix, err))
				return
			}
			for _, o := range out.Contents {
				if key, ok := s.bucket.Listed(aws.ToString(o.Key), after); ok &&
					!yield(storage.Object{Key: key, Size: aws.ToInt64(o.Size), Time: aws.ToTime(o.LastModified)}, nil) {
					return
				}
			}
			in.ContinuationToken = out.NextContinuationToken
			ok = aws.ToBool(out.IsTruncated)
		}
	}
}

// Stat returns an object without its bytes.
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := cmp.Or(ctx.Err(), s.bucket.CheckKey(key)); err != nil {
		return storage.Object{}, s.failed("stat", key, err)
	}
	out, err := call(ctx, s, (*awss3.Client).HeadObject, &awss3.HeadObjectInput{Bucket: &s.bucket.Name, Key: s.name(key)})
	if err != nil {
		return storage.Object{}, s.failed("stat", key, s.reason(ctx, key, err))
	}
	return storage.Object{Key: key, Size: aws.ToInt64(out.ContentLength), Time: aws.ToTime(out.LastModified)}, nil
}

// reason returns why a HEAD was refused: its answer has no words, that of a GET has.
func (s *Store) reason(ctx context.Context, key string, err error) error {
	if status(err) != http.StatusBadRequest && status(err) != statusForbidden {
		return err
	}
	out, why := call(ctx, s, (*awss3.Client).GetObject, &awss3.GetObjectInput{Bucket: &s.bucket.Name, Key: s.name(key), Range: aws.String(byteRange(0, 1))})
	if why != nil {
		return why
	}
	out.Body.Close()
	return err
}

// Now returns the Date of an answer, which may be that the object asked for is missing or hidden.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	if err := ctx.Err(); err != nil {
		return time.Time{}, s.failed("read the clock of", "", err)
	}
	ctx, date := wire.NoteDate(ctx)
	_, err := call(ctx, s, (*awss3.Client).HeadObject, &awss3.HeadObjectInput{Bucket: &s.bucket.Name, Key: s.name(clockKey)})
	if !date.IsZero() && (err == nil || status(err) == statusMissing || status(err) == statusForbidden) {
		return *date, nil
	}
	return time.Time{}, s.failed("read the clock of", "", cmp.Or(err, errNoDate))
}

// CreateBucket makes the bucket, in the region of the credentials. One that is there and ours is no error.
func (s *Store) CreateBucket(ctx context.Context) error {
	region, err := s.client.region(ctx)
	if err != nil {
		return s.failed("create", "", err)
	}
	in := &awss3.CreateBucketInput{Bucket: &s.bucket.Name, CreateBucketConfiguration: location(region)}
	_, err = call(ctx, s, (*awss3.Client).CreateBucket, in)
	switch codeOf(err) {
	case "BucketAlreadyOwnedByYou":
		return nil
	case "BucketAlreadyExists": // ours too, in the words of some servers
		if _, hidden := call(ctx, s, (*awss3.Client).HeadBucket, &awss3.HeadBucketInput{Bucket: &s.bucket.Name}); hidden == nil {
			return nil
		}
	}
	if err != nil {
		return s.failed("create", "", err)
	}
	return nil
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
