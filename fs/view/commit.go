package view

import (
	"context"
	"fmt"
	"io"
	"runtime/debug"
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
		return commits, 1, err
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

// largeTree is from how many paths on what reading a tree leaves behind, some twice the tree, is given back at once: a server may then be
// idle for days.
const largeTree = 50_000

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
		t, err := v.repo.Tree(ctx, row)
		if err != nil {
			return nil, 0, v.blame(ctx, ord, err)
		}
		flat := newTree(t)
		if err := v.number(ctx, flat, ord); err != nil {
			return nil, 0, err
		}
		if len(flat.places) >= largeTree {
			debug.FreeOSMemory()
		}
		return flat, flat.weight(), nil
	})
}

// row returns where the files of a commit are.
func (v *View) row(ctx context.Context, ord int64) (repository.Row, error) {
	return v.treeRows.get(ord, func() (repository.Row, int64, error) {
		row, err := v.index.Row(ctx, &index.Commit{Ord: ord})
		return row, 1, gone(err)
	})
}

// number gives the large files of a tree their numbers.
func (v *View) number(ctx context.Context, t *tree, commit int64) error {
	files, places := t.large(commit)
	if len(files) == 0 {
		return nil
	}
	numbers, err := v.index.FileNumbers(ctx, files)
	if err != nil {
		return err
	}
	t.shared = make(map[int]int64, len(files))
	for i, p := range places {
		t.shared[p] = numbers[i]
	}
	return nil
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

// place returns the tree that a node is in, and its place there.
func (v *View) place(ctx context.Context, id ID) (t *tree, p int, err error) {
	ord, at, err := v.source(ctx, id)
	if err != nil {
		return nil, 0, err
	}
	t, err = v.tree(ctx, ord)
	switch {
	case err != nil:
		return nil, 0, err
	case !t.has(at):
		return nil, 0, ErrStale
	}
	return t, int(at), nil
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
func treeNode(dir ID, t *tree, p int) ID {
	if t.dir(p) {
		return newID(dir.class(), dir.ord(), int64(p))
	}
	if number, ok := t.shared[p]; ok {
		return newID(contentFile, number, 0)
	}
	return newID(commitFile, dir.ord(), int64(p))
}

func (v *View) lookupTree(ctx context.Context, dir ID, name string) (ID, error) {
	t, p, err := v.place(ctx, dir)
	if err != nil {
		return 0, err
	}
	child, ok := t.find(p, name)
	if !ok {
		return 0, errNone
	}
	return treeNode(dir, t, child), nil
}

func (v *View) listTree(ctx context.Context, dir ID, cookie uint64, yield func(uint64, Entry) bool) error {
	t, p, err := v.place(ctx, dir)
	if err != nil {
		return err
	}
	d := t.places[p]
	for child := max(int64(d.first), after(cookie)); child < int64(d.next); child++ {
		a := entryAttr(t.at(int(child)))
		e := Entry{Name: t.name(int(child)), ID: treeNode(dir, t, int(child)), Mode: a.Mode, Attr: &a}
		if !yield(uint64(child)+FirstCookie, e) {
			return nil
		}
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
	t, p, err := v.place(ctx, id)
	if err != nil {
		return Attr{}, err
	}
	if p == 0 {
		return Attr{}, ErrStale
	}
	return entryAttr(t.at(p)), nil
}

// entryAttr is what stat says of a path: what was saved, exactly.
func entryAttr(e *repository.Entry) Attr {
	switch e.Kind {
	case repository.Dir:
		return Attr{Mode: TypeDir | e.Mode, Mtime: e.Mtime}
	case repository.Link:
		return Attr{Mode: linkMode, Size: int64(len(e.Target)), Mtime: e.Mtime}
	}
	return Attr{Mode: TypeFile | e.Mode, Size: e.Size, Mtime: e.Mtime}
}

func (v *View) treeLink(ctx context.Context, id ID) (string, error) {
	t, p, err := v.place(ctx, id)
	if err != nil {
		return "", err
	}
	if p == 0 || t.at(p).Kind != repository.Link {
		return "", ErrStale
	}
	return t.at(p).Target, nil
}

func (v *View) treeContent(ctx context.Context, id ID) (io.ReaderAt, error) {
	return v.files.get(id, func() (io.ReaderAt, int64, error) {
		t, p, err := v.place(ctx, id)
		if err != nil {
			return nil, 0, err
		}
		if p == 0 || t.at(p).Kind != repository.File {
			return nil, 0, ErrStale
		}
		r, err := v.repo.File(ctx, t.at(p))
		return blamed{r, v, id}, 1, err
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
