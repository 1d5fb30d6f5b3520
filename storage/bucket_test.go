package storage_test

import (
	"net/url"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

func TestParseBucket(t *testing.T) {
	for _, tt := range []struct{ url, bucket, prefix, again string }{
		{"s3://b", "b", "", "s3://b"},
		{"s3://b/", "b", "", "s3://b"},
		{"gs://my.bucket-1/a/b/", "my.bucket-1", "a/b/", "gs://my.bucket-1/a/b"},
		{"s3://b/%20x", "b", " x/", "s3://b/ x"},
	} {
		u, err := url.Parse(tt.url)
		if err != nil {
			t.Fatal(err)
		}
		b, err := storage.ParseBucket(u)
		if err != nil || b.Name != tt.bucket || b.Prefix != tt.prefix || b.URL() != tt.again {
			t.Errorf("%s: %+v, %s, %v", tt.url, b, b.URL(), err)
		}
	}
	for _, bad := range []string{"s3:///x", "s3://", "s3://key:secret@b/x", "s3://b?x=y", "s3://b/x#y", "s3://b/../x", "s3://b/a//b", "s3://b/.", "s3://b:80/x"} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := storage.ParseBucket(u); replicate.KindOf(err) != replicate.Usage {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestListing(t *testing.T) {
	b := storage.Bucket{Scheme: "s3", Name: "b", Prefix: "p/"}
	for _, tt := range []struct {
		prefix, after, full, from string
		ok                        bool
	}{
		{"", "", "p/", "", true},
		{"log/", "", "p/log/", "", true},
		{"log/", "gc/x", "p/log/", "", true},
		{"log/", "log/5", "p/log/", "p/log/5", true},
		{"log/", "pack/5", "", "", false},
		{"log/", "log/5\xff", "p/log/", "p/log/5", true},
		{"log/", "log/ä", "p/log/", "p/log/", true},
		{"../", "", "", "", false},
		{"tmp/", "", "", "", false},
	} {
		full, from, ok := b.Listing(tt.prefix, tt.after)
		if full != tt.full || from != tt.from || ok != tt.ok {
			t.Errorf("list %q after %q: %q, %q, %v", tt.prefix, tt.after, full, from, ok)
		}
	}
	for name, want := range map[string]bool{"p/log/a": true, "p/log/": false, "p/log/.x": false, "q/log/a": false, "p/tmp/a": false, "p/gc/a": false} {
		if key, ok := b.Listed(name, "gc/b"); ok != want {
			t.Errorf("%s is listed as %q, %v", name, key, ok)
		}
	}
}
