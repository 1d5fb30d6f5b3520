package repository

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

var errLater = errors.New("under construction")

// A Repository reads what a storage holds. It is safe for use by several goroutines.
type Repository struct {
	store storage.Store
	id    string
}

// Open reads replicate.json. An error of kind NotFound means that there is no repository yet; a newer format is an error
// that names the version needed.
func Open(ctx context.Context, store storage.Store) (*Repository, error) { return nil, errLater }

// Create opens the repository of a store, making replicate.json first if there is none.
func Create(ctx context.Context, store storage.Store) (*Repository, error) { return nil, errLater }

// ID is the repository's own id, 32 hex digits, made with it.
func (r *Repository) ID() string { return r.id }

// Store returns where the bytes are.
func (r *Repository) Store() storage.Store { return r.store }

// A Batch is one object of records.
type Batch struct {
	Key     string   // log/… or index/…
	Inputs  []string // keys whose records this one includes, for an object that a merge made
	Records []Record // the accepted ones
	Err     error    // the object, or a part of it, is damaged: the error names it. Records holds what could be read
}

// Sync yields every log and index object that known does not know, each with its accepted records, in no order. An error ends
// the iteration; a damaged object does not.
func (r *Repository) Sync(ctx context.Context, known func(key string) bool) iter.Seq2[Batch, error] {
	return func(yield func(Batch, error) bool) { yield(Batch{}, errLater) }
}

// Heartbeats returns the age of every heartbeat by the store's clock.
func (r *Repository) Heartbeats(ctx context.Context) (map[replicate.ID]time.Duration, error) {
	return nil, errLater
}

// A Heartbeat is what a recorder says of a running experiment every replicate.HeartbeatEvery.
type Heartbeat struct {
	Experiment replicate.ID     `json:"experiment"`
	Writer     string           `json:"writer"`
	Time       time.Time        `json:"time"`
	Step       replicate.Step   `json:"step"`
	Metrics    replicate.Values `json:"metrics,omitempty"`
	Unsent     int64            `json:"unsent"` // bytes waiting in the spool
	Ready      int              `json:"ready"`  // records waiting in the spool
}

// Tree reads the tree of a row. A row without frames has an empty tree.
func (r *Repository) Tree(ctx context.Context, row Row) (*Tree, error) { return nil, errLater }

// File opens a regular file of a tree. Every byte is verified before it is returned; damage is an error of kind Corrupt that names the
// path. ReadAt may be called from several goroutines. Nothing needs to be closed.
func (r *Repository) File(ctx context.Context, e *Entry) (io.ReaderAt, error) { return nil, errLater }

// WriteFile writes the whole content of a regular file, in order, verified against the file's own hash at the end.
func (r *Repository) WriteFile(ctx context.Context, w io.Writer, e *Entry) error { return errLater }

// A Point is one call of log() or commit() in the metrics stream.
type Point struct {
	Step    replicate.Step
	Time    time.Time // millisecond resolution
	Metrics replicate.Values
	Commit  replicate.ID // "" if it was a log()
}

// A Stream is the readable content of one stream of one experiment: the rows of all its writers, put together.
// It is a snapshot: later rows make a new Stream.
type Stream struct{}

// Stream puts the rows of one stream of one experiment together. Superseded and overlapping rows are sorted out here.
func (r *Repository) Stream(rows []StreamRow) *Stream { return nil }

// Points yields the points in order: by writer in order of appearance, then by position.
func (s *Stream) Points(ctx context.Context) iter.Seq2[Point, error] { return nil }

// WriteTo writes the bytes of an output stream; a gap becomes a line that says so.
func (s *Stream) WriteTo(ctx context.Context, w io.Writer) error { return errLater }
