package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/replicate/replicate"
)

// A checkedPack is what a check knows of a pack.
type checkedPack struct {
	name   replicate.Hash
	size   int64
	frames []packFrame
	err    error            // why nothing in it can be read
	broken map[uint32]error // frames whose bytes are wrong, by offset
}

// readPacks reads the directories of all packs, and their frames if that is wanted.
func (c *checker) readPacks(ctx context.Context) error {
	for o, err := range c.repository.store.List(ctx, packPrefix, "") {
		if err != nil {
			return err
		}
		if name, ok := parsePackKey(o.Key); ok {
			c.packs[name] = &checkedPack{name: name, size: o.Size}
			c.report.Packs++
			c.report.Bytes += o.Size
		}
	}
	for i := range c.rows {
		for _, name := range c.rows[i].row().Packs {
			if c.packs[name] == nil { // a listing may lag: it is asked for by name
				c.packs[name] = &checkedPack{name: name, size: -1}
			}
		}
	}
	var all []*checkedPack
	for _, p := range c.packs {
		all = append(all, p)
	}
	shown := showProgress(int64(len(all)), c.options.Progress)
	defer shown.stop()
	return parallel(ctx, c.repository.workers(), len(all), func(ctx context.Context, i int) error {
		defer shown.add(1)
		return c.readPack(ctx, all[i])
	})
}

// readPack fills in a pack. What it returns is no damage, but what keeps it from looking.
func (c *checker) readPack(ctx context.Context, p *checkedPack) error {
	if p.size < 0 {
		o, err := c.repository.store.Stat(ctx, packKey(p.name))
		if errors.Is(err, fs.ErrNotExist) {
			p.err = packError(p.name, err)
			return nil
		}
		if err != nil {
			return err
		}
		p.size = o.Size
	}
	d, err := readPackDirectory(c.repository.packFile(ctx, p.name), p.size, p.name)
	switch {
	case replicate.KindOf(err) == replicate.Corrupt, errors.Is(err, fs.ErrNotExist):
		p.err = err
		return nil
	case err != nil:
		return err
	}
	p.frames = d.Frames
	if c.options.ReadData {
		return c.readFrames(ctx, p)
	}
	return nil
}

// readFrames verifies every frame of a pack.
func (c *checker) readFrames(ctx context.Context, p *checkedPack) error {
	p.broken = map[uint32]error{}
	var stored, decoded []byte
	for _, f := range p.frames {
		stored = resize(stored, int(f.Len))
		err := c.repository.readPack(ctx, p.name, int64(f.Off), stored)
		if err == nil {
			decoded = resize(decoded, int(f.Raw))
			_, err = openFrame(decoded[:0], stored, f.Ref)
		}
		if err != nil && replicate.KindOf(err) != replicate.Corrupt {
			return err
		}
		if err != nil {
			p.broken[f.Off] = err
		}
	}
	return nil
}

// frame returns what is wrong with a frame that something refers to.
func (c *checker) frame(ref Ref) error {
	p := c.packs[ref.Pack]
	if p == nil {
		return replicate.Errorf(replicate.Corrupt, "pack %.12s… is missing, and no record names it", ref.Pack)
	}
	if p.err != nil {
		return p.err
	}
	i, there := slices.BinarySearchFunc(p.frames, ref.Off, func(f packFrame, off uint32) int { return cmp.Compare(f.Off, off) })
	if !there || p.frames[i].Len != ref.Len || p.frames[i].Raw != ref.Raw || !ref.Hash.IsZero() && p.frames[i].Hash != ref.Hash {
		return replicate.Errorf(replicate.Corrupt, "pack %.12s… has no such frame of %d bytes at %d", ref.Pack, ref.Len, ref.Off)
	}
	return p.broken[ref.Off]
}

// A checkedTree is what is wrong with a tree that some rows have.
type checkedTree struct {
	refs  []Ref
	err   error // nobody can say which files there are
	files []badFile
}

// A badFile is a file that cannot be read.
type badFile struct {
	path string
	err  error
}

// readTrees looks at each tree once, however many rows have it.
func (c *checker) readTrees(ctx context.Context) error {
	var all []*checkedTree
	for i := range c.rows {
		refs := c.rows[i].row().Tree
		if key := treeKey(refs); len(refs) > 0 && c.trees[key] == nil {
			c.trees[key] = &checkedTree{refs: refs}
			all = append(all, c.trees[key])
		}
	}
	return parallel(ctx, c.repository.workers(), len(all), func(ctx context.Context, i int) error {
		return c.readTree(ctx, all[i])
	})
}

func (c *checker) readTree(ctx context.Context, t *checkedTree) error {
	row := Row{Tree: t.refs}
	if _, _, isForeign := row.Foreign(); isForeign {
		return c.readForeign(ctx, t, row)
	}
	tree, _, err := c.repository.readTree(ctx, t.refs)
	if err != nil {
		t.err = err
		return unlessCorrupt(err)
	}
	for i := range tree.Entries {
		e := &tree.Entries[i]
		if e.Kind != File {
			continue
		}
		err := c.file(ctx, e)
		if err := unlessCorrupt(err); err != nil {
			return err
		}
		if err != nil {
			t.files = append(t.files, badFile{e.Path, err})
		}
	}
	return nil
}

// readForeign looks at the files of a row of another format: all there is to verify is that they can be extracted.
func (c *checker) readForeign(ctx context.Context, t *checkedTree, row Row) error {
	if !c.options.ReadData {
		return nil
	}
	tree, err := c.repository.Tree(ctx, row)
	if err != nil {
		t.err = err
		return unlessCorrupt(err)
	}
	if len(tree.Notes) > 0 {
		t.err = errors.New(strings.Join(tree.Notes, "; "))
	}
	return nil
}

// unlessCorrupt returns err if it is no damage, but what keeps a check from looking.
func unlessCorrupt(err error) error {
	if replicate.KindOf(err) == replicate.Corrupt {
		return nil
	}
	return err
}

// file returns what is wrong with a file. One whose frames look damaged is read, as it may be whole all the same: beside the damage in a
// frame of several files, or in a pack that is damaged at its end only.
func (c *checker) file(ctx context.Context, e *Entry) error {
	extents, err := c.repository.extents(ctx, e)
	if err != nil {
		return err
	}
	for _, x := range extents {
		if c.frame(x.Ref) != nil {
			return c.repository.writeFile(ctx, io.Discard, e)
		}
	}
	return nil
}

// checkRow tells what of a row is damaged: the files of its tree, or all of them, or its stretch of a stream, or a pack whose content it
// does not say.
func (c *checker) checkRow(record *Record) {
	experiment, commit := record.ids()
	tell := func(path string, err error) {
		c.problem(Problem{Experiment: experiment, Commit: commit, Path: path, Err: err})
	}
	before := c.report.Problems
	row := record.row()
	if t := c.trees[treeKey(row.Tree)]; t != nil {
		if t.err != nil {
			tell("", fmt.Errorf("the list of files: %w", t.err))
		}
		for _, f := range t.files {
			tell(f.path, f.err)
		}
	}
	if s := record.Stream; s != nil {
		if err := c.stream(s); err != nil {
			tell(string(s.Stream), err)
		}
	}
	if c.report.Problems > before {
		return
	}
	for _, name := range row.Packs {
		if err := c.packs[name].damage(); err != nil {
			tell("", err)
		}
	}
}

// damage returns the first thing that is wrong with a pack.
func (p *checkedPack) damage() error {
	for _, f := range p.frames {
		if err := p.broken[f.Off]; err != nil {
			return err
		}
	}
	return p.err
}

func (c *checker) stream(s *StreamRow) error {
	if s.Frame != nil {
		return c.frame(*s.Frame)
	}
	_, err := decodeInline(s.Inline)
	return err
}
