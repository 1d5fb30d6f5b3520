package index

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strconv"

	"github.com/replicate/replicate"
)

// List returns the experiments of a query. Deleted ones only if a filter asks for status = deleted. Notes are for people
// (a name that is both a metric and a parameter). What a table does not show is left out: Git.Patch, Python.Packages and Imported,
// Environment, Run.Installed and Failure.Traceback are there only in what Experiment, ByOrd and Resolve return.
func (x *Index) List(ctx context.Context, q Query) (experiments []*Experiment, notes []string, err error) {
	filters := make([]Filter, len(q.Filters))
	for i, text := range q.Filters {
		if filters[i], err = ParseFilter(text); err != nil {
			return nil, nil, err
		}
	}
	err = x.readWhole(ctx, "list experiments", func(t *reading) error {
		p, err := t.plan(ctx, filters)
		if err != nil {
			return err
		}
		o := parseOrder(q.Sort)
		p.filtered = len(p.subjects)
		by := p.access(o.name)
		p.ready()
		rows, err := t.scan(ctx, p, by)
		if err != nil {
			return err
		}
		if notes, err = p.judge(); err != nil {
			return err
		}
		o.sort(rows)
		if q.Last > 0 {
			rows = rows[max(0, len(rows)-q.Last):]
		}
		t.brief = q.Brief
		if experiments, err = t.experiments(ctx, rows); err != nil {
			return err
		}
		return t.complete()
	})
	return experiments, notes, err
}

// reading is a transaction that only reads.
type reading struct {
	*sql.Conn
	options *Options
	brief   bool           // Metrics are not asked for
	missing []replicate.ID // experiments whose best commit is not here
}

// read runs f on one moment of the index. A file that turns out to be damaged is made again and filled.
func (x *Index) read(ctx context.Context, op string, f func(t *reading) error) error {
	read := func(db *sql.DB) error {
		return transaction(ctx, db, "BEGIN", func(c *sql.Conn) error { return f(&reading{Conn: c, options: &x.options}) })
	}
	err := x.run(read)
	if isDamaged(err) {
		if err = x.rebuild(ctx); err == nil {
			_, err = x.Sync(ctx)
		}
		if err == nil {
			err = x.run(read)
		}
	}
	return wrap(op, err)
}

func (t *reading) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	return t.QueryContext(ctx, text, args...)
}

// complete returns needs if something is missing.
func (t *reading) complete() error {
	if len(t.missing) == 0 {
		return nil
	}
	return &needs{t.missing}
}

// plan returns the plan of filters that must all hold.
func (t *reading) plan(ctx context.Context, filters []Filter) (*plan, error) {
	known, err := readNames(ctx, t)
	if err != nil {
		return nil, err
	}
	p := newPlan(known, t.options.Metrics, t.options.Now())
	for _, f := range filters {
		if err := p.filter(f); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// firstText returns the value of the first entry of a blob, which is the id: every experiment has one, and it has the lowest number.
func firstText(blob []byte) string {
	r := blobReader{data: blob}
	r.uvarint()
	return r.value().Text()
}

// judge refuses names that none of the rows had, and returns what is to be said of the others. Where there is no experiment at all
// nothing is refused.
func (p *plan) judge() (notes []string, err error) {
	for i, a := range p.subjects {
		if note := a.note(); note != "" {
			notes = append(notes, note)
		}
		if p.rows > 0 && !a.known() {
			op := "filter"
			if i >= p.filtered {
				op = "sort"
			}
			return nil, p.known.unknown(op, a.text)
		}
	}
	return notes, nil
}

// experiments returns what was found, in the same order.
func (t *reading) experiments(ctx context.Context, rows []found) ([]*Experiment, error) {
	ords := []byte{'['}
	at := make(map[int64]int, len(rows))
	for i, row := range rows {
		at[row.ord] = i
		ords = append(strconv.AppendInt(ords, row.ord, 10), ',')
	}
	ords = append(bytes.TrimSuffix(ords, []byte{','}), ']')
	states, err := t.states(ctx, "ord IN (SELECT value FROM json_each(?))", string(ords))
	if err != nil {
		return nil, err
	}
	all := make([]*Experiment, len(rows))
	for _, s := range states {
		if all[at[s.ord]], err = t.experiment(ctx, s); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// stored is a state and what the tables say beside it.
type stored struct {
	*state
	stands  standing
	version int64
}

// states reads experiments.
func (t *reading) states(ctx context.Context, where string, args ...driver.Value) ([]stored, error) {
	var all []stored
	text := "SELECT ord, id, stands, version, doc FROM experiment JOIN doc USING (ord) WHERE " + where
	err := t.each(ctx, 5, text, func(row []driver.Value) error {
		s, err := parseState(row[0].(int64), idOf(blobOf(row[1])), blobOf(row[4]))
		if err == nil && !(t.brief && s.bestIsOwn(t.options) && (s.best != nil || len(s.parts) == 0)) {
			err = s.readSpans()
		}
		all = append(all, stored{s, standing(row[2].(int64)), row[3].(int64)})
		return err
	}, args...)
	return all, err
}

// blobOf returns the bytes of a column, nil for what is no blob.
func blobOf(v driver.Value) []byte {
	b, _ := v.([]byte)
	return b
}

// experiment returns a row of the index. Its best commit is looked up if the process that folded it knew another primary metric.
func (t *reading) experiment(ctx context.Context, s stored) (*Experiment, error) {
	e := s.state.experiment(t.options, s.stands)
	e.Version = s.version
	if t.brief {
		e.Metrics = nil
	}
	if id := s.bestID(e.Primary); id != "" && e.Best == nil {
		best, err := scanCommit(e.ID, t.QueryRowContext(ctx, "SELECT ord, line FROM commits WHERE id = ? AND experiment = ?", idBytes(id), e.Ord))
		if errors.Is(err, sql.ErrNoRows) && len(s.parts) > 0 {
			t.missing = append(t.missing, e.ID)
			return e, nil
		}
		if err != nil {
			return nil, err
		}
		e.Best = best
	}
	return e, nil
}
