package view

import (
	"slices"
	"strings"

	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

// A tree gives every path of a commit its place: the root is 0, then directories breadth first, so that the children of a
// directory are contiguous, in order of their names. Places come from the tree alone, whoever computes them.
type tree struct {
	entries []repository.Entry
	places  []place
	shared  map[int]int64 // numbers of the large files, by place
}

type place struct {
	entry       int32 // in entries, -1 for the root
	parent      int32
	first, next int32 // places of the children: [first, next)
}

func newTree(t *repository.Tree) *tree {
	flat := &tree{entries: t.Entries, places: make([]place, 1, len(t.Entries)+1)}
	flat.places[0].entry = -1
	for p := 0; p < len(flat.places); p++ {
		first := len(flat.places)
		if flat.dir(p) {
			for i := range t.Children(flat.path(p)) {
				flat.places = append(flat.places, place{entry: int32(i), parent: int32(p)})
			}
		}
		flat.places[p].first, flat.places[p].next = int32(first), int32(len(flat.places))
	}
	return flat
}

// sharedSize is the size from which on a file that several commits hold is one node: what diff -r then need not read, and the
// page cache need not hold twice.
const sharedSize = 64 << 10

// large returns the large files of the tree and their places, for a commit.
func (t *tree) large(commit int64) (files []index.File, places []int) {
	for p := 1; p < len(t.places); p++ {
		if e := t.at(p); e.Kind == repository.File && e.Size >= sharedSize {
			files = append(files, index.File{Hash: e.Hash, Size: e.Size, Mode: e.Mode, Mtime: e.Mtime, Commit: commit, Place: int64(p)})
			places = append(places, p)
		}
	}
	return files, places
}

// has reports whether a place is one of the tree.
func (t *tree) has(p int64) bool { return p >= 0 && p < int64(len(t.places)) }

// at returns the entry of a place other than the root.
func (t *tree) at(p int) *repository.Entry { return &t.entries[t.places[p].entry] }

func (t *tree) dir(p int) bool { return p == 0 || t.at(p).Kind == repository.Dir }

func (t *tree) path(p int) string {
	if p == 0 {
		return ""
	}
	return t.at(p).Path
}

// name is the last part of a path.
func (t *tree) name(p int) string {
	path := t.path(p)
	return path[strings.LastIndexByte(path, '/')+1:]
}

// find returns the place of a name in a directory.
func (t *tree) find(dir int, name string) (p int, ok bool) {
	d := t.places[dir]
	children := t.places[d.first:d.next]
	i, ok := slices.BinarySearchFunc(children, name, func(c place, name string) int {
		path := t.entries[c.entry].Path
		return strings.Compare(path[strings.LastIndexByte(path, '/')+1:], name)
	})
	return int(d.first) + i, ok
}

// entryWeight is about what an entry costs in memory: itself, a path, an extent, a place.
const entryWeight = 360

func (t *tree) weight() int64 { return int64(len(t.places)) * entryWeight }
