package legacy_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/replicate/replicate/storage"
	_ "github.com/replicate/replicate/storage/gcs"
	"github.com/replicate/replicate/storage/legacy/legacytest"
	_ "github.com/replicate/replicate/storage/s3"
	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/servers"
)

// upload puts a root into the bucket of a server that asks for no credentials, below a prefix, as the old programs did: keys may be
// any text.
func upload(t *testing.T, server *servers.Server, prefix string, r legacytest.Root) {
	t.Helper()
	for key, data := range r {
		key = prefix + key
		method, at := http.MethodPut, server.Endpoint+"/"+servers.Bucket+(&url.URL{Path: "/" + key}).EscapedPath()
		if strings.HasPrefix(server.URL, "gs:") {
			method, at = http.MethodPost, server.Endpoint+"/upload/storage/v1/b/"+servers.Bucket+"/o?uploadType=media&name="+url.QueryEscape(key)
		}
		check(t, put(t.Context(), method, at, data))
	}
}

func put(ctx context.Context, method, at string, data []byte) error {
	request, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(data))
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %s", method, at, answer.Status)
	}
	return nil
}

func TestS3(t *testing.T)  { testBucket(t, storagetest.StartS3(t)) }
func TestGCS(t *testing.T) { testBucket(t, storagetest.StartGCS(t)) }

func testBucket(t *testing.T, server *servers.Server) {
	storagetest.Setenv(t, server.Env())
	each(t, func(t *testing.T, f legacytest.Format) {
		upload(t, server, f.String()+"/", legacytest.Fixture(f))
		o := openURL(t, server.URL+"/"+f.String())
		got := o.sync(nil)
		if len(got.experiments) != 2 || len(got.commits) != 4 || len(got.errors) > 0 {
			t.Fatalf("%d experiments, %d commits, errors %v", len(got.experiments), len(got.commits), got.errors)
		}
		if again := o.sync(got.keys); len(again.keys) > 0 {
			t.Errorf("yielded again: %v", again.keys)
		}
		for n := 1; n <= 2; n++ {
			files, _ := o.files(got.commit(t, f, 1, n).Row)
			compare(t, files, legacytest.View(f, 1, n), f >= legacytest.F5)
		}
	})
	t.Run("mixed", func(t *testing.T) {
		upload(t, server, "", map[string][]byte{"somebody's/öther file.txt": nil, "metadata/experiments/README": nil})
		upload(t, server, "", legacytest.Mixed())
		o := openURL(t, server.URL)
		got := o.sync(nil)
		if len(got.experiments) != 14 || len(got.commits) != 28 || len(got.errors) > 0 {
			t.Fatalf("%d experiments, %d commits, errors %v", len(got.experiments), len(got.commits), got.errors)
		}
		if ages, err := o.repo.Heartbeats(t.Context()); err != nil || len(ages) > 0 {
			t.Errorf("heartbeats %v, %v", ages, err)
		}
	})
}

func openURL(t *testing.T, at string) *opened {
	t.Helper()
	store, err := storage.Open(t.Context(), at)
	check(t, err)
	return openStore(t, store, t.TempDir())
}
