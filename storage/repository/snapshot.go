package repository

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"runtime"
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
	pending map[int][]Extent // entries that need a recipe
	jobs    []errand

	mu      sync.Mutex // guards what follows
	leftOut []LeftOut
	changed int64

	hashes map[replicate.Hash]*Entry // what is stored already, by content; made when first needed
	sizes  map[int64][]*Entry        // the large ones of these, by size
}

// A taken snapshot is complete: its packs are durable and its tree is encoded, but nobody can see it.
type taken struct {
	state
	same    bool // the tree is the parent's, there are no packs
	packs   []builtPack
	own     map[replicate.Hash]bool
	added   int64
	changed int64
	leftOut []LeftOut
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
	s.carry()
	s.build = newPackBuilder(s.project.build, s.project.random, s.expected(), runtime.GOMAXPROCS(0))
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
			if len(cached) > 0 && cached[0].path == f.path && cached[0].matches(&f.stat) && s.usable(&cached[0]) {
				s.reuse(&e, &cached[0], base)
			} else {
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
	if c.recipe != nil && s.recipes[*c.recipe] == nil {
		s.recipes[*c.recipe] = &recipe{packs: c.packs}
	}
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
	r := s.recipes[*e.Recipe]
	return !s.avoid[e.Recipe.Pack] && (r == nil || !slices.ContainsFunc(r.packs, func(p replicate.Hash) bool { return s.avoid[p] }))
}

// looked reports whether a path is one of those that are looked at, or below one.
func (s *snapshot) looked(path string) bool {
	return slices.ContainsFunc(s.paths, func(p string) bool { return p == "" || p == path || below(path, p) })
}

// carry merges in what the parent has outside of the paths that are looked at.
func (s *snapshot) carry() {
	if slices.Contains(s.paths, "") {
		return
	}
	var entries []Entry
	var stats []stat
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
	t := &taken{changed: s.changed, leftOut: s.leftOut}
	t.recipes = s.recipes
	if s.unchanged() {
		s.build.discard()
		t.same, t.row, t.tree = true, s.parent.row, s.parent.tree
		t.files = s.cache(t.tree.Entries)
		return t, nil
	}
	tree := &Tree{Entries: s.entries}
	if err := s.finish(ctx, t, tree, note); err != nil {
		return nil, err
	}
	t.files = s.cache(tree.Entries)
	return t, nil
}

// tasks groups the jobs: small files in path order share a frame, every other file is by itself. Large ones come first, as they take longest.
func (s *snapshot) tasks() [][]errand {
	var large, tasks [][]errand
	var size int64
	from := -1 // of the group
	for i := range s.jobs {
		n := s.jobs[i].stat.size
		if n > smallFile {
			if from >= 0 {
				tasks, from = append(tasks, s.jobs[from:i]), -1
			}
			large = append(large, s.jobs[i:i+1])
			continue
		}
		if from >= 0 && size+n > groupSize {
			tasks, from = append(tasks, s.jobs[from:i]), -1
		}
		if from < 0 {
			from, size = i, 0
		}
		size += n
	}
	if from >= 0 {
		tasks = append(tasks, s.jobs[from:])
	}
	slices.SortStableFunc(large, func(a, b []errand) int { return int(min(1, max(-1, b[0].stat.size-a[0].stat.size))) })
	return append(large, tasks...)
}

// capture works on all tasks, one goroutine per core.
func (s *snapshot) capture(ctx context.Context) error {
	tasks := s.tasks()
	if len(tasks) == 0 {
		return nil
	}
	s.index()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan []errand)
	var wg sync.WaitGroup
	for range min(len(tasks), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			c := &captor{root: s.project.root, build: s.build, known: s.known, hooked: s.project.hooked}
			for task := range queue {
				if err := s.captureTask(ctx, c, task); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, task := range tasks {
		if ctx.Err() != nil {
			break
		}
		queue <- task
	}
	close(queue)
	wg.Wait()
	return context.Cause(ctx)
}

func (s *snapshot) captureTask(ctx context.Context, c *captor, task []errand) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.small = c.small[:0]
	var group []captured
	for i := range task {
		j := &task[i]
		start := len(c.small)
		got, err := captured{}, error(errGrown)
		if j.stat.size < minChunked {
			got, err = c.whole(j)
		}
		if err == errGrown {
			if got, err = c.large(ctx, j); err == nil {
				s.done(&got)
				continue
			}
		}
		if left, ok := errors.AsType[errLeftOut](err); ok {
			s.leave(j, left.why)
			continue
		}
		if err != nil {
			return fmt.Errorf("save %s: %w", j.path, err)
		}
		if s.stored(&got) {
			c.small = c.small[:start]
			continue
		}
		got.extents = []Extent{{From: uint32(start)}}
		group = append(group, got)
	}
	return s.storeGroup(c, group)
}

// storeGroup stores c.small as one frame, in which the files of a group are.
func (s *snapshot) storeGroup(c *captor, group []captured) error {
	if len(group) == 0 {
		return nil
	}
	kind := kindGroup
	hash := group[0].hash
	if len(group) > 1 {
		hash = hashOf(c.small)
	} else if len(c.small) > smallFile {
		kind = kindChunk
	}
	c.stored = appendFrame(c.stored[:0], c.small)
	p, err := s.build.take()
	if err != nil {
		return err
	}
	ref, err := s.build.add(p, kind, c.stored, len(c.small), hash)
	s.build.give(p)
	if err != nil {
		return err
	}
	for i := range group {
		group[i].extents[0].Ref = ref
		s.done(&group[i])
	}
	return nil
}

// stored finishes a file whose content is empty or stored already, and reports whether it is.
func (s *snapshot) stored(got *captured) bool {
	if got.stat.size == 0 {
		s.done(got)
		return true
	}
	old := s.hashes[got.hash]
	if b := got.base; b != nil && b.Hash == got.hash {
		old = b
	}
	if old == nil || old.Size != got.stat.size || old.Recipe != nil && s.recipes[*old.Recipe] == nil || !s.reachable(old) {
		return false
	}
	s.place(got, old.Extents, old.Recipe)
	return true
}

// done gives the file a place of its own, unless its content turns out to be what the parent has there.
func (s *snapshot) done(got *captured) {
	if b := got.base; b != nil && b.Hash == got.hash && b.Size == got.stat.size && s.reachable(b) {
		s.place(got, b.Extents, b.Recipe)
		return
	}
	if len(got.extents) == 1 {
		got.extents[0].Hash = replicate.Hash{} // the file's own says it
	}
	if len(got.extents) > maxInline {
		s.mu.Lock()
		s.pending[got.index] = got.extents
		s.mu.Unlock()
		got.extents = nil
	}
	s.place(got, got.extents, nil)
	s.mu.Lock()
	s.fresh = append(s.fresh, got.index)
	s.mu.Unlock()
}

// place completes the entry of a file that was read.
func (s *snapshot) place(got *captured, extents []Extent, recipe *Ref) {
	e := &s.entries[got.index]
	e.Mode, e.Mtime, e.Size = got.stat.mode, got.stat.mtime, got.stat.size
	e.Hash, e.Torn, e.Extents, e.Recipe = got.hash, got.torn, extents, recipe
	s.stats[got.index] = got.stat
	s.mu.Lock()
	s.changed++
	if got.torn {
		s.leftOut = append(s.leftOut, LeftOut{Path: got.path, Why: whyTorn})
	}
	s.mu.Unlock()
}

// whyTorn is the reason in a report for a file that is saved, but may be a mixture of two states.
const whyTorn = "torn: it changed while it was read"

// index makes what is stored already findable by content.
func (s *snapshot) index() {
	s.hashes = map[replicate.Hash]*Entry{}
	s.sizes = map[int64][]*Entry{}
	add := func(e *Entry) {
		if e.Kind != File || e.Size == 0 || s.hashes[e.Hash] != nil || !s.reachable(e) {
			return
		}
		s.hashes[e.Hash] = e
		if e.Size >= minChunked {
			s.sizes[e.Size] = append(s.sizes[e.Size], e)
		}
	}
	for i := range s.parent.tree.Entries {
		add(&s.parent.tree.Entries[i])
	}
	for i := range s.parent.files {
		if c := &s.parent.files[i]; c.recipe == nil || s.recipes[*c.recipe] != nil {
			e := c.entry()
			add(&e)
		}
	}
}

// maxBases is how many files a large one is compared with, beside what stands at its path in the parent.
const maxBases = 4

// known returns the chunks of the files that a large file may share some with: what the parent has at its path, and files of its size. One that
// cannot be read is no base.
func (s *snapshot) known(ctx context.Context, j *errand) *knownChunks {
	k := &knownChunks{at: map[replicate.Hash]int{}}
	bases := s.sizes[j.stat.size]
	bases = bases[:min(len(bases), maxBases)]
	if j.base != nil {
		bases = append([]*Entry{j.base}, bases...)
	}
	for _, e := range bases {
		if !s.reachable(e) {
			continue
		}
		for _, x := range s.chunksOf(ctx, e) {
			if x.From == 0 && !s.avoid[x.Pack] {
				k.add(x)
			}
		}
	}
	return k
}

// chunksOf returns the chunks of a file, nil if they cannot be found out.
func (s *snapshot) chunksOf(ctx context.Context, e *Entry) []Extent {
	if e.Recipe == nil {
		if len(e.Extents) == 1 && e.Extents[0].From == 0 && int64(e.Extents[0].Raw) == e.Size {
			x := e.Extents[0]
			x.Hash = e.Hash
			return []Extent{x}
		}
		return e.Extents
	}
	s.mu.Lock()
	r := s.recipes[*e.Recipe]
	s.mu.Unlock()
	if r != nil && r.chunks != nil {
		return r.chunks
	}
	chunks, err := s.project.repository.extents(ctx, e)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	s.recipes[*e.Recipe] = newRecipe(chunks)
	s.mu.Unlock()
	return chunks
}

func newRecipe(chunks []Extent) *recipe {
	r := &recipe{chunks: chunks}
	for _, x := range chunks {
		if !slices.Contains(r.packs, x.Pack) {
			r.packs = append(r.packs, x.Pack)
		}
	}
	return r
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
	slices.SortFunc(s.leftOut, func(a, b LeftOut) int { return ComparePaths(a.Path, b.Path) })
}

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

// finish adds recipes, tree and note to the last pack, and completes t.
func (s *snapshot) finish(ctx context.Context, t *taken, tree *Tree, note func(t *Tree, added int64) Record) error {
	if len(s.entries) == 0 {
		s.build.discard()
		t.tree = tree
		return nil
	}
	tail, err := s.build.tail()
	if err != nil {
		return err
	}
	if err := s.addRecipes(ctx, tail); err != nil {
		return err
	}
	refs, err := s.addTree(ctx, tail, tree)
	if err != nil {
		return err
	}
	t.added = s.build.stored
	if err := s.addNote(ctx, tail, note(tree, t.added)); err != nil {
		return err
	}
	if t.packs, err = s.build.finish(tail); err != nil {
		return err
	}
	s.resolveAll(refs)
	t.tree = tree
	t.row.Tree = refs
	t.row.Packs = s.packsOf(refs)
	t.own = map[replicate.Hash]bool{}
	for _, p := range t.packs {
		t.own[p.name] = true
	}
	return nil
}

func (s *snapshot) addRecipes(ctx context.Context, tail *openPack) error {
	for _, i := range slices.Sorted(maps.Keys(s.pending)) {
		chunks := s.pending[i]
		if err := s.build.nextTail(tail, 2+80*len(chunks)); err != nil {
			return err
		}
		own := slices.Clone(chunks)
		for k := range own {
			s.build.resolve(&own[k].Ref)
		}
		raw, err := encodeRecipe(own)
		if err != nil {
			return fmt.Errorf("save %s: %w", s.entries[i].Path, err)
		}
		ref, err := s.build.addFrame(ctx, tail, kindRecipe, raw)
		if err != nil {
			return err
		}
		s.entries[i].Recipe = &ref
	}
	return nil
}

// addTree encodes the tree for the pack it goes into, which its first frame decides.
func (s *snapshot) addTree(ctx context.Context, tail *openPack, tree *Tree) ([]Ref, error) {
	for {
		handle := tail.handle
		raws, _, err := encodeTree(s.resolved(tree))
		if err != nil {
			return nil, err
		}
		if err := s.build.nextTail(tail, len(raws[0])); err != nil {
			return nil, err
		}
		if tail.handle != handle {
			continue
		}
		var refs []Ref
		for _, raw := range raws {
			if err := s.build.nextTail(tail, len(raw)); err != nil {
				return nil, err
			}
			ref, err := s.build.addFrame(ctx, tail, kindTree, raw)
			if err != nil {
				return nil, err
			}
			refs = append(refs, ref)
		}
		return refs, tree.check()
	}
}

// resolved returns a copy of the tree for writing, in which every place that is known has its name.
func (s *snapshot) resolved(tree *Tree) *Tree {
	t := &Tree{Entries: slices.Clone(tree.Entries)}
	for _, i := range s.fresh {
		e := &t.Entries[i]
		e.Extents = slices.Clone(e.Extents)
		for k := range e.Extents {
			s.build.resolve(&e.Extents[k].Ref)
		}
		if e.Recipe != nil {
			r := *e.Recipe
			s.build.resolve(&r)
			e.Recipe = &r
		}
	}
	return t
}

func (s *snapshot) addNote(ctx context.Context, tail *openPack, note Record) error {
	note, err := note.Encode()
	if err != nil {
		return err
	}
	if err := s.build.nextTail(tail, len(note.Line)); err != nil {
		return err
	}
	_, err = s.build.addFrame(ctx, tail, kindNote, note.Line)
	return err
}

// resolveAll gives every place its pack's name, when all are known.
func (s *snapshot) resolveAll(tree []Ref) {
	for i := range tree {
		s.build.resolve(&tree[i])
	}
	for _, i := range s.fresh {
		e := &s.entries[i]
		for k := range e.Extents {
			s.build.resolve(&e.Extents[k].Ref)
		}
		if e.Recipe == nil {
			continue
		}
		s.build.resolve(e.Recipe)
		chunks := s.pending[i]
		for k := range chunks {
			s.build.resolve(&chunks[k].Ref)
		}
		s.recipes[*e.Recipe] = newRecipe(chunks)
	}
}

// packsOf returns the packs that a record of the tree needs.
func (s *snapshot) packsOf(tree []Ref) []replicate.Hash {
	var list packList
	for _, ref := range tree {
		list.add(ref.Pack)
	}
	for i := range s.entries {
		e := &s.entries[i]
		for _, x := range e.Extents {
			list.add(x.Pack)
		}
		if e.Recipe == nil {
			continue
		}
		list.add(e.Recipe.Pack)
		if r := s.recipes[*e.Recipe]; r != nil {
			for _, p := range r.packs {
				list.add(p)
			}
		}
	}
	return list.names
}

// cache returns the stat cache after this snapshot: of what was looked at, the files whose stat tells later changes apart; all else as before.
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
		if e.Kind != File || st.kind != File || e.Torn || !st.settled(s.moment) {
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
	skip       map[fileID]bool
	build      string // where packs are made
	repository *Repository
	random     io.Reader
	clock      func() time.Time // of the root's file system; zero if it cannot be told
	hooked     func(path string)
}

func (p *project) walker() *walker { return &walker{root: p.root, ignore: p.ignore, skip: p.skip} }
