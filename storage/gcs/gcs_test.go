package gcs_test

import (
	"testing"

	"github.com/replicate/replicate/storage"
	_ "github.com/replicate/replicate/storage/gcs"
	"github.com/replicate/replicate/storage/storagetest"
)

func open(t *testing.T, url string) storage.Store {
	t.Helper()
	s, err := storage.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestConformance(t *testing.T) {
	server := storagetest.StartGCS(t)
	storagetest.Setenv(t, server.Env())
	storagetest.Conformance(t, func(t *testing.T) storage.Store { return open(t, storagetest.Prefix(server.URL)) })
}
