// Package view shows a repository as a tree of names: names to nodes, nodes to attributes and bytes.
//
// It is pure computation over the index and the repository: every name and every byte of the mount can be tested here
// without a kernel, and anything else that walks the tree walks the same one. It refuses to know FUSE.
//
// A node is a number that is computed from what it names (ids.go), so that nothing is kept per node and another process, or
// this one after a crash, finds the same node under the same number. What a node holds never changes: what must change gets a
// new node under the old name. Only growing files are exempt, and they only grow.
package view

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/repository"
)

// A Life says what a reader may keep of a node, and for how long.
type Life int

const (
	Forever Life = iota // name, attributes and content never change: commit trees
	Named               // the content never does, but the name may come to stand for another node: rendered files, links
	Growing             // the same node, whose size only grows: output.log and metrics.csv of a running experiment
	Live                // a directory whose list changes
	Query               // as Live, and that a name is missing must not be kept at all
)

// An Attr is what stat says of a node. Links are counted as 1 and owned by the reader throughout.
type Attr struct {
	Mode  uint32 // type and permissions, as in st_mode
	Size  int64  // always true
	Mtime int64  // nanoseconds since 1970
}

// The types in Attr.Mode and Entry.Mode. They are the numbers that every Unix uses.
const (
	TypeMask = 0o170000
	TypeDir  = 0o040000
	TypeFile = 0o100000
	TypeLink = 0o120000
)

// An Entry is one name of a directory.
type Entry struct {
	Name string
	ID   ID
	Mode uint32 // at least the type
	Attr *Attr  // nil where it would cost something to know: ask Attr
}

// A Change says that a name of a directory came, went or stands for another node.
type Change struct {
	Dir  ID
	Name string
}

// ErrStale is the error of a node that once was and cannot be found any more: an older version of a rendered file after a
// restart, what was deleted, or any node after the ordinals of the index were lost.
var ErrStale = errors.New("this version is gone")

// errNone is the error of every missing name. It is one value, as tools ask for names by the thousand.
var errNone = fs.ErrNotExist

// FirstCookie is the smallest cookie of an entry: "." and ".." come before.
const FirstCookie = 3

// An Index is what a view asks of package index.
type Index interface {
	Sync(ctx context.Context) (warnings []error, err error)
	Version() int64
	Instance() int64
	Changes(ctx context.Context, since int64) (experiments, commits []int64, err error)
	Resolve(ctx context.Context, ref string) (index.Target, error)
	Goals() (metrics []replicate.Metric, primary bool)
	Each(ctx context.Context, since int64, f func(*index.Experiment) error) (gone []int64, version int64, err error)
	ByOrd(ctx context.Context, ord int64) (*index.Experiment, error)
	CommitByOrd(ctx context.Context, ord int64) (*index.Commit, error)
	Commit(ctx context.Context, id replicate.ID) (*index.Commit, error)
	CommitsOf(ctx context.Context, experiment replicate.ID) ([]*index.Commit, error)
	Row(ctx context.Context, c *index.Commit) (repository.Row, error)
	Streams(ctx context.Context, experiment replicate.ID, kind repository.StreamKind) ([]repository.StreamRow, error)
	ExperimentNames(ctx context.Context) ([]index.Name, error)
	CommitNames(ctx context.Context) ([]index.Name, error)
	Complete(ctx context.Context) error
	FileNumbers(ctx context.Context, files []index.File) ([]int64, error)
	FileByNumber(ctx context.Context, number int64) (index.File, error)
	Close() error
}

var _ Index = (*index.Index)(nil)

const (
	// These bound what is kept in memory, in bytes: lists of files, what is rendered, where commits are and where the chunks of files are.
	treesLimit    = 16 << 20
	renderedLimit = 16 << 20
	rowsLimit     = 4 << 20
	filesLimit    = 4 << 20
	keptSeries    = 64

	// rowWeight and refWeight are about what a commit takes, and each frame and pack of it; fileWeight and extentWeight an open file, and each
	// of its chunks, of which one has a megabyte on average.
	rowWeight    = 300
	refWeight    = 80
	fileWeight   = 1000
	extentWeight = 100
)

// A View is the tree of one repository, or of one commit of it. Its methods may be called from several goroutines.
type View struct {
	index Index
	repo  *repository.Repository
	cache string // folder for what is rendered and large
	birth int64  // instance of the index that nodes are numbers of
	root  ID     // what Root stands for: a commit's directory in a view of one commit

	treeRows *cache[int64, repository.Row] // by commit
	trees    *cache[treeKey, *tree]
	shared   *cache[int64, index.File]
	files    *cache[ID, io.ReaderAt]
	rendered *cache[ID, *spill]
	series   *cache[seriesKey, *series]

	current    atomic.Pointer[snapshot]
	naming     sync.Mutex // held while names are read from the index
	refreshing sync.Mutex // held by Refresh

	size  sizer
	tally tally

	merges repository.Merges

	synced    chan struct{} // closed when the first sync is over, or was never needed
	firstSync sync.Once
}

// New makes a view of a repository. Large things that are rendered go to files without names in the folder cacheDir, which is made
// if it is missing. The view closes the index.
func New(x Index, r *repository.Repository, cacheDir string) (*View, error) {
	if err := os.MkdirAll(cacheDir, 0o700); err != nil {
		return nil, &replicate.Error{Op: "make the cache", Path: cacheDir, Kind: replicate.KindOf(err), Err: err}
	}
	v := &View{
		index: x, repo: r, cache: cacheDir, root: Root, birth: x.Instance(),
		treeRows: newCache[int64, repository.Row](rowsLimit),
		trees:    newCache[treeKey, *tree](treesLimit),
		shared:   newCache[int64, index.File](keptCommits),
		files:    newCache[ID, io.ReaderAt](filesLimit),
		rendered: newCache[ID, *spill](renderedLimit),
		series:   newCache[seriesKey, *series](keptSeries),
		synced:   make(chan struct{}),
	}
	v.tally.path = filepath.Join(cacheDir, tallyFile)
	version := x.Version()
	v.current.Store(newSnapshot(version))
	if version > 0 {
		v.firstSync.Do(func() { close(v.synced) })
	}
	return v, nil
}

// NewCommit makes a view whose root is the directory of a commit. Nothing in it ever changes.
func NewCommit(ctx context.Context, x Index, r *repository.Repository, cacheDir string, id replicate.ID) (*View, error) {
	v, err := New(x, r, cacheDir)
	if err != nil {
		return nil, err
	}
	c, err := x.Commit(ctx, id)
	if replicate.KindOf(err) == replicate.NotFound { // of an index that was never synced, or long ago
		if _, err := x.Sync(ctx); err != nil {
			return nil, err
		}
		c, err = x.Commit(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	v.root = newID(commitDirFlat, c.Ord, 0)
	return v, nil
}

// Close gives back what the view holds.
func (v *View) Close() error {
	v.merges.Stop()
	return v.index.Close()
}

// Life says what a reader may keep of a node.
func (v *View) Life(id ID) Life { return v.node(id).Life() }

// node returns what an id stands for.
func (v *View) node(id ID) ID {
	if id == Root {
		return v.root
	}
	return id
}

// Wake returns a folder in which a name appears whenever the repository changes, "" if there is none.
func (v *View) Wake() string {
	if local, ok := v.repo.Store().(storage.Local); ok && v.root == Root {
		return local.Path("log")
	}
	return ""
}

// snapshot returns what is known now. If nothing ever was, it waits for the first sync.
func (v *View) snapshot(ctx context.Context) (*snapshot, error) {
	select {
	case <-v.synced:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return v.current.Load(), v.fresh()
}

// Instance is that of the index: with another one, every node is stale.
func (v *View) Instance() int64 { return v.index.Instance() }

// fresh is an error when nodes no longer stand for what they did.
func (v *View) fresh() error {
	if v.index.Instance() != v.birth {
		return ErrStale
	}
	return nil
}

// Lookup finds a name in a directory.
func (v *View) Lookup(ctx context.Context, dir ID, name string) (ID, error) {
	dir = v.node(dir)
	if c := dir.class(); c == commitDir || c == commitDirFlat {
		return v.lookupTree(ctx, dir, name)
	}
	if Noise(name) {
		return 0, errNone
	}
	if dir == Root && name == rootNames[readmeName] {
		return readmeFile, nil
	}
	s, err := v.snapshot(ctx)
	if err != nil {
		return 0, err
	}
	switch {
	case dir == Root:
		return v.lookupRoot(ctx, s, name)
	case dir == experimentsDir:
		return v.lookupExperiment(ctx, s, name)
	case dir == commitsDir:
		return v.lookupFlatCommit(ctx, s, name)
	case dir.class() == dirOf && dir.entry() == int64(experimentKind):
		return v.lookupInExperiment(ctx, s, dir.ord(), name)
	case dir.class() == dirOf && dir.entry() == int64(commitsKind):
		return v.lookupCommit(ctx, s, dir.ord(), name)
	}
	return 0, errNone
}

// List calls yield for the entries of a directory whose cookie is greater than the given one, in order of their cookies, until it
// returns false. A cookie stays what it is while other entries come and go.
func (v *View) List(ctx context.Context, dir ID, cookie uint64, yield func(cookie uint64, e Entry) bool) error {
	dir = v.node(dir)
	if c := dir.class(); c == commitDir || c == commitDirFlat {
		return v.listTree(ctx, dir, cookie, yield)
	}
	s, err := v.snapshot(ctx)
	if err != nil {
		return err
	}
	switch {
	case dir == Root:
		return v.listRoot(ctx, s, cookie, yield)
	case dir == experimentsDir:
		return v.listExperiments(ctx, s, cookie, yield)
	case dir == commitsDir:
		return v.listFlatCommits(ctx, s, cookie, yield)
	case dir.class() == dirOf && dir.entry() == int64(experimentKind):
		return v.listExperiment(ctx, s, dir.ord(), cookie, yield)
	case dir.class() == dirOf && dir.entry() == int64(commitsKind):
		return v.listCommits(ctx, s, dir.ord(), cookie, yield)
	}
	return ErrStale
}

const (
	dirMode  = TypeDir | 0o755
	fileMode = TypeFile | 0o644
	linkMode = TypeLink | 0o777
)

// Attr returns what stat says of a node.
func (v *View) Attr(ctx context.Context, id ID) (Attr, error) {
	id = v.node(id)
	switch id.class() {
	case commitDir, commitDirFlat, commitFile, contentFile:
		return v.treeAttr(ctx, id)
	}
	if id == readmeFile {
		return Attr{Mode: fileMode, Size: int64(len(readme)), Mtime: readmeTime}, nil
	}
	s, err := v.snapshot(ctx)
	if err != nil {
		return Attr{}, err
	}
	switch id.class() {
	case fixed:
		t, err := v.newestTime(ctx, s)
		return Attr{Mode: dirMode, Mtime: t}, err
	case dirOf:
		e, err := v.experiment(ctx, s, id.ord())
		if err != nil {
			return Attr{}, err
		}
		return Attr{Mode: dirMode, Mtime: e.Changed.UnixNano()}, nil
	case experimentLink, commitLink:
		target, t, err := v.target(ctx, s, id)
		return Attr{Mode: linkMode, Size: int64(len(target)), Mtime: t}, err
	case growingOf:
		return v.growingAttr(ctx, s, id)
	case rootFile:
		return v.tableAttr(ctx, s, id)
	}
	content, err := v.render(ctx, s, id)
	if err != nil {
		return Attr{}, err
	}
	return Attr{Mode: fileMode, Size: content.Size(), Mtime: content.mtime.Load()}, nil
}

// Link returns where a symlink leads.
func (v *View) Link(ctx context.Context, id ID) (string, error) {
	id = v.node(id)
	if id.class() == commitFile {
		return v.treeLink(ctx, id)
	}
	s, err := v.snapshot(ctx)
	if err != nil {
		return "", err
	}
	target, _, err := v.target(ctx, s, id)
	return target, err
}

// Open makes ready what Content returns. Where that is no more what Attr said, the error is ErrStale, and the name stands for another node.
func (v *View) Open(ctx context.Context, id ID) error {
	if id.class() != rootFile {
		return nil
	}
	_, err := v.Content(ctx, id)
	return err
}

// Content returns the bytes of a file, verified. Those of a growing file are what there is at each reading.
func (v *View) Content(ctx context.Context, id ID) (io.ReaderAt, error) {
	switch {
	case id == readmeFile:
		return readmeContent, nil
	case id.class() == commitFile || id.class() == contentFile:
		return v.treeContent(ctx, id)
	}
	s, err := v.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	if id.class() == growingOf {
		return v.growing(ctx, s, id)
	}
	return v.render(ctx, s, id)
}
