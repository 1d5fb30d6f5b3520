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

func TestConformance(t *testing.T) {
	storagetest.Clouds(t, "s3", open, map[string]func(testing.TB) *servers.Server{"gofakes3": storagetest.StartS3, "versitygw": storagetest.StartVersity})
}
