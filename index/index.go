// Package index keeps SQLite equal to the records of a repository and answers queries from it.
//
// It is disposable and always rebuildable: deleting its file costs time, never data. It promises that the order in which records
// arrive, and how often, makes no difference; that ordinals of experiments and commits are assigned once and never reused; and
// that every answer is of one moment. It knows nothing of packs: the lines of records are kept as they are, and what they say of
// trees is read by package repository when somebody asks.
package index

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// An Index is the local picture of a repository. Several processes may have one file open. It is safe for use by several
// goroutines.
type Index struct {
	repository *repository.Repository
	options    Options

	version, instance atomic.Int64

	syncing sync.Mutex // held by Sync and by fetching; guards what follows
	seen    seen
	damage  []error // of what was fetched since the last Sync

	file     sync.RWMutex // guards the rest: held for reading by every use, for writing while the file is replaced
	db       *sql.DB
	path     string // "" in memory
	building string // the file that is open instead, until the first sync has filled it; else ""
	inMemory error  // why
}

// Open opens the index of a repository in the folder dir (one file per repository id), making it if need be. A file that is damaged or of
// another version is rebuilt. Where no file can be kept the index is in memory, and InMemory says why.
func Open(ctx context.Context, dir string, r *repository.Repository, o Options) (*Index, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	x := &Index{repository: r, options: o, path: filepath.Join(dir, fileName(r.ID()))}
	x.file.Lock()
	defer x.file.Unlock()
	return x, wrap("open index", x.open(ctx))
}

// Options are what the reader's replicate.yaml says.
type Options struct {
	Metrics []replicate.Metric // goals for experiments without their own; the first is the primary metric if Primary
	Primary bool
	Now     func() time.Time // nil: time.Now
}

// Goals returns what the options say of metrics: it decides what is best in experiments that say nothing.
func (x *Index) Goals() (metrics []replicate.Metric, primary bool) {
	return x.options.Metrics, x.options.Primary
}

// open opens the file, begins a new one if there is none or it is damaged, does without if there can be none.
func (x *Index) open(ctx context.Context) error {
	db, err := x.openOrBuild(ctx)
	if isDamaged(err) {
		if err = removeFile(x.path); err == nil {
			db, err = x.openOrBuild(ctx)
		}
	}
	if isUnwritable(err) {
		x.inMemory, x.path = err, ""
		db, err = openFile(ctx, x.path)
	}
	if err != nil {
		return err
	}
	var version, instance int64
	if err := db.QueryRowContext(ctx, "SELECT version, instance FROM meta").Scan(&version, &instance); err != nil {
		return errors.Join(err, db.Close())
	}
	x.db, x.seen = db, seen{}
	x.version.Store(version)
	x.instance.Store(instance)
	return nil
}

// use runs f on the database. A file that turns out to be damaged is made again, empty.
func (x *Index) use(ctx context.Context, f func(db *sql.DB) error) error {
	err := x.run(f)
	if isDamaged(err) {
		if err = x.rebuild(ctx); err == nil {
			err = x.run(f)
		}
	}
	return err
}

func (x *Index) run(f func(db *sql.DB) error) error {
	x.file.RLock()
	defer x.file.RUnlock()
	return f(x.db)
}

func (x *Index) rebuild(ctx context.Context) error {
	x.file.Lock()
	defer x.file.Unlock()
	if err := errors.Join(x.db.Close(), x.abandon(), removeFile(x.path)); err != nil {
		return err
	}
	return x.open(ctx)
}

// leaveFile goes on in memory, because no more can be written to the file.
func (x *Index) leaveFile(ctx context.Context, why error) error {
	x.file.Lock()
	defer x.file.Unlock()
	x.db.Close() // what could not be written is not needed
	x.abandon()
	x.inMemory, x.path = why, ""
	return x.open(ctx)
}

// InMemory returns why no file is kept, nil if one is.
func (x *Index) InMemory() error {
	x.file.RLock()
	defer x.file.RUnlock()
	return x.inMemory
}

// Close closes the file.
func (x *Index) Close() error {
	x.file.Lock()
	defer x.file.Unlock()
	return wrap("close index", errors.Join(x.db.Close(), x.abandon()))
}

// Version grows with every change that Sync made. Instance changes when ordinals were lost.
func (x *Index) Version() int64  { return x.version.Load() }
func (x *Index) Instance() int64 { return x.instance.Load() }

// An Experiment is one row of the index.
type Experiment struct {
	Ord                  int64 // assigned once, never reused
	Version              int64 // of the index, when this experiment last changed
	replicate.Experiment       // Status as a reader concludes it: never "", Lost where the heartbeat is old
	Deleted              bool
	Commits              int64 // living ones
	Size                 int64 // bytes of the newest commit's files
	Latest               *Commit
	Best                 *Commit           // by the primary metric; nil without one
	Primary              *replicate.Metric // its own, else the reader's
	Metrics              []Metric          // in order of name
	LastSet              time.Time         // the highest At among its Set records: what is set next must be later
	Changed              time.Time         // when anything of it last changed, as far as that is recorded
}

// A Metric is what is known of one metric of one experiment.
type Metric struct {
	Name string
	Goal replicate.Goal // "" if it has none
	replicate.Summary
}

// A Commit is one commit of the index. Index.Row returns where its tree lies.
type Commit struct {
	Ord int64
	replicate.Commit
}

// A Query says which experiments, in which order.
type Query struct {
	Filters []string // in the query language; all must hold
	Sort    string   // NAME, NAME-asc, NAME-desc; "" is created
	Last    int      // only the last n; 0: all
	Brief   bool     // leave Metrics out of the answer
}

// A Target is what an id, a prefix, a name or EXP@best stands for: an experiment, and a commit if the reference named one.
type Target struct {
	Experiment *Experiment
	Commit     *Commit // nil if the reference named an experiment
}

// ID is the id of the commit, else of the experiment.
func (t Target) ID() replicate.ID {
	if t.Commit != nil {
		return t.Commit.ID
	}
	return t.Experiment.ID
}
