package index

import (
	"cmp"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// mark is one value of a metric and what puts it in order among the others: commits by (step, seq, time, id), points of streams
// by (step, position, writer).
type mark struct {
	value replicate.Value
	step  replicate.Step
	n     int64  // seq, or position
	at    int64  // time of a commit, 0
	by    string // id of a commit, or writer
}

func (m *mark) before(o *mark) bool {
	return cmp.Or(cmp.Compare(m.step, o.step), cmp.Compare(m.n, o.n), cmp.Compare(m.at, o.at), strings.Compare(m.by, o.by)) < 0
}

// span is what is kept of one metric. Adding is idempotent and may be done in any order.
type span struct{ first, last, min, max *mark }

func (s *span) add(m mark) {
	s.bound(&m)
	if s.first == nil || m.before(s.first) {
		s.first = &m
	}
	if s.last == nil || s.last.before(&m) {
		s.last = &m
	}
}

// bound takes m as minimum or maximum, if it is a number.
func (s *span) bound(m *mark) {
	if !m.value.IsNumber() || m.value.IsNaN() {
		return
	}
	if s.min == nil || wins(m, s.min, m.value.Compare(s.min.value)) {
		s.min = m
	}
	if s.max == nil || wins(m, s.max, s.max.value.Compare(m.value)) {
		s.max = m
	}
}

// wins reports whether m replaces the best so far: a better value, and of equal ones the earliest.
func wins(m, best *mark, order int) bool { return order < 0 || order == 0 && m.before(best) }

// spans are the metrics of an experiment, from one kind of source.
type spans map[string]*span

func (s spans) of(metric string) *span {
	if s[metric] == nil {
		s[metric] = &span{}
	}
	return s[metric]
}

// addCommit takes the metrics of a commit in.
func (s spans) addCommit(c *replicate.Commit) {
	for _, m := range c.Metrics {
		s.of(m.Name).add(mark{m.Value, c.Step, c.Seq, nanoseconds(c.Time), string(c.ID)})
	}
}

// addSummaries takes the summaries of a row of the stream of a writer in.
func (s spans) addSummaries(writer string, summaries map[string]replicate.Summary) {
	for metric, summary := range summaries {
		to := s.of(metric)
		for _, p := range []*replicate.Point{summary.First, summary.Last} {
			if p != nil {
				to.add(mark{p.Value, p.Step, p.N, 0, writer})
			}
		}
		for _, p := range []*replicate.Point{summary.Min, summary.Max} {
			if p != nil {
				to.bound(&mark{p.Value, p.Step, p.N, 0, writer})
			}
		}
	}
}

// addPoint takes the point at position n of the stream of a writer in.
func (s spans) addPoint(writer string, n int64, p *repository.Point) {
	for _, m := range p.Metrics {
		s.of(m.Name).add(mark{m.Value, p.Step, n, 0, writer})
	}
}

// join takes in what other spans have.
func (s spans) join(other spans) {
	for metric, from := range other {
		to := s.of(metric)
		for _, m := range from.marks() {
			if m != nil {
				to.add(*m)
			}
		}
	}
}

// marks returns first, last, min and max; any may be nil.
func (s *span) marks() [4]*mark {
	if s == nil {
		return [4]*mark{}
	}
	return [4]*mark{s.first, s.last, s.min, s.max}
}

// winners returns the first, last, min and max of what the commits and the streams say of one metric. The metrics of a commit are points of
// the stream too, so the stream knows better which of one step came last.
func winners(commits, streams *span) (won [4]*mark) {
	if streams == nil {
		return commits.marks()
	}
	better := [4]func(c, s *mark) bool{
		func(c, s *mark) bool { return c.step < s.step },
		func(c, s *mark) bool { return c.step > s.step },
		func(c, s *mark) bool { return cmp.Or(c.value.Compare(s.value), cmp.Compare(c.step, s.step)) < 0 },
		func(c, s *mark) bool { return cmp.Or(s.value.Compare(c.value), cmp.Compare(c.step, s.step)) < 0 },
	}
	won = streams.marks()
	for i, c := range commits.marks() {
		if s := won[i]; s == nil || c != nil && better[i](c, s) {
			won[i] = c
		}
	}
	return won
}

// combine says what winners says. The commit of a point is named where it has the same step and value.
func combine(commits, streams *span) replicate.Summary {
	var points [4]*replicate.Point
	of := commits.marks()
	for i, m := range winners(commits, streams) {
		c := of[i]
		switch {
		case m == nil:
			continue
		case m == c:
			points[i] = &replicate.Point{Value: m.value, Step: m.step, Commit: replicate.ID(m.by)}
			continue
		}
		points[i] = &replicate.Point{Value: m.value, Step: m.step, N: m.n}
		if c != nil && c.step == m.step && c.value.Equal(m.value) {
			points[i].Commit = replicate.ID(c.by)
		}
	}
	return replicate.Summary{First: points[0], Last: points[1], Min: points[2], Max: points[3]}
}
