package index

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// streamOf is a row of the metrics stream: points of loss, one a step, each "value" or "value commit".
func streamOf(t *testing.T, e replicate.ID, from int64, points ...string) repository.Record {
	t.Helper()
	frame := []byte{0} // stored as it is
	s := replicate.Summary{}
	for i, text := range points {
		value, commit, isCommit := strings.Cut(text, " ")
		if isCommit {
			commit = fmt.Sprintf(",%q", id(commit))
		}
		n := from + int64(i)
		frame = fmt.Appendf(frame, "[%d,0,{\"loss\":%s}%s]\n", n, value, commit)
		p := &replicate.Point{Value: values(t, `{"loss":`+value+`}`)[0].Value, Step: replicate.Step(n), N: n}
		if s.First == nil {
			s.First = p
		}
		if s.Last = p; s.Min == nil || p.Value.Compare(s.Min.Value) < 0 {
			s.Min = p
		}
		if s.Max == nil || p.Value.Compare(s.Max.Value) > 0 {
			s.Max = p
		}
	}
	return repository.Record{Stream: &repository.StreamRow{Stream: repository.MetricsStream, Experiment: e, Writer: "00000000000000aa", From: from,
		To: from + int64(len(points)), Inline: frame, Row: row(start.Add(time.Hour)), Summary: map[string]replicate.Summary{"loss": s}}}
}

func (w *world) wantLoss(e replicate.ID, first, last, min, max string) {
	w.Helper()
	got, err := w.Experiment(w.Context(), e)
	w.must(err)
	m := got.Metrics[0]
	text := fmt.Sprint(m.First.Value, m.Last.Value, m.Min.Value, m.Max.Value)
	if want := fmt.Sprint(first, last, min, max); strings.ReplaceAll(text, " ", "") != want {
		w.Errorf("first, last, min, max are %s, want %s", text, want)
	}
}

// TestMetricsForgetDeletedCommits: what a deleted commit measured is no longer first, last, lowest or highest, though it is a point of the
// stream for ever; what was logged beside it is.
func TestMetricsForgetDeletedCommits(t *testing.T) {
	w := newWorld(t)
	e, best := id("67"), id("3b")
	commit := func(name string, step int, loss string) repository.Record {
		return commitRecord(replicate.Commit{ID: id(name), Experiment: e, Seq: int64(step), Step: replicate.Step(step), Metrics: values(t, `{"loss":`+loss+`}`)})
	}
	deleted := commit("3b", 1, "0.1")
	w.add(experimentRecord(replicate.Experiment{ID: e, Metric: &replicate.Metric{Name: "loss", Goal: replicate.Minimize}}),
		streamOf(t, e, 0, "0.5", "0.1 3b", "0.3", "0.4 80"), deleted, commit("80", 3, "0.4"))
	w.wantLoss(e, "0.5", "0.4", "0.1", "0.5")
	w.add(deleteRecord(best, start.Add(time.Minute)))
	w.wantLoss(e, "0.5", "0.4", "0.3", "0.5")
	w.wantFound(Query{Filters: []string{"loss.min < 0.2"}})
	w.add(streamOf(t, e, 0, "0.5", "0.1 3b", "0.3", "0.4 80", "0.6")) // sealed
	w.wantLoss(e, "0.5", "0.6", "0.3", "0.6")
	w.checkAgainstRebuilt()
	deleted.Commit.Before = start.Add(3 * time.Hour)
	w.add(deleted)
	w.wantLoss(e, "0.5", "0.6", "0.1", "0.6")
}

// TestMetricsForgetDeletedCommitsOfADamagedStream: where points cannot be read, their summaries are taken without what is known to be dead.
func TestMetricsForgetDeletedCommitsOfADamagedStream(t *testing.T) {
	w := newWorld(t)
	e := id("67")
	damaged := streamOf(t, e, 0, "0.5", "0.1 3b", "0.3", "0.9 81")
	damaged.Stream.Inline = []byte{7}
	commit := func(name string, step int, loss string) repository.Record {
		return commitRecord(replicate.Commit{ID: id(name), Experiment: e, Seq: int64(step), Step: replicate.Step(step), Metrics: values(t, `{"loss":`+loss+`}`)})
	}
	w.add(deleteRecord(id("3b"), start.Add(time.Minute)), deleteRecord(id("81"), start.Add(time.Minute)))
	w.add(experimentRecord(replicate.Experiment{ID: e}), damaged, commit("3b", 1, "0.1"))
	w.wantLoss(e, "0.5", "0.9", "0.5", "0.9")
	w.add(commit("81", 3, "0.9"), commit("80", 2, "0.3"))
	w.wantLoss(e, "0.5", "0.3", "0.3", "0.5")
	w.checkAgainstRebuilt()
}
