package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/replicate/replicate"
)

const (
	// maxPiece is how much of a stream goes into one frame.
	maxPiece = 4 << 20
	// maxInlineFrame is the largest frame that stands in its record: half a minute of a usual training.
	maxInlineFrame = 4 << 10
	// maxSummarized is the longest value that is first or last in a summary.
	maxSummarized = 1 << 10
	// maxPoint bounds one line of the metrics stream, so that it fits into a frame.
	maxPoint = 8 << 20
)

// A stream is what one writer appends: a file in its folder of the spool, of which a beginning is published. What stands at a position of it
// never changes.
type stream struct {
	kind StreamKind
	file *os.File

	mu    sync.Mutex // guards size and dirty; held while a local file is appended to, as that is what puts appends in order
	size  int64
	dirty bool // appended to since the last sync

	published mark // only for who has the turn to flush
}

// A mark is how far a stream is published.
type mark struct {
	Position int64 `json:"position"` // points, or bytes
	Offset   int64 `json:"offset"`   // in the file
	Seq      int64 `json:"seq"`      // of the next row

	Edges []edge `json:"edges,omitempty"` // of the pieces that are not sealed: the first begins at the first, the last ends here
}

func (m mark) edge() edge { return edge{m.Position, m.Offset} }

// openStream opens the file of a stream.
func openStream(dir string, kind StreamKind, published mark) (*stream, error) {
	f, err := os.OpenFile(filepath.Join(dir, string(kind)), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, err
	}
	if !published.within(info.Size()) {
		published = mark{}
	}
	return &stream{kind: kind, file: f, size: info.Size(), published: published}, nil
}

// within reports whether a mark can be one of a file of some size. One that cannot is forgotten, and all is published again.
func (m mark) within(size int64) bool {
	last := edge{}
	for _, e := range m.Edges {
		if e.position < last.position || e.offset < last.offset {
			return false
		}
		last = e
	}
	return m.Seq >= 0 && m.Position >= 0 && m.Offset >= 0 && m.Offset <= size && (len(m.Edges) == 0 || last == m.edge())
}

// append writes p at the end, with one write. When that fails nothing of p stays.
func (s *stream) append(p []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.file.Write(p)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, s.file.Truncate(s.size))
		}
		return err
	}
	s.size += int64(n)
	s.dirty = true
	return nil
}

// sync makes everything that was appended before durable and returns how much that is.
func (s *stream) sync() (size int64, err error) {
	s.mu.Lock()
	size, dirty := s.size, s.dirty
	s.dirty = false
	s.mu.Unlock()
	if !dirty {
		return size, nil
	}
	if err := fdatasync(s.file); err != nil {
		s.mu.Lock()
		s.dirty = true
		s.mu.Unlock()
		return size, err
	}
	return size, nil
}

// A piece is a stretch of a stream that becomes one row.
type piece struct {
	kind    StreamKind
	raw     []byte
	frame   []byte
	from    mark
	to      mark
	summary map[string]replicate.Summary
}

// next reads the piece that follows a mark, nil if there is nothing more before size. A piece of points ends with a line.
func (s *stream) next(from mark, size int64) (*piece, error) {
	n := min(size-from.Offset, maxPiece)
	if n <= 0 {
		return nil, nil
	}
	raw := make([]byte, n)
	if _, err := s.file.ReadAt(raw, from.Offset); err != nil {
		return nil, err
	}
	if s.kind == OutputStream {
		return newPiece(s.kind, raw, from, int64(len(raw)), nil), nil
	}
	end := bytes.LastIndexByte(raw, '\n') + 1
	if end == 0 && from.Offset+n < size { // one enormous point
		raw = make([]byte, min(size-from.Offset, maxPoint+maxPiece))
		if _, err := s.file.ReadAt(raw, from.Offset); err != nil {
			return nil, err
		}
		end = bytes.IndexByte(raw, '\n') + 1
	}
	if end == 0 {
		return nil, nil
	}
	raw = raw[:end]
	points, summary := summarizeLines(raw, from.Position)
	return newPiece(s.kind, raw, from, points, summary), nil
}

func newPiece(kind StreamKind, raw []byte, from mark, positions int64, summary map[string]replicate.Summary) *piece {
	to := mark{Position: from.Position + positions, Offset: from.Offset + int64(len(raw)), Seq: from.Seq + 1}
	return &piece{kind: kind, raw: raw, frame: appendFrame(nil, raw), from: from, to: to, summary: summary}
}

// summarizeLines counts lines of points, the first at a position, and sums up their metrics. A line that is no point counts and says nothing. If
// there are more metrics than a record can hold, there is no summary.
func summarizeLines(raw []byte, position int64) (points int64, summary map[string]replicate.Summary) {
	summary = map[string]replicate.Summary{}
	for line := range bytes.Lines(raw) {
		if p, err := parsePoint(line); err == nil {
			p.Metrics = slices.DeleteFunc(p.Metrics, func(m replicate.Member) bool { return isLong(m.Value) })
			summarize(summary, p, position+points)
		}
		points++
	}
	if len(appendSummaries(nil, summary)) > MaxLine/2 {
		summary = nil
	}
	return points, summary
}

// isLong reports whether a value is too long for a summary, which stands in a record: texts and lists can be.
func isLong(v replicate.Value) bool { return !v.IsNumber() && len(v.AppendJSON(nil)) > maxSummarized }

// streams are the two streams of a writer, in its folder of the spool, with what is published of them.
type streams struct {
	spool      *Spool
	repo       *Repository // to publish to
	experiment replicate.ID
	writer     string
	dir        string

	turn chan struct{} // held by who publishes
	list [2]*stream
}

// publishedName is the file that says how far the streams of a writer are published. It may be older than the truth: then some of it is
// published again, which changes nothing.
const publishedName = "published"

func openStreams(s *Spool, experiment replicate.ID, writer, dir string) (*streams, error) {
	all := &streams{spool: s, repo: s.repository, experiment: experiment, writer: writer, dir: dir, turn: make(chan struct{}, 1)}
	marks := map[StreamKind]mark{}
	if text, err := os.ReadFile(filepath.Join(dir, publishedName)); err == nil {
		if json.Unmarshal(text, &marks) != nil {
			clear(marks)
		}
	}
	for i, kind := range []StreamKind{MetricsStream, OutputStream} {
		st, err := openStream(dir, kind, marks[kind])
		if err != nil {
			all.close()
			return nil, err
		}
		all.list[i] = st
	}
	return all, nil
}

func (s *streams) close() {
	for _, st := range s.list {
		if st != nil {
			st.file.Close()
		}
	}
}

// sync makes everything that was appended durable.
func (s *streams) sync() error {
	var errs []error
	for _, st := range s.list {
		_, err := st.sync()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// flush publishes what was appended: a row per 4 MiB, all in one log object.
func (s *streams) flush(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		more, err := s.flushSome(ctx)
		if err != nil {
			return err
		}
		if !more {
			break
		}
	}
	for _, st := range s.list {
		if len(st.published.Edges) > sealAfter {
			return s.seal(ctx)
		}
	}
	return nil
}

// finish publishes and seals everything.
func (s *streams) finish(ctx context.Context) error {
	if err := s.flush(ctx); err != nil {
		return err
	}
	s.turn <- struct{}{}
	defer func() { <-s.turn }()
	return s.seal(ctx)
}

// flushAtOnce bounds how much is published as one: a pack holds it in any case.
const flushAtOnce = MaxPack / 2

func (s *streams) flushSome(ctx context.Context) (more bool, err error) {
	var pieces []*piece
	total := 0
	for _, st := range s.list {
		size, err := st.sync()
		if err != nil {
			return false, err
		}
		for from := st.published; total < flushAtOnce; {
			p, err := st.next(from, size)
			if err != nil {
				return false, err
			}
			if p == nil {
				break
			}
			pieces = append(pieces, p)
			total += len(p.raw)
			from = p.to
		}
	}
	if len(pieces) == 0 {
		return false, nil
	}
	if err := s.publish(ctx, pieces); err != nil {
		return false, err
	}
	for _, p := range pieces {
		for _, st := range s.list {
			if st.kind == p.kind {
				st.advance(p)
			}
		}
	}
	s.remember()
	return total >= flushAtOnce, nil
}

// advance notes that a piece is published.
func (s *stream) advance(p *piece) {
	edges := s.published.Edges
	if len(edges) == 0 {
		edges = []edge{p.from.edge()}
	}
	s.published = p.to
	s.published.Edges = append(edges, p.to.edge())
}

// remember writes down how far the streams are published.
func (s *streams) remember() {
	marks := map[StreamKind]mark{}
	for _, st := range s.list {
		marks[st.kind] = st.published
	}
	text, err := json.Marshal(marks)
	if err == nil {
		err = ReplaceFile(filepath.Join(s.dir, publishedName), text)
	}
	_ = err // an older one does as well
}

// publish makes pieces visible.
func (s *streams) publish(ctx context.Context, pieces []*piece) error {
	b := newPackBuilder(filepath.Join(s.dir, buildName), s.spool.random, 0, 1)
	rows, packs, err := s.rows(b, pieces)
	if err == nil {
		err = publish(ctx, s.repo, packs, nil, func(before time.Time) ([]Record, error) {
			records := make([]Record, len(rows))
			for i := range rows {
				row := rows[i]
				row.Before = before
				records[i] = Record{Stream: &row}
			}
			return records, nil
		})
	}
	if err != nil {
		b.discard()
	}
	return err
}

// rows makes a row of each piece, and a pack of those whose frames are too large for a record.
func (s *streams) rows(b *packBuilder, pieces []*piece) ([]StreamRow, []builtPack, error) {
	rows := make([]StreamRow, len(pieces))
	var p *openPack
	for i, piece := range pieces {
		row := &rows[i]
		*row = StreamRow{
			Stream: piece.kind, Experiment: s.experiment, Writer: s.writer, Seq: piece.from.Seq,
			From: piece.from.Position, To: piece.to.Position, Summary: piece.summary,
		}
		if len(piece.frame) <= maxInlineFrame {
			row.Inline = piece.frame
			continue
		}
		if p == nil {
			var err error
			if p, err = b.tail(); err != nil {
				return nil, nil, err
			}
		}
		kind := kindMetrics
		if piece.kind == OutputStream {
			kind = kindOutput
		}
		ref, err := b.add(p, kind, frame{codec: piece.frame[0], payload: piece.frame[1:], raw: len(piece.raw), hash: hashOf(piece.raw)})
		if err != nil {
			return nil, nil, err
		}
		row.Frame = &ref
	}
	if p == nil {
		return rows, nil, nil
	}
	packs, err := b.finish(p)
	if err != nil {
		return nil, nil, err
	}
	for i := range rows {
		if rows[i].Frame != nil {
			b.resolve(rows[i].Frame)
			rows[i].Packs = []replicate.Hash{rows[i].Frame.Pack}
		}
	}
	return rows, packs, nil
}
