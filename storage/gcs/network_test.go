package gcs_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
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
	proxy, env := storagetest.StartProxy(t, storagetest.StartGCS(t), 1)
	storagetest.Setenv(t, env)
	proxy.Set(badnet.Weather{Rate: 0.03, Faults: badnet.AllFaults})
	storagetest.Conformance(t, func(t *testing.T) storage.Store {
		return storage.Retry(open(t, storagetest.Prefix("gs://replicate-test")), hurried)
	})
	if all, faulty := proxy.Requests(); faulty < all/100 {
		t.Errorf("of %d requests %d went wrong", all, faulty)
	}
}

func TestLargeObjects(t *testing.T) {
	proxy, env := storagetest.StartProxy(t, storagetest.StartGCS(t), 1)
	storagetest.Setenv(t, env)
	s := storage.Retry(open(t, "gs://replicate-test"), hurried)
	data := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{}).Read(data)
	storagetest.Put(t, s, "pack/a", data)
	if traffic := storage.TrafficOf(s); traffic.Requests != 1 || traffic.Sent > int64(len(data))+1000 {
		t.Errorf("a put is %+v", traffic)
	}
	proxy.Set(badnet.Weather{Rate: 0.8, Faults: []badnet.Fault{badnet.Cut, badnet.Stall}})
	if got := storagetest.Get(t, s, "pack/a"); !bytes.Equal(got, data) {
		t.Error("another object arrived")
	}
	if traffic := storage.TrafficOf(s); traffic.Received > 3*int64(len(data)) {
		t.Errorf("received %d bytes for %d: each piece began anew", traffic.Received, len(data))
	}

	proxy.Set(badnet.Weather{Rate: 1, Faults: []badnet.Fault{badnet.Cut}})
	body, err := s.Get(t.Context(), "pack/a", 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	proxy.Set(badnet.Weather{})
	storagetest.Put(t, s, "pack/a", make([]byte, len(data)))
	// Google answers 412, of which comes Conflict; the emulator answers 404 for a generation that is no more.
	if got, err := io.ReadAll(body); replicate.KindOf(err) != replicate.Conflict && replicate.KindOf(err) != replicate.NotFound {
		t.Errorf("replaced while it was read: %d bytes, %v", len(got), err)
	}
}

// TestErrors shows what a person reads.
func TestErrors(t *testing.T) {
	proxy, env := storagetest.StartProxy(t, storagetest.StartGCS(t), 1)
	storagetest.Setenv(t, env)
	s := storage.Retry(open(t, "gs://replicate-test/p"), storage.Policy{Patience: time.Nanosecond})
	put := func() error {
		_, err := s.Put(t.Context(), "log/a", strings.NewReader("x"), 1)
		return err
	}
	get := func() error { _, err := s.Get(t.Context(), "log/a", 0, -1); return err }
	stat := func() error { _, err := s.Stat(t.Context(), "log/a"); return err }
	list := func() error {
		for _, err := range s.List(t.Context(), "log/", "") {
			return err
		}
		return nil
	}
	remove := func() error { return s.Delete(t.Context(), "log/a", "log/b") }
	const who = "iris@hooli.iam.gserviceaccount.com does not have storage.objects.create access to the Google Cloud Storage object."
	for _, tt := range []struct {
		name       string
		do         func() error
		answer     badnet.Answer
		kind       replicate.Kind
		text, hint string
	}{
		{"put denied", put, badnet.Answer{Status: 403, Code: "forbidden", Message: who}, replicate.Permission,
			"put gs://replicate-test/p/log/a: permission denied: storage.objects.create on gs://replicate-test",
			"--member=serviceAccount:iris@hooli.iam.gserviceaccount.com --role=roles/storage.objectUser"},
		{"get denied", get, badnet.Answer{Status: 403, Code: "forbidden"}, replicate.Permission,
			"get gs://replicate-test/p/log/a: permission denied: storage.objects.get on gs://replicate-test", "--member=user:YOU"},
		{"list denied", list, badnet.Answer{Status: 403, Code: "forbidden"}, replicate.Permission,
			"list gs://replicate-test/p/log: permission denied: storage.objects.list on gs://replicate-test", "objectUser"},
		{"delete denied", remove, badnet.Answer{Status: 403, Code: "forbidden"}, replicate.Permission, "storage.objects.delete on gs://replicate-test", "objectUser"},
		{"billing", put, badnet.Answer{Status: 403, Code: "accountDisabled", Message: "The billing account for the owning project is disabled."},
			replicate.Permission, "put gs://replicate-test/p/log/a: The billing account for the owning project is disabled", "billing"},
		{"expired", stat, badnet.Answer{Status: 401, Code: "authError"}, replicate.Permission,
			"stat gs://replicate-test/p/log/a: the credentials are wrong or have expired", "gcloud auth application-default login"},
		{"quota", put, badnet.Answer{Status: 403, Code: "quotaExceeded"}, replicate.Full,
			"put gs://replicate-test/p/log/a: the quota is used up", "commits stay on this machine"},
		{"busy", get, badnet.Answer{Status: 429, Code: "rateLimitExceeded"}, replicate.Unavailable,
			"get gs://replicate-test/p/log/a: the server asks for fewer requests", ""},
		{"down", put, badnet.Answer{Status: 503, Code: "backendError", Message: "Backend Error"}, replicate.Unavailable,
			"put gs://replicate-test/p/log/a: Backend Error", ""},
		{"no bucket", get, badnet.Answer{Status: 404, Code: "notFound", Message: "The specified bucket does not exist."}, replicate.Usage,
			"get gs://replicate-test: bucket does not exist", "--create"},
		{"no object", stat, badnet.Answer{Status: 404, Code: "notFound", Message: "No such object: replicate-test/p/log/a"}, replicate.NotFound,
			"stat gs://replicate-test/p/log/a: no such object", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			proxy.Intercept(func(*http.Request) *badnet.Answer { return &tt.answer })
			err := tt.do()
			if err == nil || !strings.HasSuffix(err.Error(), tt.text) || replicate.KindOf(err) != tt.kind || !strings.Contains(replicate.HintOf(err), tt.hint) {
				t.Errorf("%v\nhint %s\nkind %s\nwant %s", err, replicate.HintOf(err), replicate.KindOf(err), tt.text)
			}
		})
	}
}

func TestBucketIsCreated(t *testing.T) {
	storagetest.Setenv(t, storagetest.StartGCS(t).Env())
	s := open(t, "gs://another-bucket/x")
	list := func() (err error) {
		for _, err = range s.List(t.Context(), "", "") {
			break
		}
		return err
	}
	if err := list(); !errors.Is(err, storage.ErrNoBucket) || replicate.KindOf(err) == replicate.NotFound {
		t.Fatal(err)
	}
	for range 2 {
		if err := storage.CreateBucket(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	storagetest.Put(t, s, "log/a", []byte("x"))
}

func TestNoCredentials(t *testing.T) {
	home := t.TempDir()
	for name, value := range map[string]string{
		"STORAGE_EMULATOR_HOST": "", "GOOGLE_APPLICATION_CREDENTIALS": "", "HOME": home, "GCE_METADATA_HOST": "127.0.0.1:1", "CLOUDSDK_CONFIG": home,
	} {
		t.Setenv(name, value)
	}
	t.Run("broken file", func(t *testing.T) {
		file := filepath.Join(home, "key.json")
		if err := os.WriteFile(file, []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", file)
		_, err := storage.WithPolicy(open(t, "gs://b"), storage.Policy{Patience: time.Nanosecond}).Stat(t.Context(), "a")
		if replicate.KindOf(err) != replicate.Permission || !strings.Contains(replicate.HintOf(err), "GOOGLE_APPLICATION_CREDENTIALS") {
			t.Errorf("%v, hint %s", err, replicate.HintOf(err))
		}
	})
}
