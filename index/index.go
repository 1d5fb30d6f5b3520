// Package index keeps SQLite equal to the records of a repository and answers queries from it.
//
// It is disposable and always rebuildable: deleting its file costs time, never data. It knows nothing of packs.
package index

import (
	"context"
	"errors"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

var errLater = errors.New("under construction")

// An Index is the local picture of a repository. Several processes may have one file open.
type Index struct{}

// Open opens the index of a repository in the folder dir (one file per repository id), making it if need be. A file that is damaged or of
// another version is rebuilt.
func Open(ctx context.Context, dir string, r *repository.Repository, o Options) (*Index, error) {
	return nil, errLater
}

// Options are what the reader's replicate.yaml says.
type Options struct {
	Metrics []replicate.Metric // goals for experiments without their own; the first is the primary metric if Primary
	Primary bool
	Now     func() time.Time // nil: time.Now
}

// Close closes the file.
func (x *Index) Close() error { return errLater }

// Sync brings the index up to date by difference. Warnings name records that could not be read; the rest is there.
func (x *Index) Sync(ctx context.Context) (warnings []error, err error) { return nil, errLater }

// Version grows with every change that Sync made. Instance changes when ordinals were lost.
func (x *Index) Version() int64  { return 0 }
func (x *Index) Instance() int64 { return 0 }

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
}

// List returns the experiments of a query. Deleted ones only if a filter asks for status = deleted. Notes are for people
// (a name that is both a metric and a parameter). What a table does not show is left out: Git.Patch, Python.Packages and Imported,
// Environment and Failure.Traceback are there only in what Experiment, ByOrd and Resolve return.
func (x *Index) List(ctx context.Context, q Query) (experiments []*Experiment, notes []string, err error) {
	return nil, nil, errLater
}

// A Target is what an id, a prefix, a name or EXP@best stands for: an experiment, and a commit if the reference named one.
type Target struct {
	Experiment *Experiment
	Commit     *Commit // nil if the reference named an experiment
}

// Resolve finds what a person typed: a unique prefix of an experiment or a commit, an exact name, EXP@best, EXP@latest, EXP@12 (step),
// @latest. Errors are NotFound, or Ambiguous with the candidates as the hint.
func (x *Index) Resolve(ctx context.Context, ref string) (Target, error) { return Target{}, errLater }

// Experiment returns an experiment by whole id, or NotFound.
func (x *Index) Experiment(ctx context.Context, id replicate.ID) (*Experiment, error) {
	return nil, errLater
}

// ByOrd returns an experiment by its ordinal, or NotFound.
func (x *Index) ByOrd(ctx context.Context, ord int64) (*Experiment, error) { return nil, errLater }

// CommitsOf returns the living commits of an experiment by (seq, time, id).
func (x *Index) CommitsOf(ctx context.Context, experiment replicate.ID) ([]*Commit, error) {
	return nil, errLater
}

// Commit returns a commit by whole id, or NotFound. CommitByOrd by its ordinal.
func (x *Index) Commit(ctx context.Context, id replicate.ID) (*Commit, error) { return nil, errLater }
func (x *Index) CommitByOrd(ctx context.Context, ord int64) (*Commit, error)  { return nil, errLater }

// Row returns what the record of a commit says of its tree and packs.
func (x *Index) Row(ctx context.Context, c *Commit) (repository.Row, error) {
	return repository.Row{}, errLater
}

// Streams returns the accepted rows of one stream of an experiment.
func (x *Index) Streams(ctx context.Context, experiment replicate.ID, kind repository.StreamKind) ([]repository.StreamRow, error) {
	return nil, errLater
}

// CodeTree returns the row of the tree that init saved.
func (x *Index) CodeTree(ctx context.Context, experiment replicate.ID) (repository.Row, error) {
	return repository.Row{}, errLater
}

// Changes returns the ordinals of experiments and commits that changed, came or went after a version.
func (x *Index) Changes(ctx context.Context, since int64) (experiments, commits []int64, err error) {
	return nil, nil, errLater
}
