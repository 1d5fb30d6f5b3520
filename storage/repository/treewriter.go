package repository

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/replicate/replicate"
)

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
	t.chunks = s.resolveAll(refs)
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

// resolveAll gives every place its pack's name, when all are known, and returns the chunks of the large files among them.
func (s *snapshot) resolveAll(tree []Ref) (large []Extent) {
	for i := range tree {
		s.build.resolve(&tree[i])
	}
	for _, i := range s.fresh {
		e := &s.entries[i]
		for k := range e.Extents {
			s.build.resolve(&e.Extents[k].Ref)
		}
		chunks, ok := s.pending[i]
		if !ok {
			if e.Size >= minChunked {
				large = append(large, e.Extents...)
			}
			continue
		}
		s.build.resolve(e.Recipe)
		for k := range chunks {
			s.build.resolve(&chunks[k].Ref)
		}
		large = append(large, chunks...)
		s.recipes[*e.Recipe] = newRecipe(chunks)
	}
	return large
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
