package storage

import (
	"context"
	"net/url"
	"path"
	"strings"

	"github.com/replicate/replicate"
)

// A Bucket is the part of a bucket that a store lies in.
type Bucket struct {
	Scheme string // s3
	Name   string
	Prefix string // of all keys: empty, or ends with a slash
	Wild   bool   // keys are any text: the view of a Wild store
}

// CheckKey reports what is wrong with a key.
func (b Bucket) CheckKey(key string) error {
	if b.Wild && key != "" {
		return nil
	}
	return CheckKey(key)
}

// RegisterBucket makes Open know a scheme whose stores lie in buckets, as open returns them: calls are tried again, as for a Person who waits.
func RegisterBucket(scheme string, open func(Bucket) Store) {
	Register(scheme, func(_ context.Context, u *url.URL) (Store, error) {
		bucket, err := ParseBucket(u)
		if err != nil {
			return nil, err
		}
		return Retry(open(bucket), Person), nil
	})
}

// ParseBucket reads scheme://bucket/prefix.
func ParseBucket(u *url.URL) (Bucket, error) {
	if u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Port() != "" {
		return Bucket{}, replicate.Errorf(replicate.Usage, "want %s://bucket or %s://bucket/prefix", u.Scheme, u.Scheme)
	}
	b := Bucket{Scheme: u.Scheme, Name: u.Host}
	if prefix := strings.Trim(u.Path, "/"); prefix != "" {
		if path.Clean("/"+prefix) != "/"+prefix {
			return Bucket{}, replicate.Errorf(replicate.Usage, "%q is not a prefix", prefix)
		}
		b.Prefix = prefix + "/"
	}
	return b, nil
}

// URL names the bucket and the prefix.
func (b Bucket) URL() string {
	return b.Scheme + "://" + strings.TrimSuffix(b.Name+"/"+b.Prefix, "/")
}

// BucketURL names the bucket alone.
func (b Bucket) BucketURL() string { return b.Scheme + "://" + b.Name }

// Listing returns where a listing of a bucket begins: the full prefix, and a full key which is not greater than the first one of the listing.
// It is empty where the listing is: ok is false, and no server need be asked. What a server sends from there is sifted by Listed.
func (b Bucket) Listing(prefix, after string) (fullPrefix, from string, ok bool) {
	if b.CheckKey(prefix+"x") != nil {
		return "", "", false
	}
	if after > prefix && !strings.HasPrefix(after, prefix) {
		return "", "", false
	}
	fullPrefix = b.Prefix + prefix
	if after <= prefix {
		return fullPrefix, "", true
	}
	odd := strings.IndexFunc(after, func(r rune) bool { return r != '/' && !IsName("x"+string(r)) })
	if odd >= 0 { // servers may stumble over it
		after = after[:odd]
	}
	return fullPrefix, b.Prefix + after, true
}

// Listed returns the key of an object of a bucket by its full name, and whether a listing behind after shows it: others' objects have
// no keys.
func (b Bucket) Listed(name, after string) (key string, ok bool) {
	key, ok = strings.CutPrefix(name, b.Prefix)
	return key, ok && key > after && b.CheckKey(key) == nil
}
