package s3_test

import (
	"testing"

	"github.com/replicate/replicate/storage"
	_ "github.com/replicate/replicate/storage/s3"
	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/servers"
)

func open(t *testing.T, url string) storage.Store {
	t.Helper()
	s, err := storage.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func conformance(t *testing.T, server *servers.Server) {
	storagetest.Setenv(t, server.Env())
	storagetest.Conformance(t, func(t *testing.T) storage.Store { return open(t, storagetest.Prefix(server.URL)) })
}

func TestConformanceGoFakeS3(t *testing.T) { conformance(t, storagetest.StartS3(t)) }

func TestConformanceVersity(t *testing.T) { conformance(t, storagetest.StartVersity(t)) }
