package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	_ "github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/repository"
)

// listRows measures ls, show and the building of the index over repositories of many experiments.
func listRows(l *lab) error {
	for _, size := range []struct {
		n    int
		text string
		bar  string
	}{{1000, "1k", ""}, {10_000, "10k", "100 ms"}, {100_000, "100k", "300 ms"}} {
		dir := l.path("list-" + size.text)
		r, err := manyExperiments(filepath.Join(dir, ".replicate", "storage"), size.n, 1, 5000)
		if err != nil {
			return err
		}
		if err := r.Merge(context.Background()); err != nil {
			return err
		}
		fresh, err := l.race(contender{"ls", func(int) error { return l.putAway("cache", ".cache") }, func(int) error {
			_, err := command(dir, l.binary, "ls", "-n", "1")
			return err
		}})
		if err != nil {
			return err
		}
		ls := func(int) error {
			_, err := command(dir, l.binary, "ls", "-f", "learning_rate < 0.014 or optimizer = adam and loss.min < 0.02", "-s", "loss.min-desc")
			return err
		}
		show := func(int) error { _, err := command(dir, l.binary, "show", "@latest"); return err }
		if err := ls(0); err != nil { // warm
			return err
		}
		times, err := l.race(contender{"ls", nil, ls}, contender{"show", nil, show})
		if err != nil {
			return err
		}
		l.add("ls --filter --sort over "+size.text+" experiments", times["ls"].String(), size.bar)
		if size.n == 100_000 {
			l.add("show one among 100k", times["show"].String(), "50 ms")
			l.add("first ls over 100k, merged records, no index yet", fresh["ls"].String(), "1.5 s")
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return nil
}

// manyExperiments writes a repository of n finished experiments with 8 parameters and some commits of 4 metrics each, in objects of batch
// experiments.
func manyExperiments(dir string, n, commits, batch int) (*repository.Repository, error) {
	ctx := context.Background()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	store, err := storage.Open(ctx, "file://"+dir)
	if err != nil {
		return nil, err
	}
	r, err := repository.Create(ctx, store)
	if err != nil {
		return nil, err
	}
	random := rand.NewChaCha8([32]byte{3})
	for from := 0; from < n; from += batch {
		var records []repository.Record
		for i := from; i < min(n, from+batch); i++ {
			of, err := experimentRecords(random, i, commits)
			if err != nil {
				return nil, err
			}
			records = append(records, of...)
		}
		if err := r.Append(ctx, records...); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func experimentRecords(random *rand.ChaCha8, i, commits int) ([]repository.Record, error) {
	rng := rand.New(random)
	id, err := replicate.NewID(random)
	if err != nil {
		return nil, err
	}
	created := time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC)
	number := func(name string, v replicate.Value) replicate.Member { return replicate.Member{Name: name, Value: v} }
	rows := []repository.Record{
		{Experiment: &repository.ExperimentRow{
			Experiment: replicate.Experiment{
				ID: id, Created: created, User: "dev", Host: fmt.Sprintf("gpu%d", i%8), Command: []string{"train.py"},
				Metric: &replicate.Metric{Name: "loss", Goal: replicate.Minimize},
				Params: replicate.Values{
					number("learning_rate", replicate.Float(rng.Float64()/10)), number("batch_size", replicate.Int(int64(16<<(i%5)))),
					number("optimizer", replicate.Text([]string{"adam", "sgd", "rmsprop"}[i%3])), number("dropout", replicate.Float(rng.Float64())),
					number("layers", replicate.Int(int64(i%12))), number("seed", replicate.Int(int64(i))),
					number("augment", replicate.Bool(i%2 == 0)), number("warmup", replicate.Int(int64(100*(i%10)))),
				},
			},
			Row: repository.Row{Before: created.Add(time.Hour)},
		}},
		{Set: &repository.Set{Experiment: id, At: created.Add(2 * time.Minute), By: "bench",
			Fields: map[string]json.RawMessage{"status": json.RawMessage(`"finished"`)}}},
	}
	for seq := range commits {
		commit, err := replicate.NewID(random)
		if err != nil {
			return nil, err
		}
		rows = append(rows, repository.Record{Commit: &repository.CommitRow{
			Commit: replicate.Commit{
				ID: commit, Experiment: id, Seq: int64(seq), Time: created.Add(time.Minute), Step: replicate.Step(10 * (seq + 1)),
				Metrics: replicate.Values{
					number("loss", replicate.Float(rng.Float64())), number("accuracy", replicate.Float(rng.Float64())),
					number("val/loss", replicate.Float(rng.Float64())), number("val/accuracy", replicate.Float(rng.Float64())),
				},
			},
			Row: repository.Row{Before: created.Add(time.Hour)},
		}})
	}
	for j := range rows {
		if rows[j], err = rows[j].Encode(); err != nil {
			return nil, err
		}
	}
	return rows, nil
}
