package repository

import (
	"maps"
	"slices"

	"github.com/replicate/replicate"
)

// addExtra adds the files that are not on disk, and the directories they are in.
func (s *snapshot) addExtra() error {
	for _, path := range slices.SortedFunc(maps.Keys(s.extra), ComparePaths) {
		if err := checkPath(path); err != nil {
			return replicate.Errorf(replicate.Usage, "%w", err)
		}
		for i := range path {
			if path[i] != '/' {
				continue
			}
			if err := s.addDirectory(path[:i]); err != nil {
				return err
			}
		}
		if err := s.addContent(path, s.extra[path]); err != nil {
			return err
		}
	}
	return nil
}

func (s *snapshot) addContent(path string, data []byte) error {
	e := Entry{Path: path, Kind: File, Mode: 0o644, Mtime: s.now.UnixNano(), Size: int64(len(data)), Hash: hashOf(data)}
	if old := s.parent.tree.Lookup(path); old != nil && old.Kind == File && old.Hash == e.Hash && s.reachable(old) {
		s.put(*old)
		return nil
	}
	var buf []byte
	for rest := data; len(rest) > 0; {
		p, err := s.build.take()
		if err != nil {
			return err
		}
		piece := rest[:min(len(rest), maxChunk)]
		rest = rest[len(piece):]
		ref, err := s.build.add(p, kindChunk, newFrame(piece, hashOf(piece), &buf))
		s.build.give(p)
		if err != nil {
			return err
		}
		e.Extents = append(e.Extents, Extent{Ref: ref})
	}
	if len(e.Extents) == 1 {
		e.Extents[0].Hash = replicate.Hash{}
	}
	if len(e.Extents) > maxInline {
		return replicate.Errorf(replicate.Usage, "%s: %d bytes is too much for a file that is not on disk", path, len(data))
	}
	i := s.put(e)
	s.fresh = append(s.fresh, i)
	return nil
}

// addDirectory adds a directory for an extra file, unless it is there. It is what the parent has of it, if anything.
func (s *snapshot) addDirectory(path string) error {
	if i, found := s.find(path); found {
		if s.entries[i].Kind != Dir {
			return replicate.Errorf(replicate.Usage, "%q is no directory", path)
		}
		return nil
	}
	e := Entry{Path: path, Kind: Dir, Mode: 0o755, Mtime: s.now.UnixNano()}
	if old := s.parent.tree.Lookup(path); old != nil && old.Kind == Dir {
		e = *old
	}
	s.put(e)
	return nil
}

// find returns where the entry of a path is, or belongs.
func (s *snapshot) find(path string) (i int, found bool) {
	return slices.BinarySearchFunc(s.entries, path, func(e Entry, path string) int { return ComparePaths(e.Path, path) })
}

// put makes e the entry of its path and returns its index.
func (s *snapshot) put(e Entry) int {
	i, found := s.find(e.Path)
	if found {
		s.entries[i], s.stats[i] = e, stat{kind: unsaved}
		delete(s.pending, i)
		return i
	}
	s.entries = slices.Insert(s.entries, i, e)
	s.stats = slices.Insert(s.stats, i, stat{kind: unsaved})
	for k := range s.fresh {
		if s.fresh[k] >= i {
			s.fresh[k]++
		}
	}
	pending := make(map[int][]Extent, len(s.pending))
	for k, x := range s.pending {
		if k >= i {
			k++
		}
		pending[k] = x
	}
	s.pending = pending
	return i
}
