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
			if path[i] == '/' {
				s.put(Entry{Path: path[:i], Kind: Dir, Mode: 0o755, Mtime: s.now.UnixNano()}, false)
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
		s.put(*old, true)
		return nil
	}
	for rest := data; len(rest) > 0; {
		p, err := s.build.take()
		if err != nil {
			return err
		}
		piece := rest[:min(len(rest), maxChunk)]
		rest = rest[len(piece):]
		ref, err := s.build.add(p, kindChunk, appendFrame(nil, piece), len(piece), hashOf(piece))
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
	i := s.put(e, true)
	s.fresh = append(s.fresh, i)
	return nil
}

// put makes e the entry of its path, unless there is a directory already where one is needed, and returns its index. A directory keeps what the
// parent has of it.
func (s *snapshot) put(e Entry, replace bool) int {
	i, found := slices.BinarySearchFunc(s.entries, e.Path, func(e Entry, path string) int { return ComparePaths(e.Path, path) })
	if found && (replace || s.entries[i].Kind != Dir) {
		s.entries[i], s.stats[i] = e, stat{kind: unsaved}
		return i
	}
	if found {
		return i
	}
	if old := s.parent.tree.Lookup(e.Path); old != nil && old.Kind == Dir && e.Kind == Dir {
		e = *old
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
