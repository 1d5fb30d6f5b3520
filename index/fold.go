package index

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// fold is one sync's work on the tables: a transaction that begins with the first thing to write. Experiments are folded in memory
// and written by flush.
type fold struct {
	db         *sql.DB
	repository *repository.Repository // for the points of a stream, when summaries do not do
	options    *Options
	beats      map[replicate.ID]time.Duration
	beatsAgain func(context.Context) (map[replicate.ID]time.Duration, error) // nil once it was asked

	*writer       // nil before begin
	version int64 // of the index, before and then after
	next    int64 // what changes gets this version
	changed bool

	experiments, commits int64 // highest ordinals
	groups               int64 // number of the last group of scans, -1 without any
	deletions            bool  // there are some
	deletedAt            map[replicate.ID]int64
	numbers              *nameNumbers           // nil before the first use
	written              map[replicate.ID]int64 // the experiments in the tables; nil unless they were empty at first
	pending              map[replicate.ID]*pending
	byOrd                map[int64]*pending // the same
	pendingCommits       int

	knows       func(key string) bool // the objects that were read
	partial     map[string]bool       // those whose heads alone were
	segments    map[string]int64      // numbers of the segments of which something is missing, by key
	lastSegment int64
	heads       map[string]*head // that were read
	merged      map[string]bool  // the inputs of these
	wanted      map[replicate.ID]bool
	later       []replicate.ID
	partCounts  map[int64]int64
	damage      []error // of what was fetched
	still       bool    // nobody looks who is alive
	trial       replicate.Experiment
	vanished    map[replicate.ID]bool // experiments that are new and have neither heartbeat nor end: they may have ended after the records were listed
}

// What is kept in memory before it is written: some 25 MB of experiments, or 100 MB of commits. The more there is, the more a garbage
// collector has to look through again and again.
const (
	maxPending        = 5_000
	maxPendingCommits = 200_000
)

// pending is an experiment that the fold touched.
type pending struct {
	*state
	commitsHere map[replicate.ID]*commitVersion // all there are, of an experiment that is new; else nil
	streamsHere map[version]bool                // likewise

	oldParts   []part    // as they are in the tables
	candidates []*Commit // that may be the best and are not in the tables

	line          []byte // of the experiment's record
	facts         facts
	sourceLoaded  bool
	sourceChanged bool
	rescan        bool // commits and streams must be counted again
	touched       bool // something else changed, such as a stream
	now           standing
	stands        standing // as it is in the tables
	doc           []byte   // likewise
}

// commitVersion is what the fold knows of a commit in the tables.
type commitVersion struct {
	ord     int64
	version version
}

// nameKind says what a name in scan blobs names.
type nameKind int

const (
	paramName nameKind = iota
	metricName
)

// begin starts the transaction, unless it runs.
func (f *fold) begin(ctx context.Context) (err error) {
	if f.writer != nil {
		return nil
	}
	if f.writer, err = beginWrite(ctx, f.db); err != nil {
		return err
	}
	f.deletedAt, f.pending, f.byOrd = map[replicate.ID]int64{}, map[replicate.ID]*pending{}, map[int64]*pending{}
	f.heads, f.merged, f.wanted, f.partCounts = map[string]*head{}, map[string]bool{}, map[replicate.ID]bool{}, map[int64]int64{}
	f.vanished = map[replicate.ID]bool{}
	if err := f.loadSegments(ctx); err != nil {
		return err
	}
	err = f.get(ctx, `SELECT version, (SELECT ifnull(max(ord), 0) FROM experiment), (SELECT ifnull(max(ord), 0) FROM commits),
		(SELECT ifnull(max(number), -1) FROM scans), EXISTS (SELECT 1 FROM deletion) FROM meta`).
		Scan(&f.version, &f.experiments, &f.commits, &f.groups, &f.deletions)
	f.next = f.version + 1
	if f.experiments == 0 {
		f.written = map[replicate.ID]int64{}
	}
	return err
}

// commit ends the transaction and remembers the objects that were read.
func (f *fold) commit(ctx context.Context, read []objectName) error {
	if f.writer == nil {
		return f.db.QueryRowContext(ctx, "SELECT version FROM meta").Scan(&f.version)
	}
	if len(read) > 0 {
		if err := f.remember(ctx, read); err != nil {
			return err
		}
	}
	if f.changed {
		f.version = f.next
		if err := f.exec(ctx, "UPDATE meta SET version = ?", f.version); err != nil {
			return err
		}
	}
	if err := errors.Join(f.writeSegments(ctx), f.checkOrds(ctx)); err != nil {
		return err
	}
	err := f.writer.commit(ctx)
	f.writer = nil
	return err
}

// checkOrds makes sure that the rows have the ordinals that were given to them, which SQLite has counted for itself.
func (f *fold) checkOrds(ctx context.Context) error {
	var experiments, docs, commits int64
	err := f.get(ctx, "SELECT ifnull((SELECT max(ord) FROM experiment), 0), ifnull((SELECT max(ord) FROM doc), 0), ifnull((SELECT max(ord) FROM commits), 0)").
		Scan(&experiments, &docs, &commits)
	if err == nil && (experiments != f.experiments || docs != f.experiments || commits != f.commits) {
		err = errBlob
	}
	return err
}

// maxSeenRows bounds the rows of the table seen; more are joined into one.
const maxSeenRows = 256

func (f *fold) remember(ctx context.Context, read []objectName) error {
	keys := make([]byte, 0, len(read)*len(objectName{}))
	for _, name := range read {
		keys = append(keys, name[:]...)
	}
	if err := f.exec(ctx, "INSERT INTO seen (keys) VALUES (?)", keys); err != nil {
		return err
	}
	var rows int
	if err := f.get(ctx, "SELECT count(*) FROM seen").Scan(&rows); err != nil || rows <= maxSeenRows {
		return err
	}
	return f.joinSeen(ctx)
}

// joinSeen puts all keys into one row, which is newer than all others so that every process loads it.
func (f *fold) joinSeen(ctx context.Context) error {
	rows, err := f.query(ctx, "SELECT id, keys FROM seen ORDER BY id")
	if err != nil {
		return err
	}
	defer rows.Close()
	var last int64
	var all []byte
	for rows.Next() {
		var keys []byte
		if err := rows.Scan(&last, &keys); err != nil {
			return err
		}
		all = append(all, keys...)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return err
	}
	if err := f.exec(ctx, "DELETE FROM seen"); err != nil {
		return err
	}
	return f.exec(ctx, "INSERT INTO seen (id, keys) VALUES (?, ?)", last+1, all)
}

// rollback undoes what was not committed. It may be called at any time.
func (f *fold) rollback(ctx context.Context) {
	if f.writer != nil {
		f.writer.rollback(ctx)
		f.writer = nil
	}
}

// batch applies the records of an object and returns what is damaged in it.
func (f *fold) batch(ctx context.Context, b repository.Batch) (damage []error, err error) {
	if b.Err != nil {
		damage = append(damage, b.Err)
	}
	if err := f.begin(ctx); err != nil {
		return damage, err
	}
	var h *head
	if b.Body != nil {
		if h, err = f.open(ctx, b.Body); err != nil {
			return damage, err
		}
	}
	for i := range b.Records {
		if d := b.Records[i].Digest; d != nil {
			if h != nil {
				err = f.digest(ctx, h, d)
			}
			if err != nil {
				return damage, err
			}
			continue
		}
		bad, err := f.record(ctx, &b.Records[i])
		if err != nil {
			return damage, err
		}
		if bad != nil {
			damage = append(damage, &replicate.Error{Op: "read records", Path: b.Key, Kind: replicate.Corrupt, Err: bad})
		}
	}
	if len(f.pending) > maxPending || f.pendingCommits > maxPendingCommits {
		err = f.flush(ctx)
	}
	return damage, err
}

// record applies one record; an unknown kind changes nothing. bad says what of it cannot be understood.
func (f *fold) record(ctx context.Context, r *repository.Record) (bad, err error) {
	switch {
	case r.Experiment != nil:
		return nil, f.experiment(ctx, r)
	case r.Commit != nil:
		return nil, f.addCommit(ctx, r)
	case r.Stream != nil:
		return nil, f.stream(ctx, r)
	case r.Set != nil:
		return f.set(ctx, r)
	case r.Delete != nil:
		return nil, f.delete(ctx, r.Delete)
	}
	return nil, nil
}

// loadSegments reads of which segments something is missing.
func (f *fold) loadSegments(ctx context.Context) error {
	rows, err := f.query(ctx, "SELECT number, key FROM segment")
	if err != nil {
		return err
	}
	defer rows.Close()
	f.segments = map[string]int64{}
	for rows.Next() {
		var number int64
		var key string
		if err := rows.Scan(&number, &key); err != nil {
			return err
		}
		f.segments[key] = number
		f.lastSegment = max(f.lastSegment, number)
	}
	return rows.Err()
}
