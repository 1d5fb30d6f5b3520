package storagetest

import (
	"context"
	"crypto/rand"
	"testing"

	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/storagetest/badnet"
	"github.com/replicate/replicate/storage/storagetest/require"
	"github.com/replicate/replicate/storage/storagetest/servers"
)

// StartS3 runs gofakes3 in this process until the test ends.
func StartS3(t testing.TB) *servers.Server {
	t.Helper()
	return started(t)(servers.GoFakeS3())
}

// StartVersity runs versitygw, which speaks all of S3's protocol and checks signatures, until the test ends.
func StartVersity(t testing.TB) *servers.Server {
	t.Helper()
	return started(t)(servers.Versity(require.Tool(t, "versitygw"), t.TempDir()))
}

// StartGCS runs fake-gcs-server until the test ends.
func StartGCS(t testing.TB) *servers.Server {
	t.Helper()
	return started(t)(servers.GCS(require.Tool(t, "fake-gcs-server")))
}

func started(t testing.TB) func(*servers.Server, error) *servers.Server {
	return func(s *servers.Server, err error) *servers.Server {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Close)
		return s
	}
}

// Setenv makes the SDKs of this process find a server, until the test ends.
func Setenv(t testing.TB, env map[string]string) {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
}

// Prefix returns the URL of an empty store below that of a bucket.
func Prefix(bucket string) string { return bucket + "/" + rand.Text() }

// StartProxy runs a bad network in front of a server until the test ends, in fine weather, and returns it with the environment in which
// processes go through it. It says which seed decides what goes wrong.
func StartProxy(t testing.TB, s *servers.Server, seed uint64) (*badnet.Proxy, map[string]string) {
	t.Helper()
	p, err := badnet.New(s.Endpoint, seed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	t.Logf("seed of the network: %d", seed)
	return p, s.EnvVia(p.URL)
}

// Clouds tests the conformance of the stores of a scheme, which open opens: on servers, and on the real bucket that require.Bucket names,
// if any.
func Clouds(t *testing.T, scheme string, open func(t *testing.T, url string) storage.Store, start map[string]func(testing.TB) *servers.Server) {
	for name, start := range start {
		t.Run(name, func(t *testing.T) {
			server := start(t)
			Setenv(t, server.Env())
			Conformance(t, func(t *testing.T) storage.Store { return open(t, Prefix(server.URL)) })
		})
	}
	bucket, ok := require.Bucket(scheme)
	if !ok {
		return
	}
	t.Run("real", func(t *testing.T) {
		Conformance(t, func(t *testing.T) storage.Store {
			s := open(t, Prefix(bucket))
			t.Cleanup(func() { empty(t, s) })
			return s
		})
	})
}

// empty deletes what a test left in a store.
func empty(t *testing.T, s storage.Store) {
	ctx := context.WithoutCancel(t.Context())
	var keys []string
	for o, err := range s.List(ctx, "", "") {
		if err != nil {
			t.Errorf("clean up: %v", err)
			return
		}
		keys = append(keys, o.Key)
	}
	if err := s.Delete(ctx, keys...); err != nil {
		t.Errorf("clean up: %v", err)
	}
}
