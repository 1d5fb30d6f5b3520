package repository

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

// This file is for those who take the files of a project elsewhere than into a repository, and must agree with commits about which these are
// and how they are cut.

// A Survey is what a commit of a directory would save now. No file has been read.
type Survey struct {
	Sights  []Sight // in the order of a tree, every directory before what is in it
	LeftOut []LeftOut
}

// A Sight is a path of a Survey.
type Sight struct {
	Path   string // relative to the root, "/" between names, any bytes but NUL
	Kind   EntryKind
	Mode   uint32 // 07777
	Target string // of a Link
	Stamp
}

// A Stamp is what lstat says of a file besides its kind and mode. Once Settled, an equal stamp means an equal content.
type Stamp struct {
	Size, Mtime, Ctime int64 // times in nanoseconds since 1970
	Inode, Device      uint64
}

// SurveyOptions says what to look at.
type SurveyOptions struct {
	Root   string
	Ignore []string // gitignore patterns of replicate.yaml
	Skip   []string // directories that are not entered and not reported, such as a storage below Root; those that are not there do not matter
}

// Look walks a directory as a commit of it does. Only a root that cannot be read and the end of ctx are errors: what else cannot be read is left
// out with a reason. Sizes of what is left out are found within the bounds of a commit.
func Look(ctx context.Context, o SurveyOptions) (*Survey, error) {
	root, err := filepath.EvalSymlinks(o.Root)
	if err == nil {
		root, err = filepath.Abs(root)
	}
	if err != nil {
		return nil, surveyError(o.Root, err)
	}
	skip := map[fileID]bool{}
	for _, path := range o.Skip {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			s := statOf(&st)
			skip[fileID{s.device, s.inode}] = true
		}
	}
	w := &walker{root: root, ignore: o.Ignore, skip: skip}
	found, leftOut, err := w.walk(ctx, []string{""})
	if err != nil {
		return nil, surveyError(o.Root, err)
	}
	sizes := &measurer{root: root, now: time.Now, sizes: map[string]LeftOut{}}
	s := &Survey{Sights: make([]Sight, len(found)), LeftOut: sizes.measure(leftOut)}
	for i := range found {
		f := &found[i]
		s.Sights[i] = Sight{Path: f.path, Kind: f.kind, Mode: f.mode, Target: f.target, Stamp: f.stat.stamp()}
	}
	return s, nil
}

func surveyError(root string, err error) error {
	return &replicate.Error{Op: "look at", Path: root, Kind: kindOfFile(err), Err: err}
}

func (s *stat) stamp() Stamp {
	return Stamp{Size: s.size, Mtime: s.mtime, Ctime: s.ctime, Inode: s.inode, Device: s.device}
}

// StampOf returns the stamp of an open file, and false if it is no regular file.
func StampOf(f *os.File) (Stamp, bool) {
	var st unix.Stat_t
	if retry(func() error { return unix.Fstat(int(f.Fd()), &st) }) != nil {
		return Stamp{}, false
	}
	s := statOf(&st)
	return s.stamp(), s.kind == File
}

// Settled reports whether the stamp, taken at a moment of the file system's clock or later, tells all later changes apart.
func (s Stamp) Settled(moment time.Time) bool {
	st := stat{mtime: s.Mtime, ctime: s.Ctime}
	return st.settled(moment)
}

// FileClock returns the time of the file system that holds a directory, by making a file there.
func FileClock(dir string) (time.Time, error) { return fileClock(dir) }

// ChunkedFrom is the size from which files are cut into chunks, MaxChunk that of the largest chunk.
const (
	ChunkedFrom = minChunked
	MaxChunk    = maxChunk
)

// A Chunker cuts a file where commits cut it. It is not safe for use by several goroutines.
type Chunker struct{ from *chunker }

// NewChunker returns a Chunker for an open file of at least ChunkedFrom bytes, which is read up to size bytes. Its name says where cuts are made
// besides those that its content asks for.
func NewChunker(name string, f *os.File, size int64) *Chunker {
	return &Chunker{from: newChunker(&source{file: f, size: size}, forcedCuts(name, f, size))}
}

// Next returns the next chunk, which is valid until the call after, and its hash. The error is io.EOF behind the last one.
func (c *Chunker) Next() ([]byte, replicate.Hash, error) {
	chunk, err := c.from.next()
	if err != nil {
		return nil, replicate.Hash{}, err
	}
	return chunk, c.from.hash(), nil
}

// HashOf returns the hash that chunks with this content have, and files.
func HashOf(content []byte) replicate.Hash { return hashOf(content) }

// AppendFrame appends raw, of which there may be MaxChunk bytes, in the form it has in a pack: compressed where that saves at least 5 %. It may
// be called from several goroutines.
func AppendFrame(dst, raw []byte) []byte { return appendFrame(dst, raw) }

// OpenFrame appends what AppendFrame was given to dst. Nothing but its size is verified: not more than MaxChunk, and the one that is wanted.
func OpenFrame(dst, stored []byte, size int) ([]byte, error) {
	if size < 0 || size > maxChunk {
		return nil, replicate.Errorf(replicate.Corrupt, "a frame of %d bytes", size)
	}
	raw, err := decodePayload(dst, stored, Ref{Len: uint32(len(stored)), Raw: uint32(size)})
	if err != nil {
		return nil, &replicate.Error{Op: "open frame", Kind: replicate.Corrupt, Err: err}
	}
	return raw, nil
}
