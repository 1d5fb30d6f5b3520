package repository

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// streamRows returns the rows of an experiment's stream.
func (l *lab) streamRows(id replicate.ID, kind StreamKind) (rows []StreamRow) {
	l.t.Helper()
	for _, r := range l.records() {
		if r.Stream != nil && r.Stream.Experiment == id && r.Stream.Stream == kind {
			rows = append(rows, *r.Stream)
		}
	}
	return rows
}

func (l *lab) steps(id replicate.ID) (steps []replicate.Step) {
	l.t.Helper()
	for p, err := range l.repo.Stream(l.streamRows(id, MetricsStream)).Points(context.Background()) {
		must(l.t, err)
		steps = append(steps, p.Step)
	}
	return steps
}

func (l *lab) output(id replicate.ID) string {
	l.t.Helper()
	var b bytes.Buffer
	must(l.t, l.repo.Stream(l.streamRows(id, OutputStream)).WriteTo(context.Background(), &b))
	return b.String()
}

func loss(v float64) replicate.Values {
	return replicate.Values{{Name: "loss", Value: replicate.Float(v)}}
}

func TestSmallFlushesStandInTheRecord(t *testing.T) {
	l := newLab(t, memStore(t))
	w, _ := l.begin(WriterOptions{Paths: []string{}})
	id := w.own.meta.Experiment
	must(t, w.Log(Point{Step: 0, Time: time.UnixMilli(1), Metrics: loss(3)}, Point{Step: 1, Metrics: loss(1)}))
	must(t, w.Flush(t.Context()))
	must(t, w.Log(Point{Step: 2, Metrics: loss(2)}))
	must(t, w.Flush(t.Context()))
	must(t, w.Flush(t.Context()))
	rows := l.streamRows(id, MetricsStream)
	slices.SortFunc(rows, func(a, b StreamRow) int { return int(a.From - b.From) })
	if len(rows) != 2 || rows[0].Inline == nil || rows[1].From != 2 || rows[1].To != 3 || rows[1].Seq != 1 || rows[0].Writer != w.own.meta.Writer {
		t.Fatalf("%+v", rows)
	}
	if s := rows[0].Summary["loss"]; s.Min.Step != 1 || s.Max.Step != 0 || s.First.N != 0 || s.Last.N != 1 {
		t.Errorf("%+v", s)
	}
	if got := l.steps(id); !slices.Equal(got, []replicate.Step{0, 1, 2}) {
		t.Errorf("%v", got)
	}
}

// TestLongStreamsAreSealed publishes hundreds of pieces and large ones.
func TestLongStreamsAreSealed(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, store)
			w, _ := l.begin(WriterOptions{Paths: []string{}})
			id := w.own.meta.Experiment
			var want []replicate.Step
			var output strings.Builder
			for i := range replicate.Step(sealAfter + 40) {
				must(t, w.Log(Point{Step: i, Metrics: loss(float64(i))}))
				want = append(want, i)
				if i%100 == 5 {
					text := string(randomBytes(uint64(i), 5<<20))
					output.WriteString(text)
					must(t, w.Output([]byte(text)))
				}
				must(t, w.Flush(t.Context()))
			}
			must(t, w.End(t.Context(), "", nil))
			rows := l.streamRows(id, MetricsStream)
			widest := slices.MaxFunc(rows, func(a, b StreamRow) int { return int(a.To - a.From - b.To + b.From) })
			if widest.To-widest.From < sealAfter {
				t.Errorf("the widest of %d rows has %d points", len(rows), widest.To-widest.From)
			}
			if got := l.steps(id); !slices.Equal(got, want) {
				t.Errorf("%d points: %v", len(got), got)
			}
			if got := l.output(id); got != output.String() {
				t.Errorf("%d bytes of output instead of %d", len(got), output.Len())
			}
			for i, r := range rows {
				for _, s := range rows[:i] {
					if r.Seq == s.Seq {
						t.Errorf("two rows have number %d", r.Seq)
					}
				}
			}
		})
	}
}

// TestManyLoggers logs, flushes, commits and prints from several goroutines.
func TestManyLoggers(t *testing.T) {
	l := newLab(t, diskStore(t))
	writeFiles(t, l.root, "a", "1")
	w, _ := l.begin(WriterOptions{})
	id := w.own.meta.Experiment
	const loggers, points = 4, 200
	var wg sync.WaitGroup
	for g := range replicate.Step(loggers) {
		wg.Go(func() {
			for i := range replicate.Step(points) {
				if err := w.Log(Point{Step: g*points + i, Metrics: loss(1)}); err != nil {
					t.Error(err)
				}
				if err := w.Output([]byte("x")); err != nil {
					t.Error(err)
				}
				if i%50 == g {
					if err := w.Flush(t.Context()); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	for range 3 {
		l.commit(w, CommitRequest{Step: -1, Metrics: loss(0)})
		must(t, w.Set(t.Context(), nil))
		must(t, w.Beat(t.Context()))
	}
	wg.Wait()
	must(t, w.End(t.Context(), replicate.Finished, nil))
	got := l.steps(id)
	slices.Sort(got)
	if len(got) != loggers*points+3 || got[3] != 0 || got[len(got)-1] != loggers*points-1 || len(l.output(id)) != loggers*points {
		t.Errorf("%d points, %d bytes", len(got), len(l.output(id)))
	}
	if b, err := os.ReadFile(l.root + "/a"); err != nil || string(b) != "1" {
		t.Error("recording changed the project")
	}
}

// TestEnormousPoint logs more than a piece in one line, and more than can be.
func TestEnormousPoint(t *testing.T) {
	l := newLab(t, memStore(t))
	w, _ := l.begin(WriterOptions{Paths: []string{}})
	text := func(n int) replicate.Values {
		return replicate.Values{{Name: "text", Value: replicate.Text(strings.Repeat("x", n))}}
	}
	must(t, w.Log(Point{Step: 1}, Point{Step: 2, Metrics: text(5 << 20)}, Point{Step: 3}))
	if err := w.Log(Point{Step: 4, Metrics: text(9 << 20)}); replicate.KindOf(err) != replicate.Usage {
		t.Error(err)
	}
	// The summary does not fit into a record: the point is kept all the same.
	err := w.End(t.Context(), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := l.steps(w.own.meta.Experiment); fmt.Sprint(got) != "[1 2 3]" {
		t.Errorf("%v", got)
	}
}

func BenchmarkLog(b *testing.B) {
	l := newLab(b, diskStoreB(b))
	w, _ := l.begin(WriterOptions{Paths: []string{}})
	metrics := replicate.Values{{Name: "train/loss", Value: replicate.Float(0.31)}, {Name: "train/acc", Value: replicate.Float(0.9)},
		{Name: "lr", Value: replicate.Float(1e-4)}, {Name: "epoch", Value: replicate.Int(3)}}
	n := 0
	for b.Loop() {
		if err := w.Log(Point{Step: replicate.Step(n), Time: time.Now(), Metrics: metrics}); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "points/s")
}
