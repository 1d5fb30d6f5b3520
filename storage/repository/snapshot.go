package repository

import (
	"context"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/replicate/replicate"
)

// A recipe is what is known of a recipe frame: the packs of its chunks and, if it was read or made here, the chunks.
type recipe struct {
	packs  []replicate.Hash
	chunks []Extent
}

// A state is what the next snapshot builds on.
type state struct {
	row     Row
	tree    *Tree
	files   []cachedFile // the stat cache, sorted
	recipes map[Ref]*recipe
	recent  *recentChunks
}

// A snapshot is one look at a project: what is there now, and where its bytes are or go.
type snapshot struct {
	project *project
	parent  *state
	paths   []string          // what is looked at; "" is everything
	extra   map[string][]byte // files that are not on disk
	now     time.Time         // the mtime of these
	avoid   map[replicate.Hash]bool

	moment  time.Time // of the file system's clock, before the first look
	entries []Entry
	stats   []stat // of entries that are files looked at; kind unsaved for all others
	fresh   []int  // entries whose places must be resolved
	build   *packBuilder
	recipes map[Ref]*recipe
	pending map[int][]Extent // entries that need a recipe; guarded by mu while files are read
	jobs    []errand

	mu      sync.Mutex // guards what follows
	leftOut []LeftOut
	torn    []string
	changed int64

	hashes map[replicate.Hash]*Entry // what is stored already, by content, this snapshot's small files included
	sizes  map[int64][]*Entry        // the large ones of these, by size, this snapshot's included
}

// A taken snapshot is complete: its packs are durable and its tree is encoded, but nobody can see it.
type taken struct {
	state
	same    bool // the tree is the parent's, there are no packs
	packs   []builtPack
	own     map[replicate.Hash]bool
	chunks  []Extent // those of large files that were stored or met
	added   int64
	changed int64
	leftOut []LeftOut
	torn    []string
}

// take looks at the project and stores what is new. note makes the record that goes into the pack, of the tree's files and bytes and what was
// added. On error nothing is left.
func (s *snapshot) take(ctx context.Context, note func(t *Tree, added int64) Record) (*taken, error) {
	s.moment = s.project.clock()
	found, leftOut, err := s.project.walker().walk(ctx, s.paths)
	if err != nil {
		return nil, err
	}
	s.leftOut = leftOut
	s.recipes = maps.Clone(s.parent.recipes)
	s.pending = map[int][]Extent{}
	s.match(found)
	s.carry(ctx)
	s.build = newPackBuilder(s.project.build, s.project.random, s.expected(), workers())
	s.build.room, s.build.early = s.project.room, s.project.early
	t, err := s.store(ctx, note)
	if err != nil {
		s.build.discard()
		return nil, err
	}
	return t, nil
}

func (s *snapshot) expected() (n int64) {
	for i := range s.jobs {
		n += s.jobs[i].stat.size
	}
	return n
}

// match makes an entry of everything that was found, from the stat cache where that knows it, and a job of every other file.
func (s *snapshot) match(found []sighting) {
	cached, old := s.parent.files, s.parent.tree.Entries
	s.entries = make([]Entry, 0, len(found))
	for i := range found {
		f := &found[i]
		e := Entry{Path: f.path, Kind: f.kind, Mode: f.mode, Mtime: f.mtime, Target: f.target}
		if f.kind == File {
			cached = skipTo(cached, f.path, func(c *cachedFile) string { return c.path })
			old = skipTo(old, f.path, func(e *Entry) string { return e.Path })
			var base *Entry
			if len(old) > 0 && old[0].Path == f.path && old[0].Kind == File {
				base = &old[0]
			}
			known := len(cached) > 0 && cached[0].path == f.path && s.usable(&cached[0])
			if known && cached[0].matches(&f.stat) {
				s.reuse(&e, &cached[0], base)
			} else {
				if known && base == nil {
					s.knowRecipe(&cached[0])
					c := cached[0].entry()
					base = &c
				}
				s.jobs = append(s.jobs, errand{index: len(s.entries), path: f.path, stat: f.stat, base: base})
			}
		}
		s.entries = append(s.entries, e)
		s.stats = append(s.stats, f.stat)
	}
}

// skipTo drops what stands before a path in a sorted list.
func skipTo[T any](list []T, path string, of func(*T) string) []T {
	for len(list) > 0 && ComparePaths(of(&list[0]), path) < 0 {
		list = list[1:]
	}
	return list
}

// reuse fills in the place of a known content: the parent's, if that has it, so that an unchanged tree is found to be equal.
func (s *snapshot) reuse(e *Entry, c *cachedFile, base *Entry) {
	e.Size, e.Hash, e.Extents, e.Recipe = c.size, c.hash, c.extents, c.recipe
	s.knowRecipe(c)
	if base != nil && base.Hash == c.hash && base.Size == c.size && s.reachable(base) {
		e.Extents, e.Recipe = base.Extents, base.Recipe
	}
}

// usable reports whether the packs of a cached file may be used.
func (s *snapshot) usable(c *cachedFile) bool {
	if len(s.avoid) == 0 {
		return true
	}
	e := c.entry()
	return s.reachable(&e) && !slices.ContainsFunc(c.packs, func(p replicate.Hash) bool { return s.avoid[p] })
}

// reachable reports whether the packs of an entry may be used, as far as the entry names them.
func (s *snapshot) reachable(e *Entry) bool {
	if len(s.avoid) == 0 {
		return true
	}
	for _, x := range e.Extents {
		if s.avoid[x.Pack] {
			return false
		}
	}
	if e.Recipe == nil {
		return true
	}
	r := s.recipe(e.Recipe)
	return !s.avoid[e.Recipe.Pack] && (r == nil || !slices.ContainsFunc(r.packs, func(p replicate.Hash) bool { return s.avoid[p] }))
}

// looked reports whether a path is one of those that are looked at, or below one.
func (s *snapshot) looked(path string) bool {
	return slices.ContainsFunc(s.paths, func(p string) bool { return p == "" || p == path || below(path, p) })
}

// carry merges in what the parent has outside of the paths that are looked at.
func (s *snapshot) carry(ctx context.Context) {
	if slices.Contains(s.paths, "") {
		return
	}
	var entries []Entry
	var stats []stat
	var carried []errand
	moved := make([]int, len(s.entries)) // where entries go
	i := 0
	for k := range s.parent.tree.Entries {
		e := &s.parent.tree.Entries[k]
		for ; i < len(s.entries) && ComparePaths(s.entries[i].Path, e.Path) < 0; i++ {
			moved[i] = len(entries)
			entries, stats = append(entries, s.entries[i]), append(stats, s.stats[i])
		}
		if i < len(s.entries) && s.entries[i].Path == e.Path || s.looked(e.Path) || s.shadowed(entries, e.Path) {
			continue
		}
		if e.Kind == File && len(s.avoid) > 0 && !s.project.leaveCarried && !s.readable(ctx, e) {
			carried = append(carried, errand{index: len(entries), path: e.Path, stat: stat{size: e.Size}, carried: e})
		}
		entries, stats = append(entries, *e), append(stats, stat{kind: unsaved})
	}
	for ; i < len(s.entries); i++ {
		moved[i] = len(entries)
		entries, stats = append(entries, s.entries[i]), append(stats, s.stats[i])
	}
	for k := range s.jobs {
		s.jobs[k].index = moved[s.jobs[k].index]
	}
	s.entries, s.stats = entries, stats
	s.jobs = append(s.jobs, carried...)
}

// readable is reachable for entries of which nothing may be known but that they were in the parent.
func (s *snapshot) readable(ctx context.Context, e *Entry) bool {
	return s.reachable(e) && (e.Recipe == nil || s.chunksOf(ctx, e) != nil && s.reachable(e))
}

// shadowed reports whether an entry of the parent lies below something that is no directory any more: the last entry, as the list is sorted.
func (s *snapshot) shadowed(entries []Entry, path string) bool {
	if len(entries) == 0 {
		return false
	}
	last := &entries[len(entries)-1]
	return last.Kind != Dir && below(path, last.Path)
}

// leave reports a file that cannot be saved and drops its entry.
func (s *snapshot) leave(j *errand, why string) {
	s.mu.Lock()
	s.leftOut = append(s.leftOut, LeftOut{Path: j.path, Why: why})
	s.mu.Unlock()
	s.entries[j.index].Kind = unsaved
}

// store reads the files of all jobs into packs, and adds the tree.
func (s *snapshot) store(ctx context.Context, note func(t *Tree, added int64) Record) (*taken, error) {
	if err := s.capture(ctx); err != nil {
		return nil, err
	}
	if err := s.addExtra(); err != nil {
		return nil, err
	}
	s.sweep()
	t := &taken{changed: s.changed, leftOut: s.leftOut, torn: s.torn}
	t.recent = s.parent.recent
	if s.unchanged() {
		s.build.discard()
		t.same, t.row, t.tree = true, s.parent.row, s.parent.tree
	} else if err := s.finish(ctx, t, &Tree{Entries: s.entries}, note); err != nil {
		return nil, err
	}
	t.files = s.cache(t.tree.Entries)
	t.recipes = s.needed(t)
	return t, nil
}

// needed returns the recipes that the new state refers to.
func (s *snapshot) needed(t *taken) map[Ref]*recipe {
	recipes := map[Ref]*recipe{}
	keep := func(ref *Ref) {
		if ref != nil && s.recipes[*ref] != nil {
			recipes[*ref] = s.recipes[*ref]
		}
	}
	for i := range t.tree.Entries {
		keep(t.tree.Entries[i].Recipe)
	}
	for i := range t.files {
		keep(t.files[i].recipe)
	}
	return recipes
}

// sweep drops the entries of what turned out not to be there.
func (s *snapshot) sweep() {
	to := make([]int, len(s.entries))
	n := 0
	for i := range s.entries {
		to[i] = n
		if s.entries[i].Kind != unsaved {
			s.entries[n], s.stats[n] = s.entries[i], s.stats[i]
			n++
		}
	}
	s.entries, s.stats = s.entries[:n], s.stats[:n]
	for k, i := range s.fresh {
		s.fresh[k] = to[i]
	}
	pending := make(map[int][]Extent, len(s.pending))
	for i, x := range s.pending {
		pending[to[i]] = x
	}
	s.pending = pending
	slices.SortFunc(s.torn, ComparePaths)
	slices.SortFunc(s.leftOut, func(a, b LeftOut) int { return ComparePaths(a.Path, b.Path) })
}

// unchanged reports whether the tree is the parent's, places included.
func (s *snapshot) unchanged() bool {
	if len(s.entries) != len(s.parent.tree.Entries) || len(s.avoid) > 0 {
		return false
	}
	if len(s.entries) > 0 && len(s.parent.row.Tree) == 0 {
		return false
	}
	for i := range s.entries {
		if !s.entries[i].equal(&s.parent.tree.Entries[i]) {
			return false
		}
	}
	return true
}

func (e *Entry) equal(f *Entry) bool {
	return e.Path == f.Path && e.Kind == f.Kind && e.Mode == f.Mode && e.Size == f.Size && e.Mtime == f.Mtime && e.Hash == f.Hash &&
		e.Target == f.Target && e.Torn == f.Torn && slices.Equal(e.Extents, f.Extents) &&
		(e.Recipe == nil) == (f.Recipe == nil) && (e.Recipe == nil || *e.Recipe == *f.Recipe)
}

// cache returns the stat cache after this snapshot: of what was looked at, all files that are whole; all else as before. Those whose stat does
// not tell later changes apart are kept for their content alone, which the next snapshot finds again by its hash.
func (s *snapshot) cache(entries []Entry) []cachedFile {
	files := make([]cachedFile, 0, len(entries))
	old := s.parent.files
	keep := func(until string, all bool) {
		for len(old) > 0 && (all || ComparePaths(old[0].path, until) < 0) {
			if !s.looked(old[0].path) {
				files = append(files, old[0])
			}
			old = old[1:]
		}
	}
	for i := range entries {
		e, st := &entries[i], &s.stats[i]
		if e.Kind != File || st.kind != File || e.Torn {
			continue
		}
		keep(e.Path, false)
		if len(old) > 0 && old[0].path == e.Path {
			old = old[1:]
		}
		c := cachedFile{
			path: e.Path, size: st.size, mtime: st.mtime, ctime: st.ctime, inode: st.inode, device: st.device,
			hash: e.Hash, extents: e.Extents, recipe: e.Recipe,
		}
		if !st.settled(s.moment) {
			c.ctime = neverMatches
		}
		if e.Recipe != nil {
			if r := s.recipes[*e.Recipe]; r != nil {
				c.packs = r.packs
			}
		}
		files = append(files, c)
	}
	keep("", true)
	return files
}

// A project is where snapshots are taken of, and with what.
type project struct {
	root       string
	ignore     []string
	everything bool // no rule leaves anything out
	skip       map[fileID]bool
	build      string // where packs are made
	repository *Repository
	random     io.Reader
	clock      func() time.Time // of the root's file system; zero if it cannot be told
	hooked     func(path string)

	recipes      *Cache       // of large files whose packs may be out of reach; may be nil
	room         func() error // whether there is some for another pack; may be nil
	early        func()       // told of packs that are complete before the snapshot is; may be nil
	leaveCarried bool         // files that are not looked at stay where they are, also in packs to be avoided: the uploader sees to it
}

func (p *project) walker() *walker {
	return &walker{root: p.root, ignore: p.ignore, everything: p.everything, skip: p.skip}
}
