package repository

import "github.com/replicate/replicate"

// A Tree is every path of a commit: what the working directory was. It is flat and sorted by path bytes with "/" lowest, so
// that a directory's entries are contiguous and follow it. Do not change it.
type Tree struct {
	Entries []Entry
	Files   int64 // regular files and symlinks
	Bytes   int64 // sum of the sizes of regular files
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
