package main

import (
	"context"
	"encoding/json"
	"math"
	"math/big"
	"os"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/repository"
)

// fixture DIR makes a repository of known experiments, without files, in DIR/.replicate/storage. Its clock starts at epoch;
// scripts set REPLICATE_TEST_NOW to an hour or so later.
func fixture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: fixture DIR")
	}
	dir := ts.MkAbs(args[0]) + "/.replicate/storage"
	ts.Check(os.MkdirAll(dir, 0o700))
	ctx := context.Background()
	store, err := storage.Open(ctx, "file://"+dir)
	ts.Check(err)
	r, err := repository.Create(ctx, store)
	ts.Check(err)
	var records []repository.Record
	for _, e := range fixtures() {
		records = append(records, e.records()...)
	}
	for i := range records {
		records[i], err = records[i].Encode()
		ts.Check(err)
	}
	ts.Check(r.Append(ctx, records...))
}

var epoch = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

type fixtureExperiment struct {
	replicate.Experiment
	commits []replicate.Commit
	set     map[string]any
}

func (e fixtureExperiment) records() []repository.Record {
	row := repository.Row{Before: epoch.Add(time.Hour)}
	records := []repository.Record{{Experiment: &repository.ExperimentRow{Experiment: e.Experiment, Row: row}}}
	for i, c := range e.commits {
		c.Experiment, c.Seq = e.ID, int64(i)
		records = append(records, repository.Record{Commit: &repository.CommitRow{Commit: c, Row: row}})
	}
	fields := map[string]json.RawMessage{}
	for name, value := range e.set {
		fields[name], _ = json.Marshal(value)
	}
	return append(records, repository.Record{Set: &repository.Set{Experiment: e.ID, At: epoch, By: "test", Fields: fields}})
}

// fixtures are experiments with every kind of value that once broke a tool of this sort.
func fixtures() []fixtureExperiment {
	loss := &replicate.Metric{Name: "loss", Goal: replicate.Minimize}
	metrics := func(loss, accuracy float64) replicate.Values {
		return replicate.Values{{Name: "loss", Value: replicate.Float(loss)}, {Name: "accuracy", Value: replicate.Float(accuracy)}}
	}
	big53 := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 70), big.NewInt(1))
	return []fixtureExperiment{
		{
			Experiment: replicate.Experiment{
				ID: "67386ce1f0c24d5b8a2e7d9c3b6f4a10", Created: epoch, User: "dev", Host: "gpu1",
				Command: []string{"python", "train.py", "--learning_rate=0.01", "--note=two words"}, Metric: loss,
				Params: replicate.Values{
					{Name: "learning_rate", Value: replicate.Float(0.01)}, {Name: "num_epochs", Value: replicate.Int(100)},
					{Name: "optimizer", Value: replicate.Map(replicate.Values{{Name: "name", Value: replicate.Text("adam")}, {Name: "beta", Value: replicate.Float(1)}})},
				},
			},
			commits: []replicate.Commit{
				{ID: "aa0e85c1f0c24d5b8a2e7d9c3b6f4a11", Time: epoch.Add(1 * time.Second), Step: 0, Metrics: metrics(math.NaN(), 0.5)},
				{ID: "3be0c21a4f5061728394a5b6c7d8e9fa", Time: epoch.Add(20 * time.Second), Step: 91, Metrics: metrics(0.1169123, 0.96667)},
				{ID: "80f61fe04f5061728394a5b6c7d8e9fa", Time: epoch.Add(40 * time.Second), Step: 99, Metrics: metrics(0.1176, 0.96667), Message: "the end"},
			},
			set: map[string]any{"status": "finished", "ended": epoch.Add(41 * time.Second), "exit_code": 0,
				"tags": map[string]bool{"paper": true, "draft": false}, "git": replicate.Git{Commit: "4f2a9c1d2e3f", Branch: "main", Dirty: true, Files: 2},
				"python": replicate.Python{Version: "3.11.2", Packages: map[string]string{"torch": "2.3.0", "numpy": "1.24.2"}}},
		},
		{
			Experiment: replicate.Experiment{
				ID: "9cce006a4f5061728394a5b6c7d8e9f0", Created: epoch.Add(30 * time.Minute), User: "dev", Host: "gpu1", Metric: loss,
				Command: []string{"python", "train.py", "--learning_rate=0.2"}, Name: "wide",
				Params: replicate.Values{
					{Name: "learning_rate", Value: replicate.Text("0.2")}, {Name: "num_epochs", Value: replicate.Float(100)},
					{Name: "optimizer", Value: replicate.Map(replicate.Values{{Name: "name", Value: replicate.Value{}}, {Name: "beta", Value: replicate.Int(1)}})},
					{Name: "seed", Value: replicate.BigInt(big53)},
				},
			},
			commits: []replicate.Commit{
				{ID: "a122e85a4f5061728394a5b6c7d8e9fa", Time: epoch.Add(31 * time.Minute), Step: 54, Metrics: metrics(0.2040871, 0.9)},
			},
			set: map[string]any{"status": "failed", "ended": epoch.Add(32 * time.Minute), "exit_code": 1,
				"error":  replicate.Failure{Type: "ValueError", Message: "bad shape", Traceback: "Traceback (most recent call last):\nValueError: bad shape\n"},
				"python": replicate.Python{Version: "3.11.2", Packages: map[string]string{"numpy": "1.24.2"}}},
		},
		{
			Experiment: replicate.Experiment{
				ID: "a0ffee00a1b2c3d4e5f60718293a4b5c", Created: epoch.Add(50 * time.Minute), User: "ann", Host: "gpu2", Metric: loss,
				Command: []string{"./run.sh"}, Params: replicate.Values{{Name: "learning_rate", Value: replicate.Float(math.NaN())}},
			},
			set: map[string]any{"status": "crashed", "ended": epoch.Add(51 * time.Minute)},
		},
	}
}
