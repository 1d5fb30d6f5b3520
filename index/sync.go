package index

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/replicate/replicate"
)

// Sync brings the index up to date by difference. Warnings name records that could not be read, every time as long as they are damaged; the
// rest is there. An error may leave a part of what is new in the index: the next Sync goes on from there.
func (x *Index) Sync(ctx context.Context) (warnings []error, err error) {
	x.syncing.Lock()
	defer x.syncing.Unlock()
	update := func(db *sql.DB) (err error) {
		warnings, err = x.sync(ctx, db)
		return err
	}
	defer func() { warnings, x.damage = append(warnings, x.damage...), nil }()
	err = x.use(ctx, update)
	if err == nil {
		var behind bool
		if behind, err = x.publish(ctx); behind {
			err = x.use(ctx, update)
		}
	}
	if isUnwritable(err) && x.InMemory() == nil {
		if err = x.leaveFile(ctx, err); err == nil {
			err = x.use(ctx, update)
		}
	}
	return warnings, wrap("sync index", err)
}

// sync reads heartbeats beside the first listing. An experiment that ends in between has neither heartbeat nor end then: so where one fell
// silent, the records are looked through once more.
func (x *Index) sync(ctx context.Context, db *sql.DB) (warnings []error, err error) {
	beats := make(chan error, 1)
	f := &fold{db: db, repository: x.repository, options: &x.options, beatsAgain: x.repository.Heartbeats}
	go func() {
		var err error
		f.beats, err = x.repository.Heartbeats(ctx)
		beats <- err
	}()
	if err = x.seen.load(ctx, db); err == nil {
		f.partial, err = partialSegments(ctx, db)
	}
	defer f.rollback(ctx)
	in := &intake{Index: x, fold: f, read: map[objectName]bool{}}
	in.listened = sync.OnceValue(func() error { return <-beats })
	if err := errors.Join(err, ctx.Err()); err != nil {
		return nil, errors.Join(err, in.listened())
	}
	f.knows = func(key string) bool {
		name, ok := nameOf(key)
		return ok && (x.seen.keys[name] || in.read[name])
	}
	fetched, err := in.all(ctx)
	if err != nil {
		return in.warnings, err
	}
	if err := f.listen(ctx); err != nil {
		return in.warnings, err
	}
	if err := f.commit(ctx, slices.Collect(maps.Keys(in.read))); err != nil {
		return in.warnings, err
	}
	x.version.Store(f.version)
	return append(in.warnings, f.damage...), fetched
}

// intake is what a sync takes from the repository.
type intake struct {
	*Index
	*fold
	read     map[objectName]bool
	warnings []error
	listened func() error // waits for the heartbeats
}

// all takes everything in: again if somebody fell silent, or if a segment is gone that something is wanted of.
func (in *intake) all(ctx context.Context) (fetched, err error) {
	for looked := false; ; looked = true {
		in.warnings = nil // what is damaged is read again
		if fetched, err = in.batches(ctx); err != nil {
			return nil, err
		}
		missing, err := in.fetchWanted(ctx, looked)
		if err != nil || fetched != nil || looked {
			return fetched, err
		}
		turned, err := in.turned(ctx)
		if err != nil {
			return nil, err
		}
		if !missing && len(in.vanished) == 0 && !slices.Contains(slices.Collect(maps.Values(turned)), silent) {
			return nil, nil
		}
	}
}

// batches takes in what is new. fetched is why not all of it could be read.
func (in *intake) batches(ctx context.Context) (fetched, err error) {
	before := maps.Clone(in.read) // the repository asks from many goroutines
	known := func(key string) bool {
		name, ok := nameOf(key)
		return ok && (in.seen.keys[name] || before[name])
	}
	partial := in.partial
	for key := range in.segments {
		partial[key] = true
	}
	whole := func(key string) bool { return known(key) && !partial[key] }
	damaged := map[string]bool{}
	for batch, err := range in.fold.repository.SyncHeads(ctx, known, whole) {
		if err != nil {
			return err, in.listened()
		}
		if err := in.listened(); err != nil {
			return nil, err
		}
		damage, err := in.batch(ctx, batch)
		if err != nil {
			return nil, err
		}
		in.warnings = append(in.warnings, damage...)
		damaged[batch.Key] = damaged[batch.Key] || len(damage) > 0
		if batch.Settled && !damaged[batch.Key] { // what is damaged is read again, until it is whole or gone
			for _, key := range append(batch.Inputs, batch.Key) {
				if name, ok := nameOf(key); ok {
					in.read[name] = true
				}
			}
		}
	}
	return nil, in.listened()
}

// partialSegments returns the keys of the segments whose heads alone were read.
func partialSegments(ctx context.Context, db *sql.DB) (map[string]bool, error) {
	rows, err := db.QueryContext(ctx, "SELECT key FROM segment")
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	keys := map[string]bool{}
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return nil, err
		}
		keys[key] = true
	}
	return keys, rows.Err()
}

// seen are the objects whose records are in the index.
type seen struct {
	last int64 // id of the newest row that was loaded
	keys map[objectName]bool
}

// objectName is the 128 bits in the name of an object.
type objectName [16]byte

func nameOf(key string) (name objectName, ok bool) {
	digits := key[max(0, len(key)-2*len(name)):]
	n, err := hex.Decode(name[:], []byte(digits))
	return name, err == nil && n == len(name)
}

// load takes in what other processes and earlier syncs wrote.
func (s *seen) load(ctx context.Context, db *sql.DB) error {
	rows, err := db.QueryContext(ctx, "SELECT id, keys FROM seen WHERE id > ? ORDER BY id", s.last)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var keys []byte
		if err := rows.Scan(&s.last, &keys); err != nil {
			return err
		}
		if s.keys == nil {
			s.keys = make(map[objectName]bool, len(keys)/len(objectName{}))
		}
		for len(keys) >= len(objectName{}) {
			s.keys[objectName(keys)] = true
			keys = keys[len(objectName{}):]
		}
	}
	return rows.Err()
}

// listen notes which of the experiments without an end are alive.
func (f *fold) listen(ctx context.Context) error {
	if err := f.flush(ctx); err != nil {
		return err
	}
	turned, err := f.turned(ctx)
	if err != nil || len(turned) == 0 {
		return err
	}
	if err := f.begin(ctx); err != nil {
		return err
	}
	f.changed = true
	var changes []scanned
	for _, ord := range slices.Sorted(maps.Keys(turned)) {
		if err := f.exec(ctx, "UPDATE experiment SET stands = ?, version = ? WHERE ord = ?", turned[ord], f.next, ord); err != nil {
			return err
		}
		changes = append(changes, scanned{ord: ord, stands: turned[ord]})
	}
	return f.writeScans(ctx, changes)
}

// turned returns the experiments that came alive or fell silent.
func (f *fold) turned(ctx context.Context) (map[int64]standing, error) {
	const text = "SELECT ord, id, stands FROM experiment WHERE open = 1"
	query := f.db.QueryContext
	if f.writer != nil {
		query = f.writer.query
	}
	rows, err := query(ctx, text)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	turned := map[int64]standing{}
	for rows.Next() {
		var ord int64
		var id []byte
		var was standing
		if err := rows.Scan(&ord, &id, &was); err != nil {
			return nil, err
		}
		now := silent
		if isYoung(f.beats, idOf(id)) {
			now = alive
		}
		if was != now {
			turned[ord] = now
		}
	}
	return turned, rows.Err()
}

func isYoung(beats map[replicate.ID]time.Duration, id replicate.ID) bool {
	age, ok := beats[id]
	return ok && age < replicate.LostAfter
}
