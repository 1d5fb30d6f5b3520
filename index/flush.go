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
	if len(f.pending) == 0 { // the writer may not have begun
		return nil
	}
	all := make([]*pending, 0, len(f.byOrd))
	for _, ord := range slices.Sorted(maps.Keys(f.byOrd)) {
		p := f.byOrd[ord]
		if err := f.decide(ctx, p); err != nil {
			return err
		}
		all = append(all, p)
	}
	rows, err := f.encode(ctx, all)
	if err != nil {
		return err
	}
	var changes []scanned
	for i, p := range all {
		if !p.changes(rows[i]) {
			continue
		}
		if err := f.write(ctx, p, rows[i]); err != nil {
			return err
		}
		changes = append(changes, scanned{p.ord, p.now, rows[i].scan})
	}
	if err := f.writeScans(ctx, changes); err != nil {
		return err
	}
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

// decide finds out what of p is to be written: what follows from its rows, and how it stands.
func (f *fold) decide(ctx context.Context, p *pending) error {
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
	p.now = p.standing(isAlive)
	return err
}

// changes reports whether p is otherwise than in the tables.
func (p *pending) changes(e encoded) bool {
	return p.touched || p.sourceChanged || p.now != p.stands || p.doc == nil || !bytes.Equal(e.doc, p.doc)
}

func (f *fold) write(ctx context.Context, p *pending, e encoded) (err error) {
	f.changed = true
	f.countParts(p)
	open := (p.now == alive || p.now == silent) && !p.light.Status.Final()
	args := []any{p.now, open, f.next, nanoseconds(p.created()), nanoseconds(p.changed()), p.light.Name, len(p.parts), p.ord}
	switch { // INSERT OR REPLACE would do for all, but keeps a journal of its own for each row
	case p.doc == nil: // the next number is p.ord
		return errors.Join(f.insert(ctx, "experiment (stands, open, version, created, changed, name, parts, id)", append(args[:7], idBytes(p.id))...),
			f.insert(ctx, "doc (doc, line, facts)", e.doc, p.line, e.facts))
	case p.sourceChanged:
		err = f.exec(ctx, "UPDATE doc SET doc = ?, line = ?, facts = ? WHERE ord = ?", e.doc, p.line, e.facts, p.ord)
	default:
		err = f.exec(ctx, "UPDATE doc SET doc = ? WHERE ord = ?", e.doc, p.ord)
	}
	return errors.Join(err, f.exec(ctx, `UPDATE experiment SET stands = ?, open = ?, version = ?, created = ?, changed = ?, name = ?, parts = ?
		WHERE ord = ?`, args...))
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
	if _, beats := f.beats[p.id]; !beats && !p.light.Status.Final() && (p.doc == nil || f.vanished[p.id]) {
		f.vanished[p.id] = true
	} else {
		delete(f.vanished, p.id)
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
	if p.latest != nil && p.latest.ID == id {
		p.best = p.latest
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
