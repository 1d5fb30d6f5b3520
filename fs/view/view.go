// Package view shows a repository as a tree of names: names to nodes, nodes to attributes and bytes.
//
// It is pure computation over the index and the repository: every name and every byte of the mount can be tested here
// without a kernel, and anything else that walks the tree walks the same one. It refuses to know FUSE.
//
// A node is a number that is computed from what it names (ids.go), so that nothing is kept per node and another process, or
// this one after a crash, finds the same node under the same number. What a node holds never changes: what must change gets a
// new node under the old name. Only growing files are exempt, and they only grow.
package view

import (
	"errors"
	"io/fs"
)

// A Life says what a reader may keep of a node, and for how long.
type Life int

const (
	Forever Life = iota // name, attributes and content never change: commit trees
	Named               // the content never does, but the name may come to stand for another node: rendered files, links
	Growing             // the same node, whose size only grows: output.log and metrics.csv of a running experiment
	Live                // a directory whose list changes
	Query               // as Live, and that a name is missing must not be kept at all
)

// An Attr is what stat says of a node. Links are counted as 1 and owned by the reader throughout.
type Attr struct {
	Mode  uint32 // type and permissions, as in st_mode
	Size  int64  // always true
	Mtime int64  // nanoseconds since 1970
}

// The types in Attr.Mode and Entry.Mode. They are the numbers that every Unix uses.
const (
	TypeMask = 0o170000
	TypeDir  = 0o040000
	TypeFile = 0o100000
	TypeLink = 0o120000
)

// An Entry is one name of a directory.
type Entry struct {
	Name string
	ID   ID
	Mode uint32 // at least the type
	Attr *Attr  // nil where it would cost something to know: ask Attr
}

// A Change says that a name of a directory came, went or stands for another node.
type Change struct {
	Dir  ID
	Name string
}

// ErrStale is the error of a node that once was and cannot be found any more: an older version of a rendered file after a
// restart, or any node after the ordinals of the index were lost.
var ErrStale = errors.New("this version is gone")

// errNone is the error of every missing name. It is one value, as tools ask for names by the thousand.
var errNone = fs.ErrNotExist
