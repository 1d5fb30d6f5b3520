package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestLinkNewWithoutHardLinks moves folders, which cannot be linked, as no file can on some file systems.
func TestLinkNewWithoutHardLinks(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "target")
	for _, name := range []string{"first", "second"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := linkNew(filepath.Join(dir, name), target); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(target); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "first")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the first one did not move: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "second")); err != nil {
		t.Errorf("the second one did: %v", err)
	}
}
