package view

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/replicate/replicate"
)

func TestExportIsTheTree(t *testing.T) {
	l := newLab(t)
	l.story()
	out := t.TempDir()
	var told int64
	l.must(l.Export(t.Context(), out, func(files int64) { told = files }))

	files := l.sameAsTree(out)
	if told != files {
		t.Errorf("told of %d files, wrote %d", told, files)
	}
	for _, name := range []string{"experiments/67386ce/commits/00000001-*/model.bin", "experiments/67386ce/output.log", "latest"} {
		if found, _ := filepath.Glob(filepath.Join(out, name)); len(found) != 1 {
			t.Errorf("%s is %v", name, found)
		}
	}
}

func TestExportOfSomeKnowsNoOthers(t *testing.T) {
	l := newLab(t)
	l.story()
	l.index = Only(l.index, []replicate.ID{"67386ce1f0c24d5b8a2e7d9c3b6f4a10"})
	out := t.TempDir()
	l.must(l.Export(t.Context(), out, nil))

	l.sameAsTree(out)
	l.must(filepath.WalkDir(out, func(path string, d fs.DirEntry, err error) error {
		if err != nil || strings.Contains(path, "9cce006") {
			t.Errorf("%s: %v", path, err)
		}
		if d.Type().IsRegular() {
			text, _ := os.ReadFile(path)
			if strings.Contains(string(text), "9cce006") {
				t.Errorf("%s speaks of the other experiment", path)
			}
		}
		return nil
	}))
	if target, err := os.Readlink(filepath.Join(out, "latest")); target != "experiments/67386ce" {
		t.Errorf("latest leads to %q, %v", target, err)
	}
}

// sameAsTree compares a folder with what the view shows, but for what is not exported. It returns the number of files and links of commits,
// and of other files.
func (l *lab) sameAsTree(out string) (files int64) {
	t := l.t
	seen := map[string]bool{out: true}
	l.walk(func(path string, _ ID, e Entry) {
		if path == "README.txt" || path == "commits" || strings.HasPrefix(path, "commits/") {
			return
		}
		name := filepath.Join(out, path)
		seen[name] = true
		a, err := l.Attr(t.Context(), e.ID)
		l.must(err)
		info, err := os.Lstat(name)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
		if info.ModTime().UnixNano() != a.Mtime || e.Mode&TypeMask != TypeLink && uint32(info.Mode().Perm()) != a.Mode&0o777 {
			t.Errorf("%s: has %v, %v, want %+v", path, info.Mode(), info.ModTime(), a)
		}
		switch e.Mode & TypeMask {
		case TypeLink:
			want, err := l.Link(t.Context(), e.ID)
			l.must(err)
			if got, _ := os.Readlink(name); got != want {
				t.Errorf("%s leads to %q, want %q", path, got, want)
			}
			if e.ID.class() == commitFile {
				files++
			}
		case TypeFile:
			files++
			if got, _ := os.ReadFile(name); string(got) != l.read(e.ID) {
				t.Errorf("%s has other bytes", path)
			}
		}
	})
	l.must(filepath.WalkDir(out, func(path string, _ fs.DirEntry, err error) error {
		if !seen[path] {
			t.Errorf("%s is in no view", path)
		}
		return err
	}))
	return files
}
