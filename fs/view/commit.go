package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

// stepName is the name of a commit in its experiment, given the listed beginning of its id.
func stepName(c *index.Commit, short string) string {
	step := int64(c.Step)
	if c.Step == replicate.NoStep {
		step = c.Seq
	}
	return Escape(fmt.Sprintf("%08d-%s", step, short))
}

// commitsOf returns the commits of an experiment in order of their ordinals, so that a new one moves no other in a listing.
func (v *View) commitsOf(ctx context.Context, s *snapshot, experiment int64) ([]*index.Commit, error) {
	return s.lists.get(experiment, func() ([]*index.Commit, int64, error) {
		e, err := v.experiment(ctx, s, experiment)
		if err != nil {
			return nil, 0, err
		}
		before := v.index.Version()
		commits, err := v.index.CommitsOf(ctx, e.ID)
		v.renew(s, before)
		commits = slices.Clone(commits)
		slices.SortFunc(commits, func(a, b *index.Commit) int { return int(a.Ord - b.Ord) })
		return commits, int64(len(commits)) + 1, err
	})
}

func (v *View) listCommits(ctx context.Context, s *snapshot, experiment int64, cookie uint64, yield func(uint64, Entry) bool) error {
	commits, err := v.commitsOf(ctx, s, experiment)
	if err != nil {
		return err
	}
	names, err := v.namesOf(ctx, s, ofCommits)
	if err != nil {
		return err
	}
	for _, c := range commits {
		short, ok := names.nameOf(c.Ord)
		if c.Ord < after(cookie) || !ok {
			continue
		}
		e := Entry{Name: stepName(c, short), ID: newID(commitDir, c.Ord, 0), Mode: dirMode, Attr: commitAttr(c)}
		if !yield(uint64(c.Ord)+FirstCookie, e) {
			return nil
		}
	}
	return nil
}

// lookupCommit finds <step>-<beginning of an id>. The listed name is the directory, every other spelling a link to it.
func (v *View) lookupCommit(ctx context.Context, s *snapshot, experiment int64, name string) (ID, error) {
	prefix := name[strings.LastIndexByte(name, '-')+1:]
	c, short, err := v.findCommit(ctx, s, prefix)
	if err != nil {
		return 0, err
	}
	e, err := v.experiment(ctx, s, experiment)
	switch {
	case err != nil:
		return 0, err
	case c.Experiment != e.ID || stepName(c, prefix) != name:
		return 0, errNone
	case prefix == short:
		return newID(commitDir, c.Ord, 0), nil
	}
	return linkID(commitLink, c.Ord, besidesStep, len(short)), nil
}

// findCommit finds the only commit whose id begins with prefix, and the beginning that is listed.
func (v *View) findCommit(ctx context.Context, s *snapshot, prefix string) (c *index.Commit, short string, err error) {
	names, err := v.namesOf(ctx, s, ofCommits)
	if err != nil {
		return nil, "", err
	}
	ord, ok := names.find(prefix)
	if !ok {
		before := v.index.Version()
		if !replicate.IsPrefix(prefix) {
			return nil, "", errNone
		}
		t, err := v.index.Resolve(ctx, prefix) // it may be a commit whose row was not fetched yet
		v.renew(s, before)
		switch kind := replicate.KindOf(err); {
		case kind == replicate.NotFound, kind == replicate.Ambiguous, err == nil && t.Commit == nil:
			return nil, "", errNone
		case err != nil:
			return nil, "", err
		}
		if names, err = v.namesOf(ctx, s, ofCommits); err != nil {
			return nil, "", err
		}
		ord = t.Commit.Ord
	}
	c, err = v.commit(ctx, s, ord)
	if err != nil || !c.ID.HasPrefix(prefix) {
		return nil, "", errNone
	}
	short, _ = names.nameOf(ord)
	return c, short, nil
}

// lookupFlatCommit finds a name in commits/: a directory, the JSON beside it, or another spelling of either.
func (v *View) lookupFlatCommit(ctx context.Context, s *snapshot, name string) (ID, error) {
	prefix, isJSON := strings.CutSuffix(name, ".json")
	c, short, err := v.findCommit(ctx, s, prefix)
	switch {
	case err != nil:
		return 0, err
	case isJSON:
		return newID(commitJSON, c.Ord, 0), nil
	case prefix == short:
		return newID(commitDirFlat, c.Ord, 0), nil
	}
	return linkID(commitLink, c.Ord, besides, len(short)), nil
}

// listFlatCommits lists commits/ by name alone: there may be millions.
func (v *View) listFlatCommits(ctx context.Context, s *snapshot, cookie uint64, yield func(uint64, Entry) bool) error {
	before := v.index.Version()
	if err := v.index.Complete(ctx); err != nil {
		return err
	}
	v.renew(s, before)
	names, err := v.namesOf(ctx, s, ofCommits)
	if err != nil {
		return err
	}
	for i := names.from(after(cookie)); i < names.len(); i++ {
		ord := names.ords[i]
		if !yield(uint64(ord)+FirstCookie, Entry{Name: names.name(i), ID: newID(commitDirFlat, ord, 0), Mode: dirMode}) {
			return nil
		}
	}
	return nil
}

// commitAttr is what stat says of the directory of a commit.
func commitAttr(c *index.Commit) *Attr { return &Attr{Mode: dirMode, Mtime: c.Time.UnixNano()} }

// A treeKey is the first frame of a tree and how many there are: commits that changed nothing share one tree.
type treeKey struct {
	first  replicate.Hash
	frames int
}

// tree returns the tree of a commit by its ordinal, dead or alive: what has it open goes on.
func (v *View) tree(ctx context.Context, ord int64) (*tree, error) {
	if err := v.fresh(); err != nil {
		return nil, err
	}
	row, err := v.row(ctx, ord)
	if err != nil {
		return nil, err
	}
	key := treeKey{frames: len(row.Tree)}
	if len(row.Tree) > 0 {
		key.first = row.Tree[0].Hash
	}
	return v.trees.get(key, func() (*tree, int64, error) {
		t, err := v.buildTree(ctx, row, ord)
		if err != nil {
			return nil, 0, v.blame(ctx, ord, err)
		}
		return t, t.weight(), nil
	})
}

// row returns where the files of a commit are.
func (v *View) row(ctx context.Context, ord int64) (repository.Row, error) {
	return v.treeRows.get(ord, func() (repository.Row, int64, error) {
		row, err := v.index.Row(ctx, &index.Commit{Ord: ord})
		return row, rowWeight + int64(len(row.Tree)+len(row.Packs))*refWeight, gone(err)
	})
}

// blame says which commit an error is about.
func (v *View) blame(ctx context.Context, ord int64, err error) error {
	if c, known := v.index.CommitByOrd(ctx, ord); known == nil {
		return fmt.Errorf("commit %s: %w", c.ID.Short(), err)
	}
	return err
}

// source returns the commit that a node is in, and the place it has there.
func (v *View) source(ctx context.Context, id ID) (ord, place int64, err error) {
	if id.class() != contentFile {
		return id.ord(), id.entry(), nil
	}
	f, err := v.sharedFile(ctx, id.ord())
	return f.Commit, f.Place, err
}

// place returns the place that a node has, its record, and the tree it is in. The record of the root is empty.
func (v *View) place(ctx context.Context, id ID) (t *tree, s spot, r record, err error) {
	ord, at, err := v.source(ctx, id)
	if err != nil {
		return nil, s, nil, err
	}
	if t, err = v.tree(ctx, ord); err != nil {
		return nil, s, nil, err
	}
	if !t.has(at) {
		return nil, s, nil, ErrStale
	}
	if s, r, err = t.at(int(at)); err != nil {
		return nil, s, nil, v.blame(ctx, ord, err)
	}
	return t, s, r, nil
}

// saved returns what a node that is not a commit itself was saved as.
func (v *View) saved(ctx context.Context, id ID, kind repository.EntryKind) (*repository.Entry, error) {
	_, s, r, err := v.place(ctx, id)
	if err != nil {
		return nil, err
	}
	if s.place == 0 || r.kind() != kind {
		return nil, ErrStale
	}
	return r.entry()
}

// sharedFile returns a large file by its number.
func (v *View) sharedFile(ctx context.Context, number int64) (index.File, error) {
	return v.shared.get(number, func() (index.File, int64, error) {
		f, err := v.index.FileByNumber(ctx, number)
		return f, 1, gone(err)
	})
}

// treeNode is the node of a place. Directories have one below experiments/ and one below commits/, as a directory has one parent;
// files and links are shared, large files by all commits that hold them.
func treeNode(dir ID, s spot, r record) ID {
	switch {
	case r.kind() == repository.Dir:
		return newID(dir.class(), dir.ord(), int64(s.place))
	case s.number > 0:
		return newID(contentFile, s.number, 0)
	}
	return newID(commitFile, dir.ord(), int64(s.place))
}

func (v *View) lookupTree(ctx context.Context, dir ID, name string) (ID, error) {
	t, d, _, err := v.place(ctx, dir)
	if err != nil {
		return 0, err
	}
	s, r, found, err := t.find(d, name)
	if err != nil {
		return 0, v.blame(ctx, dir.ord(), err)
	}
	if !found {
		return 0, errNone
	}
	return treeNode(dir, s, r), nil
}

// errEnough ends a list before its end.
var errEnough = errors.New("enough")

func (v *View) listTree(ctx context.Context, dir ID, cookie uint64, yield func(uint64, Entry) bool) error {
	t, d, _, err := v.place(ctx, dir)
	if err != nil {
		return err
	}
	err = t.list(max(d.first, int(after(cookie))), d.next, func(s spot, r record) error {
		a := r.attr()
		e := Entry{Name: string(r.name()), ID: treeNode(dir, s, r), Mode: a.Mode, Attr: &a}
		if !yield(uint64(s.place)+FirstCookie, e) {
			return errEnough
		}
		return nil
	})
	if err != nil && err != errEnough {
		return v.blame(ctx, dir.ord(), err)
	}
	return nil
}

func (v *View) treeAttr(ctx context.Context, id ID) (Attr, error) {
	if id.class() == contentFile {
		f, err := v.sharedFile(ctx, id.ord())
		return Attr{Mode: TypeFile | f.Mode, Size: f.Size, Mtime: f.Mtime}, err
	}
	if id.class() != commitFile && id.entry() == 0 { // the commit itself, without its tree
		c, err := v.commit(ctx, v.current.Load(), id.ord())
		if err != nil {
			return Attr{}, err
		}
		return *commitAttr(c), nil
	}
	_, s, r, err := v.place(ctx, id)
	if err != nil {
		return Attr{}, err
	}
	if s.place == 0 {
		return Attr{}, ErrStale
	}
	return r.attr(), nil
}

func (v *View) treeLink(ctx context.Context, id ID) (string, error) {
	e, err := v.saved(ctx, id, repository.Link)
	if err != nil {
		return "", err
	}
	return e.Target, nil
}

func (v *View) treeContent(ctx context.Context, id ID) (io.ReaderAt, error) {
	return v.files.get(id, func() (io.ReaderAt, int64, error) {
		e, err := v.saved(ctx, id, repository.File)
		if err != nil {
			return nil, 0, err
		}
		r, err := v.repo.File(ctx, e)
		return blamed{r, v, id}, fileWeight + e.Size>>20*extentWeight, err
	})
}

// blamed is a file whose errors say which commit it is of.
type blamed struct {
	repository.Reader
	view *View
	id   ID
}

func (b blamed) ReadAt(p []byte, off int64) (int, error) {
	n, err := b.Reader.ReadAt(p, off)
	return n, b.blame(err)
}

func (b blamed) Lend(p []byte, off int64) ([][]byte, func(), error) {
	parts, done, err := b.Reader.Lend(p, off)
	return parts, done, b.blame(err)
}

func (b blamed) blame(err error) error {
	if err == nil || err == io.EOF {
		return err
	}
	if ord, _, known := b.view.source(context.Background(), b.id); known == nil {
		err = b.view.blame(context.Background(), ord, err)
	}
	return err
}
