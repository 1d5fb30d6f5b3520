package repository

import (
	"context"

	"github.com/replicate/replicate"
)

// knownChunks are chunks that need not be stored again.
type knownChunks struct {
	at       map[replicate.Hash]int // index into sequence
	sequence []Extent               // in the order of the files they come from
	recent   func(replicate.Hash) (Extent, bool)
}

func (k *knownChunks) add(x Extent) {
	if _, ok := k.at[x.Hash]; !ok {
		k.at[x.Hash] = len(k.sequence)
	}
	k.sequence = append(k.sequence, x)
}

// find returns a chunk of some content and where it stands in the sequence: at next, if it is there, and -1 if it is in none.
func (k *knownChunks) find(hash replicate.Hash, next int) (x Extent, i int, ok bool) {
	if next >= 0 && next < len(k.sequence) && k.sequence[next].Hash == hash {
		return k.sequence[next], next, true
	}
	if i, ok := k.at[hash]; ok {
		return k.sequence[i], i, true
	}
	x, ok = k.recent(hash)
	return x, -1, ok
}

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
		c := &s.parent.files[i]
		s.knowRecipe(c)
		e := c.entry()
		add(&e)
	}
}

// maxBases is how many files a large one is compared with, beside what stood at its path.
const maxBases = 4

// known returns the chunks of the files that a large file may share some with: what stood at its path, and files of its size. One that
// cannot be read is no base.
func (s *snapshot) known(ctx context.Context, j *errand) *knownChunks {
	k := &knownChunks{at: map[replicate.Hash]int{}, recent: s.recent}
	s.mu.Lock()
	bases := s.sizes[j.stat.size]
	s.mu.Unlock()
	bases = bases[max(0, len(bases)-maxBases):]
	if j.base != nil {
		bases = append([]*Entry{j.base}, bases...)
	}
	for _, e := range bases {
		if !s.reachable(e) {
			continue
		}
		for _, x := range s.chunksOf(ctx, e) {
			if x.From == 0 && !x.Hash.IsZero() && !s.avoid[x.Pack] {
				k.add(x)
			}
		}
	}
	return k
}

// chunksOf returns the chunks of a file, nil if they cannot be found out.
func (s *snapshot) chunksOf(ctx context.Context, e *Entry) []Extent {
	if e.Recipe == nil {
		if len(e.Extents) == 0 {
			return s.unfinished(e)
		}
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
	chunks, ok := s.project.recipes.recipe(*e.Recipe, e.Size)
	if !ok {
		var err error
		if chunks, err = s.project.repository.extents(ctx, e); err != nil {
			return nil
		}
	}
	s.mu.Lock()
	s.recipes[*e.Recipe] = newRecipe(chunks)
	s.mu.Unlock()
	return chunks
}

// unfinished returns the chunks of a file of this snapshot that will have a recipe.
func (s *snapshot) unfinished(e *Entry) []Extent {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, chunks := range s.pending {
		if &s.entries[i] == e {
			return chunks
		}
	}
	return nil
}

// recipe returns what is known of a recipe, nil if that is nothing.
func (s *snapshot) recipe(ref *Ref) *recipe {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.recipes[*ref]
}

// knowRecipe keeps what the stat cache says of a file's recipe.
func (s *snapshot) knowRecipe(c *cachedFile) {
	if c.recipe != nil && s.recipes[*c.recipe] == nil {
		s.recipes[*c.recipe] = &recipe{packs: c.packs}
	}
}

func newRecipe(chunks []Extent) *recipe {
	var packs packList
	for _, x := range chunks {
		packs.add(x.Pack)
	}
	return &recipe{chunks: chunks, packs: packs.names}
}

// maxRecent is how many chunks a writer remembers: some 40 GB of files, in 6 MB.
const maxRecent = 32 << 10

// recentChunks are the last chunks that a writer stored, by content. They find again what is in no current file: a file that goes back to what
// it was, and what was cut differently for a while.
type recentChunks struct {
	refs  map[replicate.Hash]Ref
	order []replicate.Hash // a ring of the hashes, from when it is full
	next  int
}

func (r *recentChunks) add(x Extent) {
	if _, ok := r.refs[x.Hash]; ok || x.Hash.IsZero() {
		return
	}
	if r.refs == nil {
		r.refs = map[replicate.Hash]Ref{}
	}
	if len(r.order) < maxRecent {
		r.order = append(r.order, x.Hash)
	} else {
		delete(r.refs, r.order[r.next])
		r.order[r.next] = x.Hash
		r.next = (r.next + 1) % maxRecent
	}
	r.refs[x.Hash] = x.Ref
}

// recent finds a chunk among those stored lately.
func (s *snapshot) recent(hash replicate.Hash) (Extent, bool) {
	ref, ok := s.parent.recent.refs[hash]
	return Extent{Ref: ref}, ok && !s.avoid[ref.Pack]
}
