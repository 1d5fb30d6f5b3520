package repository

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestChangedSeesWhatACommitWouldSaveOtherwise changes a project after a snapshot in one way each.
func TestChangedSeesWhatACommitWouldSaveOtherwise(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(root string) error
		want   string
	}{
		"Nothing":   {func(string) error { return nil }, ""},
		"Time":      {func(root string) error { return os.Chtimes(root+"/a", time.Time{}, time.Unix(1, 0)) }, ""},
		"LeftOut":   {func(root string) error { return os.WriteFile(root+"/d/out/y", nil, 0o600) }, ""},
		"Content":   {func(root string) error { return os.WriteFile(root+"/d/b", []byte("33"), 0o644) }, "d/b"},
		"Size":      {func(root string) error { return os.Truncate(root+"/a", 0) }, "a"},
		"Mode":      {func(root string) error { return os.Chmod(root+"/a", 0o755) }, "a"},
		"Gone":      {func(root string) error { return os.RemoveAll(root + "/d") }, "d d/.gitignore d/b d/link"},
		"Last gone": {func(root string) error { return os.Remove(root + "/z") }, "z"},
		"New":       {func(root string) error { return os.Mkdir(root+"/d/new", 0o755) }, "d/new"},
		"Link": {func(root string) error {
			return os.Rename(root+"/z", root+"/d/link")
		}, "d/link z"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, diskAt(t, t.TempDir()))
			writeFiles(t, l.root, "a", "1", "d/b", "22", "d/.gitignore", "out\n", "d/out/x", "3", "z", "4")
			must(t, os.Symlink("../a", l.root+"/d/link"))
			w, _ := l.begin(WriterOptions{})
			must(t, os.MkdirAll(filepath.Join(l.root, "data", "pack"), 0o755))
			must(t, tt.change(l.root))
			changed, err := w.tree.Changed(t.Context(), SurveyOptions{Root: l.root, Skip: []string{l.root + "/data"}})
			must(t, err)
			if got := strings.Join(changed, " "); got != tt.want {
				t.Errorf("changed: %s, want %s", got, tt.want)
			}
		})
	}
}
