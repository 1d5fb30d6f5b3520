package repository

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/replicate/replicate"
)

// stretchesAhead is how many frames of a stream are read before they are needed.
const stretchesAhead = 4

// A Point is one call of log() or commit() in the metrics stream.
type Point struct {
	Step    replicate.Step
	Time    time.Time // millisecond resolution
	Metrics replicate.Values
	Commit  replicate.ID // "" if it was a log()
}

// A Stream is the readable content of one stream of one experiment: the rows of all its writers, put together.
// It is a snapshot: later rows make a new Stream.
type Stream struct {
	repository *Repository
	writers    [][]*StreamRow // the rows of each writer, by where they begin
}

// Stream puts the rows of one stream of one experiment together. Superseded and overlapping rows are sorted out here: any rows that
// cover a range give the same content, in whatever order they come, and one that cannot be read is replaced by others if they
// cover its range.
func (r *Repository) Stream(rows []StreamRow) *Stream {
	byWriter := map[string][]*StreamRow{}
	for i := range rows {
		row := &rows[i]
		if row.From < row.To {
			byWriter[row.Writer] = append(byWriter[row.Writer], row)
		}
	}
	s := &Stream{repository: r}
	for _, rows := range byWriter {
		slices.SortFunc(rows, func(a, b *StreamRow) int {
			return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(b.To, a.To), a.Before.Compare(b.Before))
		})
		s.writers = append(s.writers, rows)
	}
	slices.SortFunc(s.writers, func(a, b []*StreamRow) int {
		return cmp.Or(appeared(a).Compare(appeared(b)), strings.Compare(a[0].Writer, b[0].Writer))
	})
	return s
}

// appeared is when a writer published its first row.
func appeared(rows []*StreamRow) time.Time {
	return slices.MinFunc(rows, func(a, b *StreamRow) int { return a.Before.Compare(b.Before) }).Before
}

// Points yields the points in order: by writer in order of appearance, then by position. An error stands for points that cannot be read;
// those behind it follow.
func (s *Stream) Points(ctx context.Context) iter.Seq2[Point, error] {
	return func(yield func(Point, error) bool) {
		for st := range s.stretches(ctx) {
			if st.err != nil {
				if !yield(Point{}, streamError(MetricsStream, st.err)) {
					return
				}
				continue
			}
			for line := range bytes.Lines(st.data) {
				p, err := parsePoint(line)
				if err != nil {
					err = streamError(MetricsStream, err)
				}
				if !yield(p, err) {
					return
				}
			}
		}
	}
}

// WriteTo writes the bytes of an output stream; a gap becomes a line that says so. So do bytes that cannot be read, and then the error says why when
// everything else is written.
func (s *Stream) WriteTo(ctx context.Context, w io.Writer) error {
	var damage []error
	atStart := true // of a line
	for st := range s.stretches(ctx) {
		data := st.data
		if data == nil {
			data = st.apology(atStart)
		}
		if st.err != nil {
			if err := ctx.Err(); err != nil {
				return err
			}
			damage = append(damage, st.err)
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		atStart = data[len(data)-1] == '\n'
	}
	if len(damage) > 0 {
		return streamError(OutputStream, errors.Join(damage...))
	}
	return nil
}

func streamError(kind StreamKind, err error) error {
	return &replicate.Error{Op: "read", Path: string(kind), Kind: replicate.KindOf(err), Err: err}
}

// A stretch is a part of the content of one writer.
type stretch struct {
	row      *StreamRow // nil: nobody has it
	from, to int64
	frame    pending // of row, once it is being read
	data     []byte  // what stands there: bytes or whole lines; nil for a gap and for what cannot be read
	err      error
}

// apology is the line that stands for the bytes of a stretch.
func (st *stretch) apology(atStart bool) []byte {
	why := "were not kept"
	if st.err != nil {
		why = "cannot be read"
	}
	text := fmt.Sprintf("[replicate: %d bytes of output %s]\n", st.to-st.from, why)
	if !atStart {
		text = "\n" + text
	}
	return []byte(text)
}

// stretches yields the content of all writers, gaps included. The stretches of one writer follow each other without overlap.
func (s *Stream) stretches(ctx context.Context) iter.Seq[*stretch] {
	return func(yield func(*stretch) bool) {
		for _, rows := range s.writers {
			plan := cover(rows, 0, slices.MaxFunc(rows, func(a, b *StreamRow) int { return cmp.Compare(a.To, b.To) }).To)
			for i := range plan {
				s.begin(ctx, plan[i:min(i+stretchesAhead, len(plan))])
				for _, st := range s.read(ctx, rows, plan[i]) {
					if !yield(st) {
						return
					}
				}
			}
		}
	}
}

// cover picks rows for the positions from … to: wherever one ends, the one that reaches furthest goes on. rows are sorted by From.
func cover(rows []*StreamRow, from, to int64) []*stretch {
	var plan []*stretch
	var best *StreamRow
	for from < to {
		for len(rows) > 0 && rows[0].From <= from {
			if best == nil || rows[0].To > best.To {
				best = rows[0]
			}
			rows = rows[1:]
		}
		st := &stretch{row: best, from: from}
		switch {
		case best != nil && best.To > from:
			st.to = min(best.To, to)
		case len(rows) > 0:
			st.row, st.to = nil, min(rows[0].From, to)
		default:
			st.row, st.to = nil, to
		}
		plan = append(plan, st)
		from = st.to
	}
	return plan
}

// begin begins to read the frames of some stretches.
func (s *Stream) begin(ctx context.Context, plan []*stretch) {
	for _, st := range plan {
		if st.frame == nil && st.row != nil && st.row.Frame != nil && st.row.Frame.check() == nil {
			st.frame = s.repository.load(ctx, []Ref{*st.row.Frame})[0]
		}
	}
}

// read returns a stretch with its data. If that cannot be had from its row, it is put together from others.
func (s *Stream) read(ctx context.Context, rows []*StreamRow, st *stretch) []*stretch {
	if st.row == nil {
		return []*stretch{st}
	}
	st.data, st.err = s.content(ctx, st)
	if st.err == nil || replicate.KindOf(st.err) != replicate.Corrupt {
		return []*stretch{st}
	}
	others := slices.DeleteFunc(slices.Clone(rows), func(row *StreamRow) bool { return row == st.row })
	var found []*stretch
	for _, other := range cover(others, st.from, st.to) {
		for _, part := range s.read(ctx, others, other) {
			if part.data == nil && part.err == nil {
				part.err = st.err
			}
			found = append(found, part)
		}
	}
	return found
}

// content returns the part of a row's content that a stretch takes.
func (s *Stream) content(ctx context.Context, st *stretch) ([]byte, error) {
	data, err := s.whole(ctx, st)
	if err != nil {
		return nil, err
	}
	skip, take := st.from-st.row.From, st.to-st.from
	if st.row.Stream == OutputStream {
		if int64(len(data)) != st.row.To-st.row.From {
			return nil, replicate.Errorf(replicate.Corrupt, "%d bytes instead of %d", len(data), st.row.To-st.row.From)
		}
		return data[skip:][:take], nil
	}
	if n := int64(bytes.Count(data, []byte{'\n'})); n != st.row.To-st.row.From || data[len(data)-1] != '\n' {
		return nil, replicate.Errorf(replicate.Corrupt, "%d points instead of %d", n, st.row.To-st.row.From)
	}
	from := lineAt(data, skip)
	return data[from:][:lineAt(data[from:], take)], nil
}

// lineAt returns where line n begins.
func lineAt(data []byte, n int64) (at int) {
	for range n {
		at += bytes.IndexByte(data[at:], '\n') + 1
	}
	return at
}

// whole returns the content of a stretch's row.
func (s *Stream) whole(ctx context.Context, st *stretch) ([]byte, error) {
	ref := st.row.Frame
	if ref == nil {
		return decodeInline(st.row.Inline)
	}
	if ref.Hash.IsZero() {
		return nil, damaged(*ref, errors.New("it has no hash"))
	}
	s.begin(ctx, []*stretch{st})
	if st.frame == nil {
		return nil, damaged(*ref, ref.check())
	}
	frame, err := st.frame.wait(ctx) // never released, as parts of it are handed on
	return frame.data, err
}

// sizelessDecoder decodes frames of which nobody says how large they are, up to what any frame may hold.
var sizelessDecoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxRaw))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
})

// decodeInline decodes a frame that stands in a record. The record vouches for its bytes, but has no word for their
// number, so it is decoded twice: they are few.
func decodeInline(stored []byte) ([]byte, error) {
	ref := Ref{Len: uint32(len(stored))}
	switch {
	case len(stored) == 0:
	case stored[0] == codecRaw:
		ref.Raw = ref.Len - 1
	default:
		raw, err := sizelessDecoder().DecodeAll(stored[1:], nil)
		if err != nil {
			return nil, replicate.Errorf(replicate.Corrupt, "inline frame: %w", err)
		}
		ref.Raw = uint32(len(raw))
	}
	return decodeFrame(nil, stored, ref)
}
