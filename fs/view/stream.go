package view

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

// sources are where one stream of an experiment is: the rows of its writers, in order of appearance, and of the last one the file
// that it is writing, if that is on this machine. Only the last one's end is the end of the stream, so only that may be unpublished.
type sources struct {
	before []repository.StreamRow // of all writers but the last
	last   []repository.StreamRow
	writer string // the last
	live   string // its file, which holds everything from position 0, "" if it has none
}

// sources finds them. It is one directory listing where the experiment runs on this machine.
func (v *View) sources(ctx context.Context, s *snapshot, e *index.Experiment, stream repository.StreamKind) (sources, error) {
	rows, err := s.streams.get(streamKey{e.Ord, stream}, func() ([]repository.StreamRow, int64, error) {
		rows, err := v.index.Streams(ctx, e.ID, stream)
		return rows, 1, err
	})
	if err != nil {
		return sources{}, err
	}
	var src sources
	live := make(map[string]string)
	if !e.Status.Final() {
		live = v.repo.Live(e.ID, stream)
	}
	order := appearance(rows, live)
	if len(order) == 0 {
		return src, nil
	}
	src.writer = order[len(order)-1]
	src.live = live[src.writer]
	for _, r := range rows {
		if r.Writer == src.writer {
			src.last = append(src.last, r)
		} else {
			src.before = append(src.before, r)
		}
	}
	return src, nil
}

// appearance returns the writers in order of their first row's store time. Who has published nothing comes last.
func appearance(rows []repository.StreamRow, live map[string]string) []string {
	first := make(map[string]int64)
	for _, r := range rows {
		if t, ok := first[r.Writer]; !ok || r.Before.UnixNano() < t {
			first[r.Writer] = r.Before.UnixNano()
		}
	}
	for w := range live {
		if _, ok := first[w]; !ok {
			first[w] = 1<<63 - 1
		}
	}
	order := make([]string, 0, len(first))
	for w := range first {
		order = append(order, w)
	}
	slices.SortFunc(order, func(a, b string) int {
		if c := compare(uint64(first[a]), uint64(first[b])); c != 0 {
			return c
		}
		return strings.Compare(a, b)
	})
	return order
}

// epoch tells streams apart in which something came to stand before the last writer's part.
func (s *sources) epoch() uint8 {
	ends := make(map[string]int64)
	for _, r := range s.before {
		ends[r.Writer] = max(ends[r.Writer], r.To)
	}
	if len(ends) == 0 {
		return 0
	}
	h := fnv.New32a()
	for _, r := range s.before {
		if ends[r.Writer] == r.To {
			fmt.Fprintln(h, r.Writer, r.To)
			ends[r.Writer] = -1
		}
	}
	return uint8(h.Sum32())
}

// end is the published end of the last writer's part.
func (s *sources) end() (to int64) {
	for _, r := range s.last {
		to = max(to, r.To)
	}
	return to
}

func (s *sources) empty() bool { return len(s.before) == 0 && len(s.last) == 0 && s.live == "" }

// all are the rows of every writer, in their order.
func (s *sources) all() []repository.StreamRow { return append(slices.Clone(s.before), s.last...) }

type streamKey struct {
	experiment int64
	kind       repository.StreamKind
}

type seriesKey struct {
	experiment int64
	kind       kind
	epoch      uint8
}

// streamNode is the node that metrics.csv or output.log of an experiment stands for now.
func (v *View) streamNode(ctx context.Context, s *snapshot, e *index.Experiment, k kind) (ID, error) {
	stream := streamOf(k)
	src, err := v.sources(ctx, s, e, stream)
	if err != nil {
		return 0, err
	}
	if src.empty() {
		return 0, errNone
	}
	if e.Status.Final() {
		return fileID(e.Ord, k, e.Version), nil
	}
	g, err := v.follow(ctx, e, k, src)
	if err != nil {
		return 0, err
	}
	width, some := g.state()
	if !some {
		return 0, errNone
	}
	return growingID(e.Ord, k, src.epoch(), width), nil
}

func streamOf(k kind) repository.StreamKind {
	if k == outputLog {
		return repository.OutputStream
	}
	return repository.MetricsStream
}

// follow returns the growing file of a stream, brought up to date.
func (v *View) follow(ctx context.Context, e *index.Experiment, k kind, src sources) (*series, error) {
	g, err := v.series.get(seriesKey{e.Ord, k, src.epoch()}, func() (*series, int64, error) {
		return &series{repo: v.repo, dir: v.cache, text: k == outputLog}, 1, nil
	})
	if err != nil {
		return nil, err
	}
	return g, g.update(ctx, src)
}

// growing returns the content of a growing node, as its columns are.
func (v *View) growing(ctx context.Context, s *snapshot, id ID) (*spill, error) {
	e, err := v.experiment(ctx, s, id.ord())
	if err != nil {
		return nil, err
	}
	src, err := v.sources(ctx, s, e, streamOf(id.kind()))
	if err != nil {
		return nil, err
	}
	if src.epoch() != id.epoch() { // as far as it went, for who has it open
		if g, ok := v.series.peek(seriesKey{e.Ord, id.kind(), id.epoch()}); ok {
			return g.table(ctx, id.columns())
		}
		return nil, ErrStale
	}
	g, err := v.follow(ctx, e, id.kind(), src)
	if err != nil {
		return nil, err
	}
	return g.table(ctx, id.columns())
}

func (v *View) growingAttr(ctx context.Context, s *snapshot, id ID) (Attr, error) {
	content, err := v.growing(ctx, s, id)
	if err != nil {
		return Attr{}, err
	}
	return Attr{Mode: fileMode, Size: content.Size(), Mtime: content.mtime.Load()}, nil
}

// points yields the points of rows: by writer in order of appearance, as appearance does.
func points(ctx context.Context, repo *repository.Repository, rows []repository.StreamRow, yield func(repository.Point)) error {
	for p, err := range repo.Stream(rows).Points(ctx) {
		if err != nil {
			return err
		}
		yield(p)
	}
	return nil
}

// livePoints yields the points of the whole lines between two offsets of a file, and returns the offset behind the last one and how
// many lines there were. A line that is no point counts and says nothing.
func livePoints(f *os.File, from, to int64, yield func(repository.Point)) (end, lines int64, err error) {
	r := bufio.NewReaderSize(io.NewSectionReader(f, from, to-from), 256<<10)
	for end = from; ; lines++ {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) { // what is left is half a line
			return end, lines, nil
		}
		if err != nil {
			return end, lines, err
		}
		if p, err := repository.ParsePoint(line); err == nil {
			yield(p)
		}
		end += int64(len(line))
	}
}

// writePoint writes a row of metrics.csv. Nothing that could change later is in it.
func (t *table) writePoint(p repository.Point, columns []string) {
	t.step(p.Step)
	t.cell(p.Commit.Short())
	t.time(p.Time)
	for _, name := range columns {
		t.value(p.Metrics, name)
	}
	t.end()
}

func pointsHeader(columns []string) []string {
	return append([]string{"step", "commit", "time"}, columns...)
}

// addColumns appends the metrics of a point that are new.
func addColumns(columns []string, known map[string]bool, metrics replicate.Values) []string {
	for _, m := range metrics {
		if !known[m.Name] {
			known[m.Name] = true
			columns = append(columns, m.Name)
		}
	}
	return columns
}

// renderMetrics writes metrics.csv of an experiment that has ended.
func (v *View) renderMetrics(ctx context.Context, e *index.Experiment, w *bufio.Writer) error {
	rows, err := v.index.Streams(ctx, e.ID, repository.MetricsStream)
	if err != nil {
		return err
	}
	known := make(map[string]bool)
	var columns []string
	err = points(ctx, v.repo, rows, func(p repository.Point) { columns = addColumns(columns, known, p.Metrics) })
	if err != nil {
		return err
	}
	t := &table{w: w}
	t.row(pointsHeader(columns)...)
	return points(ctx, v.repo, rows, func(p repository.Point) { t.writePoint(p, columns) })
}
