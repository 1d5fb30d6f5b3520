package repository

import (
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/replicate/replicate"
)

// appendPoint appends a line of the metrics stream with its line end: [step,<unix ms>,{"loss":0.3},"<commit id, if a commit>"].
func appendPoint(dst []byte, p Point) []byte {
	dst = append(dst, '[')
	dst = appendStep(dst, p.Step)
	dst = append(dst, ',')
	dst = strconv.AppendInt(dst, p.Time.UnixMilli(), 10)
	dst = append(dst, ',')
	dst = p.Metrics.AppendJSON(dst)
	if p.Commit != "" {
		dst = append(dst, ',')
		dst = replicate.AppendJSONString(dst, string(p.Commit))
	}
	return append(dst, ']', '\n')
}

func appendStep(dst []byte, s replicate.Step) []byte {
	if s == replicate.NoStep {
		return append(dst, "null"...)
	}
	return strconv.AppendInt(dst, int64(s), 10)
}

// parsePoint reads a line of the metrics stream, with or without its line end. Further elements are ignored.
func parsePoint(line []byte) (Point, error) {
	var p Point
	c := &cursor{data: line}
	n := 0
	err := c.array(func(i int) (err error) {
		switch n = i + 1; i {
		case 0:
			p.Step, err = c.step()
		case 1:
			var ms int64
			ms, err = c.int()
			p.Time = time.UnixMilli(ms).UTC()
		case 2:
			p.Metrics, err = c.values()
		case 3:
			p.Commit, err = c.id()
		default:
			err = c.skip(0)
		}
		return err
	})
	if err == nil && n < 3 {
		err = c.errorf("want a step, a time and metrics")
	}
	if err == nil {
		err = c.end()
	}
	if err != nil {
		return Point{}, &replicate.Error{Op: "read point", Kind: replicate.Corrupt, Err: err}
	}
	return p, nil
}

// summarize adds the point at position n of a writer's stream to the summaries of its metrics.
func summarize(to map[string]replicate.Summary, p Point, n int64) {
	for _, m := range p.Metrics {
		s := to[m.Name]
		q := &replicate.Point{Value: m.Value, Step: p.Step, N: n}
		if s.First == nil || before(q, s.First) {
			s.First = q
		}
		if s.Last == nil || before(s.Last, q) {
			s.Last = q
		}
		if m.Value.IsNumber() && !m.Value.IsNaN() {
			if s.Min == nil || better(q, s.Min, q.Value, s.Min.Value) {
				s.Min = q
			}
			if s.Max == nil || better(q, s.Max, s.Max.Value, q.Value) {
				s.Max = q
			}
		}
		to[m.Name] = s
	}
}

// before orders the points of one writer.
func before(p, q *replicate.Point) bool { return p.Step < q.Step || p.Step == q.Step && p.N < q.N }

// better reports whether p wins over q, given that the value small would be the smaller one; ties go to the earlier point.
func better(p, q *replicate.Point, small, large replicate.Value) bool {
	if less, _ := small.Less(large); less {
		return true
	}
	return small.Equal(large) && before(p, q)
}

func appendSummaries(dst []byte, all map[string]replicate.Summary) []byte {
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(all)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = replicate.AppendJSONString(dst, name)
		dst = append(dst, ':', '{')
		s := all[name]
		empty := len(dst)
		for _, p := range []struct {
			key   string
			point *replicate.Point
		}{{`"first":[`, s.First}, {`"last":[`, s.Last}, {`"min":[`, s.Min}, {`"max":[`, s.Max}} {
			if p.point == nil {
				continue
			}
			if len(dst) > empty {
				dst = append(dst, ',')
			}
			dst = append(dst, p.key...)
			dst = appendStep(dst, p.point.Step)
			dst = append(dst, ',')
			dst = strconv.AppendInt(dst, p.point.N, 10)
			dst = append(dst, ',')
			dst = p.point.Value.AppendJSON(dst)
			dst = append(dst, ']')
		}
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// summaries takes {"loss":{"first":[step,n,value],"last":…,"min":…,"max":…}}.
func (c *cursor) summaries() (map[string]replicate.Summary, error) {
	var all map[string]replicate.Summary
	err := c.object(func(key []byte) error {
		name := string(key)
		var s replicate.Summary
		err := c.object(func(key []byte) (err error) {
			switch string(key) {
			case "first":
				s.First, err = c.point()
			case "last":
				s.Last, err = c.point()
			case "min":
				s.Min, err = c.point()
			case "max":
				s.Max, err = c.point()
			default:
				err = c.skip(0)
			}
			return err
		})
		if all == nil {
			all = map[string]replicate.Summary{}
		}
		all[name] = s
		return err
	})
	return all, err
}

func (c *cursor) point() (*replicate.Point, error) {
	p := new(replicate.Point)
	n := 0
	err := c.array(func(i int) (err error) {
		switch n = i + 1; i {
		case 0:
			p.Step, err = c.step()
		case 1:
			p.N, err = c.count(math.MaxInt64)
		case 2:
			p.Value, err = c.value()
		default:
			err = c.skip(0)
		}
		return err
	})
	if err == nil && n < 3 {
		err = c.errorf("want a step, a position and a value")
	}
	return p, err
}

func appendTags(dst []byte, tags []string) []byte {
	dst = append(dst, '{')
	for i, tag := range tags {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = replicate.AppendJSONString(dst, tag)
		dst = append(dst, ":true"...)
	}
	return append(dst, '}')
}

// tags takes {"paper":true,"old":false} and adds to and takes from the tags of an experiment. A null takes all.
func (c *cursor) tags(e *replicate.Experiment) error {
	if c.null() {
		e.Tags = nil
		return nil
	}
	return c.object(func(key []byte) error {
		tag := string(key)
		on, err := c.bool()
		i, has := slices.BinarySearch(e.Tags, tag)
		switch {
		case err != nil:
			return err
		case on && !has:
			e.Tags = slices.Insert(slices.Clip(e.Tags), i, tag)
		case !on && has:
			e.Tags = slices.Delete(slices.Clone(e.Tags), i, i+1)
		}
		return nil
	})
}
