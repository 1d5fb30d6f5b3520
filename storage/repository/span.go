package repository

import (
	"cmp"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// A Mark is one value of a metric and what puts it in order among the others: commits by (step, seq, time, id), points of streams
// by (step, position, writer).
type Mark struct {
	Value replicate.Value
	Step  replicate.Step
	N     int64  // seq, or position
	At    int64  // time of a commit, in nanoseconds since 1970; else 0
	By    string // id of a commit, or writer
}

func (m *Mark) precedes(o *Mark) bool {
	return cmp.Or(cmp.Compare(m.Step, o.Step), cmp.Compare(m.N, o.N), cmp.Compare(m.At, o.At), strings.Compare(m.By, o.By)) < 0
}

// A Span is what is kept of one metric. Adding is idempotent and may be done in any order.
type Span struct{ First, Last, Min, Max *Mark } // each may be nil

// add takes m in, which must not change any more.
func (s *Span) add(m *Mark) {
	s.bound(m)
	if s.First == nil || m.precedes(s.First) {
		s.First = m
	}
	if s.Last == nil || s.Last.precedes(m) {
		s.Last = m
	}
}

// bound takes m as minimum or maximum, if it is a number.
func (s *Span) bound(m *Mark) {
	if !m.Value.IsNumber() || m.Value.IsNaN() {
		return
	}
	if s.Min == nil || wins(m, s.Min, m.Value.Compare(s.Min.Value)) {
		s.Min = m
	}
	if s.Max == nil || wins(m, s.Max, s.Max.Value.Compare(m.Value)) {
		s.Max = m
	}
}

// wins reports whether m replaces the best so far: a better value, and of equal ones the earliest.
func wins(m, best *Mark, order int) bool { return order < 0 || order == 0 && m.precedes(best) }

// Spans are the metrics of an experiment, from one kind of source.
type Spans map[string]*Span

func (s Spans) of(metric string) *Span {
	if s[metric] == nil {
		s[metric] = &Span{}
	}
	return s[metric]
}

// AddCommit takes the metrics of a commit in.
func (s Spans) AddCommit(c *replicate.Commit) {
	for _, m := range c.Metrics {
		s.of(m.Name).add(&Mark{m.Value, c.Step, c.Seq, nanosecondsOf(c.Time), string(c.ID)})
	}
}

// AddSummaries takes the summaries of a row of the stream of a writer in.
func (s Spans) AddSummaries(writer string, summaries map[string]replicate.Summary) {
	for metric, summary := range summaries {
		to := s.of(metric)
		for _, p := range []*replicate.Point{summary.First, summary.Last} {
			if p != nil {
				to.add(&Mark{p.Value, p.Step, p.N, 0, writer})
			}
		}
		for _, p := range []*replicate.Point{summary.Min, summary.Max} {
			if p != nil {
				to.bound(&Mark{p.Value, p.Step, p.N, 0, writer})
			}
		}
	}
}

// AddPoint takes the point at position n of the stream of a writer in.
func (s Spans) AddPoint(writer string, n int64, p *Point) {
	for _, m := range p.Metrics {
		s.of(m.Name).add(&Mark{m.Value, p.Step, n, 0, writer})
	}
}

// Join takes in what other spans have. The marks are theirs too from then on.
func (s Spans) Join(other Spans) {
	for metric, from := range other {
		to := s.of(metric)
		for _, m := range from.Marks() {
			if m != nil {
				to.add(m)
			}
		}
	}
}

// Marks returns first, last, min and max; any may be nil.
func (s *Span) Marks() [4]*Mark {
	if s == nil {
		return [4]*Mark{}
	}
	return [4]*Mark{s.First, s.Last, s.Min, s.Max}
}

// nanosecondsOf a time since 1970, 0 for no time.
func nanosecondsOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}
