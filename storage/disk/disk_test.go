package disk_test

import (
	"testing"

	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/storagetest"
)

func TestConformance(t *testing.T) {
	storagetest.Conformance(t, func(t *testing.T) storage.Store { return open(t, t.TempDir()) })
}

func open(t *testing.T, dir string) *disk.Store {
	t.Helper()
	s, err := disk.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
