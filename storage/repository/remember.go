package repository

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// remember tells the stat cache of the project that files were written to it, so that the next commit there finds their content stored. It
// hashes them once: a file that was written just now may change again within the same tick of the clock.
func (c *checkout) remember(ctx context.Context) {
	prefix, ok := c.inProject()
	if !ok {
		return
	}
	var written []cachedFile
	for _, p := range c.files {
		if p.entry.Kind == File && p.entry.Size > 0 && p.failure.Load() == nil {
			if f, err := c.cached(ctx, p, prefix); err == nil {
				written = append(written, f)
			}
		}
	}
	slices.SortFunc(written, func(a, b cachedFile) int { return ComparePaths(a.path, b.path) })
	path := statCachePath(c.options.Project, c.repository.ID())
	if os.MkdirAll(filepath.Dir(path), 0o700) == nil {
		_ = saveStatCache(path, mergeCached(loadStatCache(path), written)) // without it the bytes are stored again
	}
}

// inProject returns what the paths of the tree have before them in the project, and whether they are in it.
func (c *checkout) inProject() (prefix string, ok bool) {
	if c.options.Project == "" {
		return "", false
	}
	root, err := filepath.EvalSymlinks(c.options.Project)
	if err != nil {
		return "", false
	}
	dir, err := filepath.EvalSymlinks(c.options.Dir)
	if err != nil {
		return "", false
	}
	rel, err := filepath.Rel(root, dir)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	if rel == "." {
		return "", true
	}
	return rel + "/", true
}

// cached is what the stat cache holds of a file whose content is known, and whose stat does not show whether it stays.
func (c *checkout) cached(ctx context.Context, p *slot, prefix string) (cachedFile, error) {
	e := p.entry
	f := cachedFile{path: prefix + e.Path, size: e.Size, mtime: e.Mtime, ctime: neverMatches, hash: e.Hash, extents: e.Extents, recipe: e.Recipe}
	if e.Recipe == nil {
		return f, nil
	}
	chunks, err := c.repository.extents(ctx, e)
	f.packs = newRecipe(chunks).packs
	return f, err
}

// mergeCached merges sorted lists. Of two with one path the first is taken if it says the same, as its stat may tell more.
func mergeCached(old, written []cachedFile) []cachedFile {
	merged := make([]cachedFile, 0, len(old)+len(written))
	for _, f := range written {
		for len(old) > 0 && ComparePaths(old[0].path, f.path) < 0 {
			merged, old = append(merged, old[0]), old[1:]
		}
		if len(old) > 0 && old[0].path == f.path {
			if old[0].hash == f.hash && old[0].size == f.size {
				f = old[0]
			}
			old = old[1:]
		}
		merged = append(merged, f)
	}
	return append(merged, old...)
}
