package index

import (
	"context"
	"database/sql"
	"encoding/hex"
	"maps"
	"slices"
	"time"

	"github.com/replicate/replicate"
)

// Sync brings the index up to date by difference. Warnings name records that could not be read, every time as long as they are damaged; the
// rest is there. An error may leave a part of what is new in the index: the next Sync goes on from there.
func (x *Index) Sync(ctx context.Context) (warnings []error, err error) {
	x.syncing.Lock()
	defer x.syncing.Unlock()
	sync := func(db *sql.DB) (err error) {
		warnings, err = x.sync(ctx, db)
		return err
	}
	err = x.use(ctx, sync)
	if err == nil {
		var behind bool
		if behind, err = x.publish(ctx); behind {
			err = x.use(ctx, sync)
		}
	}
	if isUnwritable(err) && x.InMemory() == nil {
		if err = x.leaveFile(ctx, err); err == nil {
			err = x.use(ctx, sync)
		}
	}
	return warnings, wrap("sync index", err)
}

// sync reads heartbeats before records: an experiment that ends in between is seen to have ended, as the heartbeat goes away after the
// end was recorded.
func (x *Index) sync(ctx context.Context, db *sql.DB) (warnings []error, err error) {
	beats, err := x.repository.Heartbeats(ctx)
	if err != nil {
		return nil, err
	}
	if err := x.seen.load(ctx, db); err != nil {
		return nil, err
	}
	f := &fold{db: db, repository: x.repository, options: &x.options, beats: beats, beatsAgain: x.repository.Heartbeats}
	defer f.rollback(ctx)
	var fetched error
	var read []objectName
	damaged := map[string]bool{}
	for batch, err := range x.repository.Sync(ctx, x.seen.knows) {
		if err != nil {
			fetched = err
			break
		}
		damage, err := f.batch(ctx, batch)
		if err != nil {
			return warnings, err
		}
		warnings = append(warnings, damage...)
		damaged[batch.Key] = damaged[batch.Key] || len(damage) > 0
		if batch.Settled && !damaged[batch.Key] { // what is damaged is read again, until it is whole or gone
			for _, key := range append(batch.Inputs, batch.Key) {
				read = appendName(read, key)
			}
		}
	}
	if err := f.listen(ctx); err != nil {
		return warnings, err
	}
	if err := f.commit(ctx, read); err != nil {
		return warnings, err
	}
	x.version.Store(f.version)
	return warnings, fetched
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

func appendName(names []objectName, key string) []objectName {
	if name, ok := nameOf(key); ok {
		return append(names, name)
	}
	return names
}

func (s *seen) knows(key string) bool {
	name, ok := nameOf(key)
	return ok && s.keys[name]
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
