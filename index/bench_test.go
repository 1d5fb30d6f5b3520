package index

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/mem"
	"github.com/replicate/replicate/storage/repository"
)

// synthetic publishes experiments of 8 parameters and 4 metrics with some commits each, in objects of 10,000 records, as a merge
// would leave them.
func synthetic(b testing.TB, experiments, commits int) *repository.Repository {
	b.Helper()
	store := mem.New("synthetic", func() time.Time { return start })
	r, err := repository.Create(b.Context(), store)
	if err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	newID := func() replicate.ID { return replicate.ID(fmt.Sprintf("%016x%016x", random.Uint64(), random.Uint64())) }
	var records []repository.Record
	publish := func() {
		if err := r.Append(b.Context(), encode(b, records...)...); err != nil {
			b.Fatal(err)
		}
		records = nil
	}
	for i := range experiments {
		e := replicate.Experiment{ID: newID(), Created: start.Add(time.Duration(i) * time.Second), User: "dev", Host: fmt.Sprintf("gpu%d", i%8),
			Command: []string{"python", "train.py", "--seed", fmt.Sprint(i)}, Metric: &replicate.Metric{Name: "loss", Goal: replicate.Minimize},
			Params: replicate.Values{{Name: "lr", Value: replicate.Float(random.Float64())}, {Name: "epochs", Value: replicate.Int(int64(i % 100))},
				{Name: "seed", Value: replicate.Int(int64(i))}, {Name: "model", Value: replicate.Text([]string{"resnet", "vit", "mlp"}[i%3])},
				{Name: "dropout", Value: replicate.Float(0.1)}, {Name: "amp", Value: replicate.Bool(i%2 == 0)},
				{Name: "data", Value: replicate.Text("imagenet")}, {Name: "batch", Value: replicate.Int(256)}}}
		records = append(records, experimentRecord(e))
		for seq := range commits {
			c := replicate.Commit{ID: newID(), Experiment: e.ID, Seq: int64(seq), Step: replicate.Step(seq), Files: 48, Bytes: 1 << 20, Time: e.Created.Add(time.Duration(seq) * time.Minute)}
			for _, m := range []string{"acc", "loss", "val/acc", "val/loss"} {
				c.Metrics = append(c.Metrics, replicate.Member{Name: m, Value: replicate.Float(random.Float64())})
			}
			rec := commitRecord(c)
			var pack replicate.Hash
			for j := range pack {
				pack[j] = byte(random.Uint32())
			}
			rec.Commit.Tree = []repository.Ref{{Pack: pack, Off: 1000, Len: 4000, Raw: 9000, Hash: pack}}
			records = append(records, rec)
		}
		records = append(records, setRecord(e.ID, start.Add(time.Hour), map[string]string{"status": `"finished"`, "ended": `"2026-11-23T12:00:00Z"`,
			"git": `{"commit":"0123456789abcdef0123456789abcdef01234567","branch":"main","dirty":true}`}))
		if len(records) >= 10_000 {
			publish()
		}
	}
	if len(records) > 0 {
		publish()
	}
	return r
}

func openSynthetic(b testing.TB, dir string, r *repository.Repository) *Index {
	b.Helper()
	x, err := Open(b.Context(), dir, r, Options{Now: func() time.Time { return start }})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := x.Sync(b.Context()); err != nil {
		b.Fatal(err)
	}
	return x
}

func BenchmarkImport(b *testing.B) {
	for _, size := range []struct{ experiments, commits int }{{10_000, 3}, {100_000, 0}, {100_000, 3}, {1000, 1000}} {
		b.Run(fmt.Sprintf("experiments=%d/commits=%d", size.experiments, size.commits), func(b *testing.B) {
			r := synthetic(b, size.experiments, size.commits)
			used := processorTime()
			for b.Loop() {
				openSynthetic(b, b.TempDir(), r).Close()
			}
			b.ReportMetric((processorTime()-used).Seconds()/float64(b.N), "cpu-s/op")
		})
	}
}

func BenchmarkList(b *testing.B) {
	for _, experiments := range []int{1000, 10_000, 100_000} {
		r, dir := synthetic(b, experiments, 3), b.TempDir()
		openSynthetic(b, dir, r).Close()
		for _, q := range []Query{
			{Filters: []string{"lr < 0.01 or epochs = 7 and model = vit"}, Sort: "loss"},
			{Filters: []string{"lr < 0.15"}, Sort: "loss-desc"},
		} {
			b.Run(fmt.Sprintf("experiments=%d/%s", experiments, q.Filters[0]), func(b *testing.B) {
				n := 0
				for b.Loop() { // opening and syncing is part of every ls
					x := openSynthetic(b, dir, r)
					all, _, err := x.List(b.Context(), q)
					if err != nil {
						b.Fatal(err)
					}
					n = len(all)
					x.Close()
				}
				b.ReportMetric(float64(n), "rows")
			})
		}
	}
}

func BenchmarkShow(b *testing.B) {
	r, dir := synthetic(b, 100_000, 3), b.TempDir()
	openSynthetic(b, dir, r).Close()
	b.ResetTimer()
	for b.Loop() {
		x := openSynthetic(b, dir, r)
		target, err := x.Resolve(b.Context(), "@latest")
		if err == nil {
			target, err = x.Resolve(b.Context(), string(target.Experiment.ID[:10]))
		}
		if err == nil {
			_, err = x.CommitsOf(b.Context(), target.Experiment.ID)
		}
		if err != nil {
			b.Fatal(err)
		}
		x.Close()
	}
}

// BenchmarkSyncOne is what a mount does for every commit of a long run.
func BenchmarkSyncOne(b *testing.B) {
	r := synthetic(b, 1, 10_000)
	x := openSynthetic(b, b.TempDir(), r)
	defer x.Close()
	all, _, err := x.List(b.Context(), Query{})
	if err != nil {
		b.Fatal(err)
	}
	seq := int64(10_000)
	for b.Loop() {
		seq++
		c := replicate.Commit{ID: replicate.ID(fmt.Sprintf("%032x", seq)), Experiment: all[0].ID, Seq: seq, Step: replicate.Step(seq),
			Metrics: replicate.Values{{Name: "loss", Value: replicate.Float(float64(seq))}}}
		if err := r.Append(b.Context(), encode(b, commitRecord(c))...); err != nil {
			b.Fatal(err)
		}
		if _, err := x.Sync(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}

// processorTime is what this process used of all cores: on a busy machine it says more than the time that passed.
func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkImportHeads is BenchmarkImport of what merges made: heads are read, no commit is.
func BenchmarkImportHeads(b *testing.B) {
	r := synthetic(b, 10_000, 10)
	for i := range 260 { // so that a merge is due
		if err := r.Append(b.Context(), encode(b, setRecord(id("f"), start.Add(time.Duration(i)), map[string]string{"note": fmt.Sprintf(`"%d"`, i)}))...); err != nil {
			b.Fatal(err)
		}
	}
	if err := r.Merge(b.Context()); err != nil {
		b.Fatal(err)
	}
	used := processorTime()
	for b.Loop() {
		openSynthetic(b, b.TempDir(), r).Close()
	}
	b.ReportMetric((processorTime()-used).Seconds()/float64(b.N), "cpu-s/op")
}
