package index

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// sealed returns rows of streams that other rows of records supersede, and those rows.
func sealed(t *testing.T, random *rand.Rand, experiment replicate.ID) []repository.Record {
	t.Helper()
	var records []repository.Record
	stretch := func(from, to, seq int64) repository.Record {
		summary := replicate.Summary{}
		for n := from; n < to; n++ {
			p := &replicate.Point{Value: replicate.Int((n * 7) % 5), Step: replicate.Step(n), N: n}
			if summary.First == nil {
				summary.First = p
			}
			summary.Last = p
			if summary.Min == nil || p.Value.Compare(summary.Min.Value) < 0 {
				summary.Min = p
			}
			if summary.Max == nil || p.Value.Compare(summary.Max.Value) > 0 {
				summary.Max = p
			}
		}
		return repository.Record{Stream: &repository.StreamRow{Stream: repository.MetricsStream, Experiment: experiment, Writer: "00000000000000bb",
			Seq: seq, From: from, To: to, Inline: []byte{1}, Row: row(start.Add(time.Duration(seq))), Summary: map[string]replicate.Summary{"sealed": summary}}}
	}
	n := 2 + random.Int64N(6)
	for i := range n {
		records = append(records, stretch(i, i+1, i))
	}
	records = append(records, stretch(0, n/2, n), stretch(0, n, n+1))
	return encode(t, records...)
}

// TestMergesMakeNoDifference: an index that was there before a merge, one that follows it and one that is made anew say the same.
func TestMergesMakeNoDifference(t *testing.T) {
	for seed := range uint64(12) {
		random := rand.New(rand.NewPCG(seed, 5))
		w := newWorld(t)
		records := history(t, random)
		records = append(records, sealed(t, random, id("1"))...)
		for i := range 300 { // so that a merge is due
			records = append(records, encode(t, setRecord(id("f"), start.Add(time.Duration(i)), map[string]string{"note": fmt.Sprintf(`"%d"`, i)}))...)
		}
		records = append(records, encode(t, experimentRecord(replicate.Experiment{ID: id("f")}))...)
		random.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		for _, r := range records {
			w.must(w.repository.Append(t.Context(), r))
		}
		if seed%3 == 0 { // what was deleted goes for good
			w.now = w.now.Add(30 * 24 * time.Hour)
		}
		if seed%2 == 0 {
			w.sync()
		}
		fresh := *w
		fresh.dir, fresh.Index = t.TempDir(), nil
		fresh.reopen()
		fresh.sync()
		before := fresh.said()
		if !w.repository.MergeDue() {
			t.Fatal("no merge is due")
		}
		w.must(w.repository.Merge(t.Context()))
		if w.sync(); w.repository.MergeDue() {
			t.Fatal("a merge is due again")
		}
		fresh.sync()
		late := *w
		late.dir, late.Index = t.TempDir(), nil
		late.reopen()
		late.sync()
		for name, x := range map[string]*world{"the reader from before": &fresh, "the one that followed": w, "a new one": &late} {
			if got := x.said(); got != before {
				t.Fatalf("seed %d: %s says\n%s\nbefore it was\n%s", seed, name, got, before)
			}
		}
	}
}

var rowCounts = regexp.MustCompile(`(?m)^\d+ rows$`)

// said is all that the index says but for the number of rows of streams.
func (w *world) said() string {
	w.Helper()
	return rowCounts.ReplaceAllString(w.dump(), "")
}
