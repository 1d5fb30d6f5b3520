package s3_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/badnet"
)

// hurried gives up what is frozen after so long, on machines that are busy, and nothing else.
var hurried = storage.Policy{Silence: 5 * time.Second}

func TestConformanceThroughABadNetwork(t *testing.T) {
	proxy, env := storagetest.StartProxy(t, storagetest.StartS3(t), 1)
	storagetest.Setenv(t, env)
	proxy.Set(badnet.Weather{RTT: time.Millisecond, Rate: 0.03, Faults: badnet.AllFaults})
	storagetest.Conformance(t, func(t *testing.T) storage.Store {
		return storage.Retry(open(t, storagetest.Prefix("s3://replicate-test")), hurried)
	})
	if all, faulty := proxy.Requests(); faulty < all/100 {
		t.Errorf("of %d requests %d went wrong", all, faulty)
	}
}

func TestLargeObjectsArriveInPieces(t *testing.T) {
	proxy, env := storagetest.StartProxy(t, storagetest.StartS3(t), 1)
	storagetest.Setenv(t, env)
	s := storage.Retry(open(t, "s3://replicate-test"), hurried)
	data := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	storagetest.Put(t, s, "pack/a", data)
	proxy.Set(badnet.Weather{Rate: 0.8, Faults: []badnet.Fault{badnet.Cut, badnet.Stall}})
	if got := storagetest.Get(t, s, "pack/a"); !bytes.Equal(got, data) {
		t.Error("another object arrived")
	}
	if traffic := storage.TrafficOf(s); traffic.Received > 3*int64(len(data)) {
		t.Errorf("received %d bytes for %d: each piece began anew", traffic.Received, len(data))
	}
}

func TestReplacedWhileRead(t *testing.T) {
	proxy, env := storagetest.StartProxy(t, storagetest.StartS3(t), 1)
	storagetest.Setenv(t, env)
	s := open(t, "s3://replicate-test")
	storagetest.Put(t, s, "live/a", make([]byte, 1<<20))
	proxy.Set(badnet.Weather{Rate: 1, Faults: []badnet.Fault{badnet.Cut}})
	body, err := s.Get(t.Context(), "live/a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	proxy.Set(badnet.Weather{})
	storagetest.Put(t, s, "live/a", bytes.Repeat([]byte{1}, 1<<20))
	if got, err := io.ReadAll(body); replicate.KindOf(err) != replicate.Conflict {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestOutage(t *testing.T) {
	proxy, env := storagetest.StartProxy(t, storagetest.StartS3(t), 1)
	storagetest.Setenv(t, env)
	var told []string
	s := storage.Retry(open(t, "s3://replicate-test"), storage.Policy{Tell: func(err error, _ time.Duration) {
		told = append(told, err.Error())
		if len(told) == 3 {
			proxy.Down(false)
		}
	}})
	proxy.Down(true)
	storagetest.Put(t, s, "log/a", nil)
	if len(told) != 3 || !strings.HasPrefix(told[0], "put s3://replicate-test/log/a: ") {
		t.Errorf("told %q", told)
	}
}

// TestErrors shows what a person reads.
func TestErrors(t *testing.T) {
	put := func(t *testing.T, s storage.Store) error {
		_, err := s.Put(t.Context(), "log/a", strings.NewReader("x"), 1)
		return err
	}
	get := func(t *testing.T, s storage.Store) error { _, err := s.Get(t.Context(), "log/a", 0, -1); return err }
	stat := func(t *testing.T, s storage.Store) error { _, err := s.Stat(t.Context(), "log/a"); return err }
	list := func(t *testing.T, s storage.Store) error {
		for _, err := range s.List(t.Context(), "log/", "") {
			return err
		}
		return nil
	}
	remove := func(t *testing.T, s storage.Store) error { return s.Delete(t.Context(), "log/a") }
	removeMany := func(t *testing.T, s storage.Store) error { return s.Delete(t.Context(), "log/a", "log/b") }
	for _, tt := range []struct {
		name       string
		do         func(*testing.T, storage.Store) error
		answer     badnet.Answer
		kind       replicate.Kind
		text, hint string
	}{
		{"put denied", put, badnet.Answer{Status: 403, Code: "AccessDenied"}, replicate.Permission,
			"put s3://replicate-test/p/log/a: permission denied: s3:PutObject on arn:aws:s3:::replicate-test/p/*", "aws iam put-user-policy"},
		{"get denied", get, badnet.Answer{Status: 403, Code: "AccessDenied"}, replicate.Permission,
			"get s3://replicate-test/p/log/a: permission denied: s3:GetObject on arn:aws:s3:::replicate-test/p/*", "allow it and s3:ListBucket"},
		{"list denied", list, badnet.Answer{Status: 403, Code: "AccessDenied"}, replicate.Permission,
			"list s3://replicate-test/p/log: permission denied: s3:ListBucket on arn:aws:s3:::replicate-test", "docs/storage.md"},
		{"delete denied", remove, badnet.Answer{Status: 403, Code: "AccessDenied"}, replicate.Permission,
			"delete s3://replicate-test/p/log/a: permission denied: s3:DeleteObject on arn:aws:s3:::replicate-test/p/*", "docs/storage.md"},
		{"deletes denied", removeMany, badnet.Answer{Status: 403, Code: "AccessDenied"}, replicate.Permission,
			"delete s3://replicate-test/p/log/a: permission denied: s3:DeleteObject on arn:aws:s3:::replicate-test/p/*", "docs/storage.md"},
		{"wrong key", list, badnet.Answer{Status: 403, Code: "InvalidAccessKeyId"}, replicate.Permission,
			"list s3://replicate-test/p/log: the server does not know this access key", "AWS_ACCESS_KEY_ID"},
		{"wrong secret", put, badnet.Answer{Status: 403, Code: "SignatureDoesNotMatch"}, replicate.Permission,
			"put s3://replicate-test/p/log/a: the secret key is wrong", "aws sts get-caller-identity"},
		{"expired", put, badnet.Answer{Status: 400, Code: "ExpiredToken"}, replicate.Permission,
			"put s3://replicate-test/p/log/a: the credentials have expired", "aws sso login"},
		{"expired, asked by HEAD", stat, badnet.Answer{Status: 400, Code: "ExpiredToken"}, replicate.Permission,
			"stat s3://replicate-test/p/log/a: the credentials have expired", "aws sso login"},
		{"wrong secret, asked by HEAD", stat, badnet.Answer{Status: 403, Code: "SignatureDoesNotMatch"}, replicate.Permission,
			"stat s3://replicate-test/p/log/a: the secret key is wrong", "aws sts get-caller-identity"},
		{"clock", put, badnet.Answer{Status: 403, Code: "RequestTimeTooSkewed"}, replicate.Permission,
			"put s3://replicate-test/p/log/a: the clock of this machine is wrong", "timedatectl"},
		{"full", put, badnet.Answer{Status: 507, Code: "XMinioStorageFull"}, replicate.Full,
			"put s3://replicate-test/p/log/a: the storage is full", "commits stay on this machine"},
		{"no bucket", put, badnet.Answer{Status: 404, Code: "NoSuchBucket"}, replicate.Usage,
			"put s3://replicate-test: bucket does not exist", "--create"},
		{"busy", put, badnet.Answer{Status: 503, Code: "SlowDown"}, replicate.Unavailable,
			"put s3://replicate-test/p/log/a: the server asks for fewer requests", ""},
		{"unknown", put, badnet.Answer{Status: 400, Code: "XyzError", Message: "Xyz happened."}, replicate.Internal,
			"put s3://replicate-test/p/log/a: Xyz happened", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy, env := storagetest.StartProxy(t, storagetest.StartS3(t), 1)
			storagetest.Setenv(t, env)
			proxy.Intercept(func(*http.Request) *badnet.Answer { return &tt.answer })
			s := storage.Retry(open(t, "s3://replicate-test/p"), storage.Policy{Patience: time.Nanosecond})
			err := tt.do(t, s)
			e, ok := errors.AsType[*replicate.Error](err)
			if !ok {
				t.Fatalf("%v", err)
			}
			if err.Error() != tt.text || e.Kind != tt.kind || !strings.Contains(e.Hint, tt.hint) {
				t.Errorf("%s\nhint %s\nkind %s\nwant %s", err, e.Hint, e.Kind, tt.text)
			}
		})
	}
}

func TestBucketThatInsistsOnMD5(t *testing.T) {
	proxy, env := storagetest.StartProxy(t, storagetest.StartS3(t), 1)
	storagetest.Setenv(t, env)
	var sums []string
	proxy.Intercept(func(r *http.Request) *badnet.Answer {
		if r.Method != http.MethodPut {
			return nil
		}
		sums = append(sums, r.Header.Get("Content-MD5"))
		if sums[len(sums)-1] == "" {
			return &badnet.Answer{Status: 400, Code: "InvalidRequest", Message: "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters"}
		}
		return nil
	})
	s := open(t, "s3://replicate-test")
	storagetest.Put(t, s, "log/a", []byte("x"))
	storagetest.Put(t, s, "log/b", []byte("y"))
	if want := []string{"", "ndTkYSaMgDT1yFZOFVxnpg==", "QVKQdpWURg4uSFkikE80XQ=="}; !slices.Equal(sums, want) {
		t.Errorf("%q, want %q", sums, want)
	}
}

func TestRegionIsFound(t *testing.T) {
	proxy, env := storagetest.StartProxy(t, storagetest.StartS3(t), 1)
	storagetest.Setenv(t, env)
	var asked []string
	proxy.Intercept(func(r *http.Request) *badnet.Answer {
		_, rest, _ := strings.Cut(r.Header.Get("Authorization"), "/")
		region := strings.Split(rest, "/")[1]
		asked = append(asked, r.Method+" "+region)
		if region != "eu-west-3" {
			return &badnet.Answer{Status: 301, Code: "PermanentRedirect", Header: map[string]string{"X-Amz-Bucket-Region": "eu-west-3"}}
		}
		return nil
	})
	s := open(t, "s3://replicate-test")
	storagetest.Put(t, s, "log/a", []byte("x"))
	if _, err := s.Stat(t.Context(), "log/a"); err != nil || !slices.Equal(asked, []string{"PUT us-east-1", "PUT eu-west-3", "HEAD eu-west-3"}) {
		t.Errorf("asked %q, %v", asked, err)
	}
}

func TestBucketIsCreated(t *testing.T) {
	storagetest.Setenv(t, storagetest.StartS3(t).Env())
	s := open(t, "s3://another-bucket/x")
	_, err := s.Put(t.Context(), "log/a", strings.NewReader("x"), 1)
	if !errors.Is(err, storage.ErrNoBucket) || replicate.KindOf(err) == replicate.NotFound {
		t.Fatal(err)
	}
	for range 2 {
		if err := storage.CreateBucket(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	storagetest.Put(t, s, "log/a", []byte("x"))
}

func TestBadCredentials(t *testing.T) {
	server := storagetest.StartVersity(t)
	for _, tt := range []struct {
		name       string
		env        map[string]string
		text, hint string
	}{
		{"none", map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "no credentials found", "aws configure"},
		{"unknown key", map[string]string{"AWS_ACCESS_KEY_ID": "nobody"}, "the server does not know this access key", "AWS_ACCESS_KEY_ID"},
		{"wrong secret", map[string]string{"AWS_SECRET_ACCESS_KEY": "guess"}, "the secret key is wrong", "AWS_SECRET_ACCESS_KEY"},
		{"no such profile", map[string]string{"AWS_PROFILE": "iris"}, "failed to get shared config profile, iris", "AWS_PROFILE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			storagetest.Setenv(t, server.Env())
			storagetest.Setenv(t, tt.env)
			_, err := open(t, server.URL).Get(t.Context(), "replicate.json", 0, -1)
			if err == nil || !strings.HasSuffix(err.Error(), ": "+tt.text) || !strings.Contains(replicate.HintOf(err), tt.hint) {
				t.Errorf("%v\nhint %s", err, replicate.HintOf(err))
			}
		})
	}
}
