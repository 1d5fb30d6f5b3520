package repository

import (
	"fmt"
	"iter"
	"sort"
	"strings"

	"github.com/replicate/replicate"
)

// A Tree is every path of a commit: what the working directory was. It is flat and sorted by path bytes with "/" lowest, so
// that a directory's entries are contiguous and follow it. Do not change it.
type Tree struct {
	Entries []Entry
	Files   int64 // regular files and symlinks
	Bytes   int64 // sum of the sizes of regular files

	Notes []string // what is missing, a sentence each: only trees of a Foreign have them
}

// An EntryKind is what stands at a path.
type EntryKind uint8

const (
	File EntryKind = iota
	Link
	Dir
)

// An Entry is one path of a tree.
type Entry struct {
	Path   string // relative to the root, "/" between names, any bytes but NUL
	Kind   EntryKind
	Mode   uint32 // permission bits, setuid, setgid and sticky: 07777
	Size   int64
	Mtime  int64 // nanoseconds since 1970
	Hash   replicate.Hash
	Target string // of a Link
	Torn   bool   // changed while it was read, three times

	Extents []Extent // where a file's bytes are, in order, up to 8 of them; empty for an empty file
	Recipe  *Ref     // the frame with the extents of a larger file
}

// An Extent is a stretch of a file: Size bytes of a decoded frame from From. In a file of one extent the Ref's Hash is zero, as the
// file's own hash verifies the bytes.
type Extent struct {
	Ref
	From uint32
}

// ComparePaths is the order of a tree: by bytes with "/" lowest, so that "a/b" comes before "a-b" and a directory's subtree is contiguous.
func ComparePaths(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		x, y := a[i], b[i]
		switch {
		case x == y:
		case x == '/':
			return -1
		case y == '/':
			return 1
		case x < y:
			return -1
		default:
			return 1
		}
	}
	return len(a) - len(b)
}

// search returns the index of the first entry that is not before path.
func (t *Tree) search(path string) (i int, found bool) {
	return sort.Find(len(t.Entries), func(i int) int { return ComparePaths(path, t.Entries[i].Path) })
}

// Lookup returns the entry of a path, nil if there is none. The root, "", has no entry.
func (t *Tree) Lookup(path string) *Entry {
	if i, found := t.search(path); found {
		return &t.Entries[i]
	}
	return nil
}

// Range returns which entries lie below a directory, at any depth: Entries[from:to]. The root is "".
func (t *Tree) Range(dir string) (from, to int) {
	if dir == "" {
		return 0, len(t.Entries)
	}
	from, found := t.search(dir)
	if found {
		from++
	}
	below := t.Entries[from:]
	return from, from + sort.Search(len(below), func(i int) bool {
		return !strings.HasPrefix(below[i].Path, dir) || len(below[i].Path) == len(dir) || below[i].Path[len(dir)] != '/'
	})
}

// Children yields the entries directly in a directory with their indices, in order. The root is "".
func (t *Tree) Children(dir string) iter.Seq2[int, *Entry] {
	return func(yield func(int, *Entry) bool) {
		i, to := t.Range(dir)
		for i < to {
			e := &t.Entries[i]
			if !yield(i, e) {
				return
			}
			if i++; e.Kind == Dir && i < to {
				_, i = t.Range(e.Path)
			}
		}
	}
}

// check refuses a tree that readers could not rely on, and counts its files and bytes.
func (t *Tree) check() error {
	var c treeCheck
	for i := range t.Entries {
		if err := c.next(&t.Entries[i]); err != nil {
			return err
		}
	}
	t.Files, t.Bytes = c.files, c.bytes
	return nil
}

// A treeCheck looks at the entries of a tree in order, and counts.
type treeCheck struct {
	files, bytes int64
	last         string   // the path before
	dirs         []string // the directories that the next path may be in, outermost first
}

// next refuses an entry that readers could not rely on.
func (c *treeCheck) next(e *Entry) error {
	if err := checkPath(e.Path); err != nil {
		return err
	}
	if c.last != "" && ComparePaths(c.last, e.Path) >= 0 {
		return fmt.Errorf("%q stands behind %q", e.Path, c.last)
	}
	c.last = e.Path
	for len(c.dirs) > 0 && !below(e.Path, c.dirs[len(c.dirs)-1]) {
		c.dirs = c.dirs[:len(c.dirs)-1]
	}
	parent := ""
	if len(c.dirs) > 0 {
		parent = c.dirs[len(c.dirs)-1] + "/"
	}
	if strings.IndexByte(e.Path[len(parent):], '/') >= 0 {
		return fmt.Errorf("%q is in no directory of the tree", e.Path)
	}
	if err := e.check(); err != nil {
		return fmt.Errorf("%q: %w", e.Path, err)
	}
	if e.Kind == Dir {
		c.dirs = append(c.dirs, e.Path)
		return nil
	}
	c.files++
	c.bytes += e.Size
	return nil
}

func below(path, dir string) bool {
	return len(path) > len(dir) && path[len(dir)] == '/' && path[:len(dir)] == dir
}

// checkPath refuses what could lead out of a directory or cannot be a path.
func checkPath(path string) error {
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name == "." || name == ".." || strings.IndexByte(name, 0) >= 0 {
			return fmt.Errorf("%q is no path of a tree", path)
		}
	}
	return nil
}

// check refuses an entry whose parts contradict each other.
func (e *Entry) check() error {
	switch {
	case e.Mode&^0o7777 != 0:
		return fmt.Errorf("mode %o", e.Mode)
	case e.Kind > Dir:
		return fmt.Errorf("kind %d", e.Kind)
	case e.Size < 0:
		return fmt.Errorf("size %d", e.Size)
	case (e.Kind == Link) != (e.Target != ""):
		return fmt.Errorf("a link needs a target, nothing else has one")
	}
	if e.Kind != File {
		if e.Size != 0 || !e.Hash.IsZero() || e.Extents != nil || e.Recipe != nil || e.Torn {
			return fmt.Errorf("has content but is no file")
		}
		return nil
	}
	if e.Recipe != nil {
		if e.Extents != nil {
			return fmt.Errorf("has both extents and a recipe")
		}
		if e.Recipe.Hash.IsZero() {
			return fmt.Errorf("recipe without a hash")
		}
		return e.Recipe.check()
	}
	return e.checkExtents()
}

func (e *Entry) checkExtents() error {
	if len(e.Extents) > maxInline {
		return fmt.Errorf("%d extents need a recipe", len(e.Extents))
	}
	var sum int64
	for _, x := range e.Extents {
		if err := x.check(); err != nil {
			return err
		}
		sum += int64(x.Raw)
	}
	switch {
	case len(e.Extents) == 1:
		if x := e.Extents[0]; e.Size <= 0 || int64(x.From)+e.Size > int64(x.Raw) {
			return fmt.Errorf("%d bytes from %d of a frame of %d", e.Size, x.From, x.Raw)
		}
	case sum != e.Size:
		return fmt.Errorf("extents are %d bytes together, the file %d", sum, e.Size)
	default:
		for _, x := range e.Extents {
			if x.From != 0 || x.Hash.IsZero() {
				return fmt.Errorf("an extent is not a whole frame with a hash")
			}
		}
	}
	return nil
}
