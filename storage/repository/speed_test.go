package repository

import (
	"fmt"
	"testing"

	"github.com/replicate/replicate"
)

// typicalRecord is an experiment as the storage design counts them: 8 parameters.
func typicalRecord(tb testing.TB) Record {
	tb.Helper()
	e := sampleRecords()["experiment"].Experiment
	r := ExperimentRow{Row: e.Row, Experiment: replicate.Experiment{ID: idA, Created: e.Created, User: "dev", Host: "gpu1",
		Command: []string{"train.py", "--lr", "0.01"}, Metric: e.Metric}}
	r.Tree, r.Packs = r.Tree[:1], r.Packs[:1]
	for i := range 8 {
		r.Params = append(r.Params, replicate.Member{Name: fmt.Sprint("param_", i), Value: replicate.Float(float64(i) / 8)})
	}
	rec, err := Record{Experiment: &r}.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	return rec
}

func BenchmarkParseExperiment(b *testing.B) { benchmarkParse(b, typicalRecord(b)) }

func BenchmarkParseCommit(b *testing.B) {
	c := *sampleRecords()["commit"].Commit
	c.Metrics = nil
	for _, name := range []string{"loss", "accuracy", "val/loss", "val/accuracy"} {
		c.Metrics = append(c.Metrics, replicate.Member{Name: name, Value: replicate.Float(0.116912345)})
	}
	c.Tree, c.Packs = c.Tree[:1], c.Packs[:1]
	r, err := Record{Commit: &c}.Encode()
	if err != nil {
		b.Fatal(err)
	}
	benchmarkParse(b, r)
}

func benchmarkParse(b *testing.B, r Record) {
	b.SetBytes(int64(len(r.Line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRecord(r.Line); err != nil {
			b.Fatal(err)
		}
	}
}
