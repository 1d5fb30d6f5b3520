package index

import (
	"cmp"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// spans are the metrics of an experiment, from commits or from streams.
type spans = repository.Spans

// winners returns the first, last, min and max of what the commits and the streams say of one metric. The metrics of a commit are points of
// the stream too, so the stream knows better which of one step came last.
func winners(commits, streams *repository.Span) (won [4]*repository.Mark) {
	if streams == nil {
		return commits.Marks()
	}
	better := [4]func(c, s *repository.Mark) bool{
		func(c, s *repository.Mark) bool { return c.Step < s.Step },
		func(c, s *repository.Mark) bool { return c.Step > s.Step },
		func(c, s *repository.Mark) bool {
			return cmp.Or(c.Value.Compare(s.Value), cmp.Compare(c.Step, s.Step)) < 0
		},
		func(c, s *repository.Mark) bool {
			return cmp.Or(s.Value.Compare(c.Value), cmp.Compare(c.Step, s.Step)) < 0
		},
	}
	won = streams.Marks()
	for i, c := range commits.Marks() {
		if s := won[i]; s == nil || c != nil && better[i](c, s) {
			won[i] = c
		}
	}
	return won
}

// combine says what winners says. The commit of a point is named where it has the same step and value.
func combine(commits, streams *repository.Span) replicate.Summary {
	var points [4]*replicate.Point
	of := commits.Marks()
	for i, m := range winners(commits, streams) {
		c := of[i]
		switch {
		case m == nil:
			continue
		case m == c:
			points[i] = &replicate.Point{Value: m.Value, Step: m.Step, Commit: replicate.ID(m.By)}
			continue
		}
		points[i] = &replicate.Point{Value: m.Value, Step: m.Step, N: m.N}
		if c != nil && c.Step == m.Step && c.Value.Equal(m.Value) {
			points[i].Commit = replicate.ID(c.By)
		}
	}
	return replicate.Summary{First: points[0], Last: points[1], Min: points[2], Max: points[3]}
}
