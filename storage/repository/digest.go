package repository

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/replicate/replicate"
)

// A Digest says what a table shows of the commits and streams that one segment has of an experiment, so that the rows themselves need not be
// read. It is made of the rows of its own segment and knows of no deletion; whoever reads it sees to those.
type Digest struct {
	Experiment replicate.ID
	Commits    int64    // different ones
	Seq        [2]int64 // lowest and highest of the commits
	Before     [2]int64 // of all rows, in nanoseconds since 1970
	Latest     *replicate.Commit
	Best       *replicate.Commit // by the metric of the experiment's row in the same segment; nil without one
	Metrics    Spans             // of the newest rows of the commits
	Streams    Spans             // of the rows of the metrics stream
}

// digestsOf returns the digests of records, encoded.
func digestsOf(records []Record) ([]Record, error) {
	of := map[replicate.ID]*digester{}
	for i := range records {
		r := &records[i]
		experiment, _ := r.ids()
		if r.row() == nil {
			continue
		}
		d := of[experiment]
		if d == nil {
			d = &digester{}
			of[experiment] = d
		}
		d.add(r)
	}
	digests := make([]Record, 0, len(of))
	for experiment, d := range of {
		if !d.any {
			continue
		}
		d.digest.Experiment = experiment
		r, err := Record{Digest: d.finish()}.Encode()
		if err != nil {
			return nil, err
		}
		digests = append(digests, r)
	}
	return digests, nil
}

// A digester makes one digest.
type digester struct {
	digest  Digest
	any     bool // there is a commit or a row of a stream
	row     *Record
	commits map[replicate.ID]*Record // the newest row of each
}

func (d *digester) add(r *Record) {
	if r.Experiment != nil {
		if newer(d.row, r) {
			d.row = r
		}
		return
	}
	before := nanosecondsOf(r.row().Before)
	if !d.any {
		d.any = true
		d.digest = Digest{Before: [2]int64{before, before}, Seq: [2]int64{math.MaxInt64, -1}, Metrics: Spans{}, Streams: Spans{}}
	}
	d.digest.Before = [2]int64{min(d.digest.Before[0], before), max(d.digest.Before[1], before)}
	switch {
	case r.Commit != nil:
		if d.commits == nil {
			d.commits = map[replicate.ID]*Record{}
		}
		if newer(d.commits[r.Commit.ID], r) {
			d.commits[r.Commit.ID] = r
		}
		d.digest.Seq = [2]int64{min(d.digest.Seq[0], r.Commit.Seq), max(d.digest.Seq[1], r.Commit.Seq)}
	case r.Stream.Stream == MetricsStream:
		d.digest.Streams.AddSummaries(r.Stream.Writer, r.Stream.Summary)
	}
}

// newer reports whether the row r is believed rather than old, which may be nil.
func newer(old, r *Record) bool {
	if old == nil {
		return true
	}
	return cmp.Or(old.row().Before.Compare(r.row().Before), slices.Compare(old.Hash[:], r.Hash[:])) < 0
}

func (d *digester) finish() *Digest {
	g := &d.digest
	g.Commits = int64(len(d.commits))
	if g.Commits == 0 {
		g.Seq = [2]int64{}
	}
	for _, r := range d.commits {
		c := &r.Commit.Commit
		g.Metrics.AddCommit(c)
		if g.Latest == nil || laterCommit(g.Latest, c) {
			g.Latest = c
		}
	}
	if d.row == nil || d.row.Experiment.Metric == nil {
		return g
	}
	metric := d.row.Experiment.Metric
	span := g.Metrics[metric.Name]
	if span == nil {
		return g
	}
	best := span.Min
	if metric.Goal == replicate.Maximize {
		best = span.Max
	}
	if best != nil {
		g.Best = &d.commits[replicate.ID(best.By)].Commit.Commit
	}
	return g
}

func laterCommit(a, b *replicate.Commit) bool {
	return cmp.Or(cmp.Compare(a.Seq, b.Seq), a.Time.Compare(b.Time), strings.Compare(string(a.ID), string(b.ID))) < 0
}

func (d *Digest) append(e *encoder) {
	e.mustID("digest", d.Experiment)
	e.count("commits", d.Commits)
	e.pair("seqs", d.Seq)
	e.pair("before", d.Before)
	e.commit("latest", d.Latest)
	if d.Best != nil && (d.Latest == nil || d.Best.ID != d.Latest.ID) {
		e.commit("best", d.Best)
	}
	e.key("best_is_latest")
	e.buf = strconv.AppendBool(e.buf, d.Best != nil && d.Latest != nil && d.Best.ID == d.Latest.ID)
	e.spans("metrics", "of", d.Metrics)
	e.spans("streams", "writers", d.Streams)
}

func (e *encoder) pair(key string, pair [2]int64) {
	e.key(key)
	e.list(2, func(i int) { e.int(pair[i]) })
}

// commit writes a commit without what only its own row needs.
func (e *encoder) commit(key string, c *replicate.Commit) {
	if c == nil {
		return
	}
	e.key(key)
	e.buf = append(e.buf, '{')
	(&CommitRow{Commit: *c}).append(e)
	e.buf = append(e.buf, '}')
}

// markOrigin is what marks of one commit, or of one writer, have in common.
type markOrigin struct {
	by          string
	step, n, at int64
}

// spans writes where marks come from as a list, then for each metric first, last, min and max as [value, place in the list]; a mark of a stream
// has a step and a position of its own, so those are in the list as often as they differ.
func (e *encoder) spans(key, of string, all Spans) {
	if len(all) == 0 {
		return
	}
	names := slices.Sorted(maps.Keys(all))
	places := map[markOrigin]int{}
	var origins []markOrigin
	place := func(m *Mark) int {
		o := markOrigin{m.By, int64(m.Step), m.N, m.At}
		at, known := places[o]
		if !known {
			at = len(origins)
			places[o], origins = at, append(origins, o)
		}
		return at
	}
	for _, name := range names {
		for _, m := range all[name].Marks() {
			if m != nil {
				place(m)
			}
		}
	}
	e.key(of)
	e.list(len(origins), func(i int) {
		o := origins[i]
		e.buf = append(e.buf, '[')
		e.buf = replicate.AppendJSONString(e.buf, o.by)
		for _, n := range []int64{o.n, o.at} {
			e.buf = append(e.buf, ',')
			e.int(n)
		}
		e.buf = append(e.buf, ',')
		e.buf = append(appendStep(e.buf, replicate.Step(o.step)), ']')
	})
	e.key(key)
	e.buf = append(e.buf, '{')
	for i, name := range names {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.buf = append(replicate.AppendJSONString(e.buf, name), ':')
		marks := all[name].Marks()
		e.list(len(marks), func(i int) {
			if marks[i] == nil {
				e.buf = append(e.buf, "null"...)
				return
			}
			e.buf = append(marks[i].Value.AppendJSON(append(e.buf, '[')), ',')
			e.int(int64(place(marks[i])))
			e.buf = append(e.buf, ']')
		})
	}
	e.buf = append(e.buf, '}')
}

// A digestReader keeps what of a digest must be put together.
type digestReader struct {
	*Digest
	origins      []Mark
	bestIsLatest bool
}

func (d *digestReader) member(c *cursor, key []byte) (err error) {
	switch string(key) {
	case "digest":
		d.Experiment, err = c.id()
	case "commits":
		d.Commits, err = c.count(math.MaxInt64)
	case "seqs":
		d.Seq, err = c.pair()
	case "before":
		d.Before, err = c.pair()
	case "latest":
		d.Latest, err = c.commit()
	case "best":
		d.Best, err = c.commit()
	case "best_is_latest":
		d.bestIsLatest, err = c.bool()
	case "of", "writers":
		d.origins, err = c.origins()
	case "metrics":
		d.Metrics, err = c.spans(d.origins)
	case "streams":
		d.Streams, err = c.spans(d.origins)
	default:
		err = c.skip(0)
	}
	return err
}

func (d *digestReader) finish() {
	if d.bestIsLatest {
		d.Best = d.Latest
	}
	for _, of := range []*replicate.Commit{d.Latest, d.Best} {
		if of != nil {
			of.Experiment = d.Experiment
		}
	}
}

// pair takes two numbers.
func (c *cursor) pair() (pair [2]int64, err error) {
	err = c.array(func(i int) (err error) {
		if i >= len(pair) {
			return c.errorf("want two numbers")
		}
		pair[i], err = c.int()
		return err
	})
	return pair, err
}

func (c *cursor) commit() (*replicate.Commit, error) {
	r := &CommitRow{Commit: replicate.Commit{Step: replicate.NoStep}}
	err := c.object(func(key []byte) error { return r.member(c, key) })
	if err == nil && r.ID == "" {
		err = c.errorf("commit without an id")
	}
	return &r.Commit, err
}

// origins takes the list of where marks come from. It is valid until the next one.
func (c *cursor) origins() ([]Mark, error) {
	all := c.room[:0]
	err := c.array(func(int) error {
		m := Mark{Step: replicate.NoStep}
		err := c.array(func(i int) (err error) {
			switch i {
			case 0:
				m.By, err = c.text()
			case 1:
				m.N, err = c.count(math.MaxInt64)
			case 2:
				m.At, err = c.int()
			case 3:
				m.Step, err = c.step()
			default:
				err = c.skip(0)
			}
			return err
		})
		all = append(all, m)
		return err
	})
	c.room = all
	return all, err
}

func (c *cursor) spans(origins []Mark) (Spans, error) {
	all := Spans{}
	err := c.object(func(key []byte) error {
		span := &struct { // one allocation: there are hundreds of thousands
			Span
			marks [4]Mark
		}{}
		all[string(key)] = &span.Span
		places := [4]**Mark{&span.First, &span.Last, &span.Min, &span.Max}
		return c.array(func(i int) (err error) {
			if i >= len(places) {
				return c.skip(0)
			}
			*places[i], err = c.mark(origins, &span.marks[i])
			return err
		})
	})
	return all, err
}

// mark takes [value, place of its origin] into m and returns it, or nil for null.
func (c *cursor) mark(origins []Mark, m *Mark) (*Mark, error) {
	if c.null() {
		return nil, nil
	}
	n := 0
	err := c.array(func(i int) (err error) {
		switch n = i + 1; i {
		case 0:
			m.Value, err = c.value()
		case 1:
			var at int64
			if at, err = c.count(int64(len(origins)) - 1); err == nil {
				o := origins[at]
				m.Step, m.N, m.At, m.By = o.Step, o.N, o.At, o.By
			}
		default:
			err = c.skip(0)
		}
		return err
	})
	if err == nil && n < 2 {
		err = c.errorf("want a value and a place")
	}
	return m, err
}
