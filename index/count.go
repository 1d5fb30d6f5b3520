package index

import (
	"context"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// count makes what p says of its commits and streams again from their rows: some were killed, revived or replaced.
func (f *fold) count(ctx context.Context, p *pending) error {
	p.forgetCommits()
	killed, flips, err := f.countCommits(ctx, p)
	if err != nil {
		return err
	}
	p.hasKilled = len(killed.ids) > 0
	for ord, dead := range flips {
		if err := f.exec(ctx, "UPDATE commits SET dead = ?, version = ? WHERE ord = ?", dead, f.next, ord); err != nil {
			return err
		}
	}
	return f.countStream(ctx, p, killed)
}

// countCommits returns the dead commits, and those that are no longer what the table says: dead or alive.
func (f *fold) countCommits(ctx context.Context, p *pending) (killed killedCommits, flips map[int64]bool, err error) {
	killed, flips = killedCommits{ids: map[replicate.ID]bool{}, values: map[metricValue]bool{}}, map[int64]bool{}
	if err := f.addDeleted(ctx, p, &killed); err != nil {
		return killed, nil, err
	}
	rows, err := f.query(ctx, `SELECT ord, line, dead, commits.at, hash, ifnull(deletion.at, 0) FROM commits LEFT JOIN deletion USING (id)
		WHERE commits.experiment = ?`, p.ord)
	if err != nil {
		return killed, nil, err
	}
	defer rows.Close()
	var living []*Commit
	for rows.Next() {
		var dead bool
		var v version
		var hash, deletedAt int64
		c, err := scanCommit(p.id, with{rows, []any{&dead, &v.at, &hash, &deletedAt}})
		if err != nil {
			return killed, nil, err
		}
		isDead := v.killed(max(deletedAt, p.deletedAt))
		if isDead != dead {
			flips[c.Ord] = isDead
		}
		if delete(killed.unknown, c.ID); isDead {
			killed.add(&c.Commit)
		} else {
			delete(killed.ids, c.ID)
			living = append(living, c)
		}
	}
	for _, c := range living {
		p.addCommit(c, f.options)
		killed.spare(&c.Commit)
	}
	return killed, flips, rows.Err()
}

// addDeleted notes which commits of p were deleted by themselves. The rows of some may be gone for good.
func (f *fold) addDeleted(ctx context.Context, p *pending, killed *killedCommits) error {
	rows, err := f.query(ctx, "SELECT id FROM deletion WHERE experiment = ?", p.ord)
	if err != nil {
		return err
	}
	defer rows.Close()
	killed.unknown = map[replicate.ID]bool{}
	for rows.Next() {
		var id []byte
		if err := rows.Scan(&id); err != nil {
			return err
		}
		killed.ids[idOf(id)], killed.unknown[idOf(id)] = true, true
	}
	return rows.Err()
}

// with scans further columns behind those that its caller asks for.
type with struct {
	row  scanner
	more []any
}

func (w with) Scan(dest ...any) error { return w.row.Scan(append(dest, w.more...)...) }

// killedCommits are the dead commits of an experiment. Their metrics are points of its stream too, which stays as it is; what is
// said of the metrics must not be theirs. A merge drops the row of a commit that has been dead for long: what it measured is not known
// then, so that all points must be looked at.
type killedCommits struct {
	ids     map[replicate.ID]bool
	unknown map[replicate.ID]bool // those without a row
	values  map[metricValue]bool  // of the metrics of the others, as far as no living commit has the same
}

// metricValue is one value of a metric.
type metricValue struct {
	metric string
	step   replicate.Step
	value  string // as JSON
}

func (k *killedCommits) add(c *replicate.Commit) {
	k.ids[c.ID] = true
	for _, m := range c.Metrics {
		k.values[metricValueOf(m.Name, c.Step, m.Value)] = true
	}
}

// spare takes out what a living commit has.
func (k *killedCommits) spare(c *replicate.Commit) {
	if len(k.values) == 0 {
		return
	}
	for _, m := range c.Metrics {
		delete(k.values, metricValueOf(m.Name, c.Step, m.Value))
	}
}

func metricValueOf(metric string, step replicate.Step, v replicate.Value) metricValue {
	return metricValue{metric, step, string(v.AppendJSON(nil))}
}

// without returns summaries without the values of dead commits, and whether there were some.
func (k *killedCommits) without(all map[string]replicate.Summary) (map[string]replicate.Summary, bool) {
	if len(k.values)+len(k.unknown) == 0 {
		return all, false
	}
	found := len(k.unknown) > 0
	left := map[string]replicate.Summary{}
	for metric, s := range all {
		for _, p := range []**replicate.Point{&s.First, &s.Last, &s.Min, &s.Max} {
			if *p != nil && k.values[metricValueOf(metric, (*p).Step, (*p).Value)] {
				*p, found = nil, true
			}
		}
		left[metric] = s
	}
	return left, found
}

func (f *fold) countStream(ctx context.Context, p *pending, killed killedCommits) error {
	living, err := f.livingStream(ctx, p)
	if err != nil {
		return err
	}
	p.byStream = spans{}
	for _, row := range living {
		summary, hadSome := killed.without(row.Summary)
		if hadSome && f.addPoints(ctx, p.byStream, row, killed) {
			continue
		}
		p.byStream.AddSummaries(row.Writer, summary)
	}
	return ctx.Err()
}

// addPoints takes in the points of a row one by one, but for those of dead commits: its summary does not say what comes after their
// values. It reports whether all could be read.
func (f *fold) addPoints(ctx context.Context, to spans, row repository.StreamRow, killed killedCommits) bool {
	points := spans{}
	n := row.From
	for point, err := range f.repository.Stream([]repository.StreamRow{row}).Points(ctx) {
		if err != nil {
			return false
		}
		if !killed.ids[point.Commit] {
			points.AddPoint(row.Writer, n, &point)
		}
		n++
	}
	if n != row.To {
		return false
	}
	to.Join(points)
	return true
}

// livingStream returns the living rows of the metrics of an experiment.
func (f *fold) livingStream(ctx context.Context, p *pending) (living []repository.StreamRow, err error) {
	rows, err := f.query(ctx, "SELECT at, line FROM stream WHERE experiment = ? AND kind = ?", p.ord, string(repository.MetricsStream))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var v version
		var line []byte
		if err := rows.Scan(&v.at, &line); err != nil {
			return nil, err
		}
		r, err := repository.ParseRecord(line)
		if err != nil || r.Stream == nil {
			return nil, errBlob
		}
		if !v.killed(p.deletedAt) {
			living = append(living, *r.Stream)
		}
	}
	return living, rows.Err()
}
