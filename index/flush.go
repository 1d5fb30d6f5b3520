package index

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// flush writes the experiments that were touched, in the order of the tables: SQLite appends several times faster than it inserts.
func (f *fold) flush(ctx context.Context) error {
	for _, ord := range slices.Sorted(maps.Keys(f.byOrd)) {
		if err := f.write(ctx, f.byOrd[ord]); err != nil {
			return err
		}
	}
	if err := f.writeScans(ctx, f.changes); err != nil {
		return err
	}
	f.changes = nil
	if f.written != nil {
		for id, p := range f.pending {
			f.written[id] = p.ord
		}
	}
	clear(f.pending)
	clear(f.byOrd)
	f.pendingCommits = 0
	return nil
}

func (f *fold) write(ctx context.Context, p *pending) error {
	lighten(&p.light)
	if p.rescan && p.hasParts() { // the rows that are here are not all
		f.want(p)
	} else if p.rescan {
		if err := f.count(ctx, p); err != nil {
			return err
		}
	}
	if err := f.findBest(ctx, p); err != nil {
		return err
	}
	isAlive, err := f.isAlive(ctx, p)
	if err != nil {
		return err
	}
	return f.writeTables(ctx, p, p.standing(isAlive))
}

func (f *fold) writeTables(ctx context.Context, p *pending, stands standing) error {
	var failed error
	scan := appendEntries(f.scratch[:0], p.entries(func(kind nameKind, name string) uint64 {
		number, err := f.number(ctx, kind, name)
		failed = errors.Join(failed, err)
		return number
	}))
	from := len(scan)
	f.scratch = p.appendTo(scan)
	doc := f.scratch[from:]
	if failed != nil {
		return failed
	}
	if !p.touched && !p.sourceChanged && stands == p.stands && p.doc != nil && bytes.Equal(doc, p.doc) {
		return nil
	}
	f.changed = true
	f.countParts(p)
	scan, doc = bytes.Clone(scan), bytes.Clone(doc)
	f.changes = append(f.changes, scanned{p.ord, stands, scan})
	open := (stands == alive || stands == silent) && !p.light.Status.Final()
	args := []any{stands, open, f.next, nanoseconds(p.created()), nanoseconds(p.changed()), p.light.Name, len(p.parts), p.ord}
	switch { // INSERT OR REPLACE would do for all, but keeps a journal of its own for each row
	case p.doc == nil:
		return errors.Join(f.exec(ctx, `INSERT INTO experiment (stands, open, version, created, changed, name, parts, ord, id)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`, append(args, idBytes(p.id))...),
			f.exec(ctx, "INSERT INTO doc (ord, doc, line, facts) VALUES (?, ?, ?, ?)", p.ord, doc, p.line, p.facts.appendTo(nil)))
	case p.sourceChanged:
		failed = f.exec(ctx, "UPDATE doc SET doc = ?, line = ?, facts = ? WHERE ord = ?", doc, p.line, p.facts.appendTo(nil), p.ord)
	default:
		failed = f.exec(ctx, "UPDATE doc SET doc = ? WHERE ord = ?", doc, p.ord)
	}
	return errors.Join(failed, f.exec(ctx, `UPDATE experiment SET stands = ?, open = ?, version = ?, created = ?, changed = ?, name = ?, parts = ?
		WHERE ord = ?`, args...))
}

// number returns the number of a name in scan blobs, giving it one if need be.
func (f *fold) number(ctx context.Context, kind nameKind, name string) (uint64, error) {
	if f.numbers == nil {
		known, err := readNames(ctx, f)
		if err != nil {
			return 0, err
		}
		f.numbers = map[nameKey]uint64{}
		for name, number := range known.params {
			f.numbers[nameKey{paramName, name}] = number
		}
		for name, number := range known.metrics {
			f.numbers[nameKey{metricName, name}] = number
		}
	}
	k := nameKey{kind, name}
	if number, ok := f.numbers[k]; ok {
		return number, nil
	}
	number := firstNumber + uint64(len(f.numbers))
	f.numbers[k] = number
	return number, f.exec(ctx, "INSERT INTO name (number, kind, name) VALUES (?, ?, ?)", int64(number), kind, name)
}

// isAlive reports whether p has a young heartbeat. It is written before the record of a new experiment, so one that was not there
// before the records were read is there afterwards.
func (f *fold) isAlive(ctx context.Context, p *pending) (bool, error) {
	if f.still {
		return p.stands == alive, nil
	}
	if !isYoung(f.beats, p.id) && p.doc == nil && !p.light.Status.Final() && f.beatsAgain != nil {
		beats, err := f.beatsAgain(ctx)
		if err != nil {
			return false, err
		}
		f.beats, f.beatsAgain = beats, nil
	}
	return isYoung(f.beats, p.id), nil
}

// findBest makes sure that p.best is the best commit.
func (f *fold) findBest(ctx context.Context, p *pending) error {
	id := p.bestID(p.primary(f.options))
	if id == "" {
		p.best = nil
		return nil
	}
	if p.best != nil && p.best.ID == id {
		return nil
	}
	for _, c := range p.candidates {
		if p.best = nil; c.ID == id {
			p.best = c
			return nil
		}
	}
	c, err := scanCommit(p.id, f.get(ctx, "SELECT ord, line FROM commits WHERE id = ? AND experiment = ?", idBytes(id), p.ord))
	if errors.Is(err, sql.ErrNoRows) && p.hasParts() {
		c, err = nil, nil
	}
	p.best = c
	return err
}

// scanCommit reads a row of (ord, line).
func scanCommit(experiment replicate.ID, row scanner) (*Commit, error) {
	var ord int64
	var line []byte
	if err := row.Scan(&ord, &line); err != nil {
		return nil, err
	}
	r, err := repository.ParseRecord(line)
	if err != nil || r.Commit == nil {
		return nil, errBlob
	}
	return &Commit{Ord: ord, Commit: r.Commit.Commit}, nil
}

// querier reads, inside of a transaction or outside.
type querier interface {
	query(ctx context.Context, text string, args ...any) (*sql.Rows, error)
}

// readNames reads the table of names.
func readNames(ctx context.Context, q querier) (names, error) {
	n := names{params: map[string]uint64{}, metrics: map[string]uint64{}}
	rows, err := q.query(ctx, "SELECT kind, name, number FROM name")
	if err != nil {
		return n, err
	}
	defer rows.Close()
	for rows.Next() {
		var kind nameKind
		var name string
		var number int64
		if err := rows.Scan(&kind, &name, &number); err != nil {
			return n, err
		}
		if kind == metricName {
			n.metrics[name] = uint64(number)
		} else {
			n.params[name] = uint64(number)
		}
	}
	return n, rows.Err()
}
