package repository

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"github.com/zeebo/blake3"

	"github.com/replicate/replicate"
)

// A Ref says where a frame lies and what it holds.
type Ref struct {
	Pack replicate.Hash `json:"pack"`
	Off  uint32         `json:"off"`
	Len  uint32         `json:"len"`  // stored bytes, codec byte included
	Raw  uint32         `json:"raw"`  // decoded bytes
	Hash replicate.Hash `json:"hash"` // BLAKE3 of the decoded bytes
}

// A Record is one JSON line of a repository's metadata. Exactly one of the pointers is set; none for a kind that
// this version does not know, which is kept as it is.
type Record struct {
	Line []byte         // without the line end
	Hash replicate.Hash // BLAKE3 of Line; breaks ties. Zero in a Digest that was read, which nothing is compared with

	Experiment *ExperimentRow
	Commit     *CommitRow
	Stream     *StreamRow
	Set        *Set
	Delete     *Delete
	Digest     *Digest
}

// A Row is what the records that carry data have in common.
type Row struct {
	Tree   []Ref            // frames of the tree, in order
	Packs  []replicate.Hash // every pack the record needs
	Lost   []string         // paths that should be in the tree, whose bytes were deleted before this was published
	Before time.Time        // store time: landing later makes the record late
}

// An ExperimentRow is the record that begins an experiment. Its Tree is the code tree.
type ExperimentRow struct {
	replicate.Experiment
	Row
}

// A CommitRow is the record of a commit.
type CommitRow struct {
	replicate.Commit
	Row
}

// A StreamKind names one of the two streams of an experiment.
type StreamKind string

const (
	MetricsStream StreamKind = "metrics" // points, counted
	OutputStream  StreamKind = "output"  // bytes, counted
)

// A StreamRow is one stretch of a stream of one writer: positions [From, To).
type StreamRow struct {
	Stream     StreamKind
	Experiment replicate.ID
	Writer     string // 16 hex digits, new for each process that records
	Seq        int64
	From, To   int64
	Frame      *Ref   // where the content is,
	Inline     []byte // or the frame itself, when it is small
	Summary    map[string]replicate.Summary
	Row
}

// A Set changes facts of an experiment: per field, and per tag inside tags, the latest At wins.
type Set struct {
	Experiment replicate.ID
	At         time.Time // store time
	By         string
	Fields     map[string]json.RawMessage
}

// A Delete kills the rows of an experiment or a commit that were checked before it.
type Delete struct {
	ID         replicate.ID
	Experiment replicate.ID // of a commit; "" of an experiment, and where nobody said
	At         time.Time    // store time
	By         string
}

// Kills reports whether d kills a row of its id: one that was checked before the deletion.
func (d *Delete) Kills(r Row) bool { return r.Before.Before(d.At.Add(LandWithin)) }

const (
	// MaxLine bounds a record's line. Parameters are warned about from 1 MB; anything near this is damage or abuse.
	MaxLine = 4 << 20
	// maxRefs bounds the lists of frames and of packs of one record.
	maxRefs = 1 << 16
)

// ParseRecord reads one line of a log or index object, without its line end. The line is kept in the record, not copied. An unknown kind is
// no error: such a record has its line and hash and nothing else. Unknown keys are ignored here and kept in the line. Errors are of kind
// Corrupt and name the offset.
func ParseRecord(line []byte) (Record, error) { return parseRecord(&cursor{}, line) }

// parseRecord is ParseRecord with a cursor that serves for many lines.
func parseRecord(c *cursor, line []byte) (Record, error) {
	if len(line) > MaxLine {
		return Record{}, replicate.Errorf(replicate.Corrupt, "record of %d bytes is longer than %d", len(line), MaxLine)
	}
	if i := bytes.IndexByte(line, '\n'); i >= 0 {
		return Record{}, replicate.Errorf(replicate.Corrupt, "byte %d: line end inside a record", i)
	}
	r := Record{Line: line}
	c.data, c.pos = line, 0
	if err := r.parse(c); err != nil {
		return Record{}, &replicate.Error{Op: "read record", Kind: replicate.Corrupt, Err: err}
	}
	if r.Digest == nil {
		r.Hash = hashOf(line)
	}
	return r, nil
}

// Encode returns the record with Line and Hash made from the row that is set. The keys stand in a fixed order, so equal rows are equal lines.
func (r Record) Encode() (Record, error) {
	line, err := r.appendLine(make([]byte, 0, 512))
	if err == nil && len(line) > MaxLine {
		err = fmt.Errorf("%d bytes is longer than %d", len(line), MaxLine)
	}
	if err != nil {
		return Record{}, &replicate.Error{Op: "write record", Kind: replicate.Usage, Err: err}
	}
	r.Line, r.Hash = line, hashOf(line)
	return r, nil
}

// hashOf is the one hash of the format.
func hashOf(b []byte) replicate.Hash { return blake3.Sum256(b) }
