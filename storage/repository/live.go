package repository

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// Live returns the files in which writers of this machine keep a stream of an experiment until its end, by writer: everything from position
// 0, published or not. Such a file only grows, but for half a point after a crash. Of a storage that is not local there are none.
func (r *Repository) Live(experiment replicate.ID, kind StreamKind) map[string]string {
	local, ok := r.store.(storage.Local)
	if !ok {
		return nil
	}
	paths, err := filepath.Glob(filepath.Join(local.Dir(), "tmp", writersName, string(experiment)+"-*", string(kind)))
	if err != nil {
		return nil
	}
	files := make(map[string]string, len(paths))
	for _, path := range paths {
		_, writer, _ := strings.Cut(filepath.Base(filepath.Dir(path)), "-")
		files[writer] = path
	}
	return files
}

// Keeper returns the folder of the writer that keeps an experiment on this machine, and ends it: "" if there is none, or if the storage is not local.
func (r *Repository) Keeper(experiment replicate.ID) string {
	local, ok := r.store.(storage.Local)
	if !ok {
		return ""
	}
	dirs, err := filepath.Glob(filepath.Join(local.Dir(), "tmp", writersName, string(experiment)+"-*"))
	if err != nil {
		return ""
	}
	for _, dir := range dirs {
		text, err := os.ReadFile(filepath.Join(dir, metaName))
		if err != nil {
			continue
		}
		if m, err := parseMeta(text); err == nil && !m.Guest {
			return dir
		}
	}
	return ""
}

// ParsePoint reads a line of such a file.
func ParsePoint(line []byte) (Point, error) { return parsePoint(line) }
