package gcs_test

import (
	"testing"

	"github.com/replicate/replicate/storage"
	_ "github.com/replicate/replicate/storage/gcs"
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

func TestConformance(t *testing.T) {
	storagetest.Clouds(t, "gs", open, map[string]func(testing.TB) *servers.Server{"fake-gcs-server": storagetest.StartGCS})
}
