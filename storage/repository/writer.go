package repository

import (
	"context"
	"encoding/json"
	"time"

	"github.com/replicate/replicate"
)

// A Spool is where the processes of this machine put what is not published yet. For a storage.Local it is the folder tmp/ inside
// it, and publishing is renaming.
type Spool struct{}

// OpenSpool opens the spool of a repository, making it if need be. dir is used for storages that are not local; it becomes
// <dir>/<repository id>.
func OpenSpool(ctx context.Context, r *Repository, dir string) (*Spool, error) { return nil, errLater }

// Recover finishes what dead processes of this machine left: half-made packs go away, points and output that were written are published,
// and their experiments end as Crashed. It returns the experiments that it ended.
func (s *Spool) Recover(ctx context.Context) ([]replicate.ID, error) { return nil, errLater }

// WriterOptions says what a Writer records.
type WriterOptions struct {
	Root   string            // the project root: paths of a tree are relative to it
	Ignore []string          // gitignore patterns of replicate.yaml
	Paths  []string          // what commits save, relative to Root; nil: all of Root; empty: nothing
	Note   func(text string) // told about files that were left out, torn, unreadable; may be nil
	Guest  bool              // somebody else ends the experiment: if this process dies, Recover publishes what is left and ends nothing
}

// A Writer records one experiment from one process. Its methods may be called from several goroutines.
// Nothing it returned successfully from Begin, Commit and End is lost by a crash, of the process or of the machine.
type Writer struct{}

// Begin makes a new experiment: it snapshots the code tree and publishes the experiment's row. e.ID and e.Created must be set.
func (s *Spool) Begin(ctx context.Context, e replicate.Experiment, o WriterOptions) (*Writer, Snapshot, error) {
	return nil, Snapshot{}, errLater
}

// Resume says where an experiment stands that gets another writer.
type Resume struct {
	Parent   Row            // the row that the next commit builds on: that of the newest commit, else of the experiment
	ParentID replicate.ID   // the newest commit, "" if there is none
	Seq      int64          // of the next commit
	Step     replicate.Step // the last one that was recorded, NoStep if there is none
	At       time.Time      // the highest At among the experiment's Set records
}

// Attach makes another writer of an experiment that exists: a resumed run, or one command of the shell way.
func (s *Spool) Attach(ctx context.Context, experiment replicate.ID, from Resume, o WriterOptions) (*Writer, error) {
	return nil, errLater
}

// A Snapshot says what was saved.
type Snapshot struct {
	Files   int64
	Bytes   int64
	Changed int64 // files that were read
	Added   int64 // bytes added to the storage
	LeftOut []LeftOut
}

// LeftOut is a path that a snapshot did not save.
type LeftOut struct {
	Path  string `json:"path"` // with "/" at the end for a directory
	Bytes int64  `json:"bytes"`
	More  bool   `json:"more,omitempty"` // the directory is too large to be measured: Bytes is a part of it
	Why   string `json:"why"`            // ".gitignore:3", "secret", "socket", "unreadable", …
}

// A CommitRequest is one call of commit.
type CommitRequest struct {
	Step    replicate.Step // NoStep: the previous one + 1, from 0
	Time    time.Time
	Metrics replicate.Values
	Message string
	Paths   []string          // nil: those of the writer; else only these are looked at, and everything else is the parent's
	Extra   map[string][]byte // files added to the tree that are not on disk, by path

	// IfChanged makes no commit when the tree would be the parent's: the row returned has no ID.
	IfChanged bool
}

// Commit snapshots the files and publishes a commit. When it returned, the commit and every point logged before it are durable.
func (w *Writer) Commit(ctx context.Context, c CommitRequest) (CommitRow, Snapshot, error) {
	return CommitRow{}, Snapshot{}, errLater
}

// Log appends points to the metrics stream, in order. It does one write to a local file and never waits for anything else.
func (w *Writer) Log(points ...Point) error { return errLater }

// Output appends bytes to the output stream.
func (w *Writer) Output(p []byte) error { return errLater }

// Set publishes facts about the experiment, with fields as in a Set record.
func (w *Writer) Set(ctx context.Context, fields map[string]json.RawMessage) error { return errLater }

// Flush publishes what was appended to the streams.
func (w *Writer) Flush(ctx context.Context) error { return errLater }

// Beat writes the heartbeat.
func (w *Writer) Beat(ctx context.Context) error { return errLater }

// End publishes the rest of the streams and the end of the experiment, removes the heartbeat and closes the writer.
// A zero status closes the writer without ending the experiment.
func (w *Writer) End(ctx context.Context, status replicate.Status, fields map[string]json.RawMessage) error {
	return errLater
}
