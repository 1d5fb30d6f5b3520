package index

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/mem"
	"github.com/replicate/replicate/storage/repository"
)

// start is when the stories of the tests begin.
var start = time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)

// world is a repository in memory, and an index of it in a folder.
type world struct {
	*testing.T
	now        time.Time
	store      *mem.Store
	repository *repository.Repository
	dir        string
	options    Options
	*Index
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{T: t, now: start, dir: t.TempDir()}
	w.store = mem.New("test", func() time.Time { return w.now })
	w.options.Now = func() time.Time { return w.now }
	var err error
	w.repository, err = repository.Create(t.Context(), w.store)
	w.must(err)
	w.reopen()
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// reopen opens the index anew, as another process would.
func (w *world) reopen() {
	w.Helper()
	x, err := Open(w.Context(), w.dir, w.repository, w.options)
	w.must(err)
	if w.Index != nil {
		w.must(w.Index.Close())
	} else {
		w.Cleanup(func() { w.Index.Close() })
	}
	w.Index = x
}

func encode(t testing.TB, records ...repository.Record) []repository.Record {
	t.Helper()
	for i := range records {
		var err error
		if records[i], err = records[i].Encode(); err != nil {
			t.Fatal(err)
		}
	}
	return records
}

// add publishes records as one object and syncs.
func (w *world) add(records ...repository.Record) {
	w.Helper()
	w.must(w.repository.Append(w.Context(), encode(w, records...)...))
	w.sync()
}

func (w *world) sync() {
	w.Helper()
	warnings, err := w.Sync(w.Context())
	w.must(err)
	for _, warning := range warnings {
		w.Error(warning)
	}
}

// id returns an id that begins with a prefix.
func id(prefix string) replicate.ID {
	return replicate.ID(prefix + fmt.Sprintf("%032x", 0xabc)[len(prefix):])
}

func row(before time.Time) repository.Row { return repository.Row{Before: before} }

// experimentRecord is an experiment that began at start.
func experimentRecord(e replicate.Experiment) repository.Record {
	if e.Created.IsZero() {
		e.Created = start
	}
	return repository.Record{Experiment: &repository.ExperimentRow{Experiment: e, Row: row(start.Add(time.Hour))}}
}

func commitRecord(c replicate.Commit) repository.Record {
	if c.Time.IsZero() {
		c.Time = start.Add(time.Duration(c.Seq+1) * time.Minute)
	}
	return repository.Record{Commit: &repository.CommitRow{Commit: c, Row: row(start.Add(time.Hour))}}
}

func setRecord(experiment replicate.ID, at time.Time, fields map[string]string) repository.Record {
	s := &repository.Set{Experiment: experiment, At: at, Fields: map[string]json.RawMessage{}}
	for name, value := range fields {
		s.Fields[name] = json.RawMessage(value)
	}
	return repository.Record{Set: s}
}

func deleteRecord(id replicate.ID, at time.Time) repository.Record {
	return repository.Record{Delete: &repository.Delete{ID: id, At: at}}
}

// values makes values of a JSON object.
func values(t testing.TB, text string) replicate.Values {
	t.Helper()
	v, err := replicate.ParseValue([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return v.Map()
}

// found returns the first digits of the experiments of a query.
func (w *world) found(q Query) []string {
	w.Helper()
	all, _, err := w.List(w.Context(), q)
	w.must(err)
	ids := []string{}
	for _, e := range all {
		ids = append(ids, string(e.ID[:2]))
	}
	return ids
}

func (w *world) wantFound(q Query, want ...string) {
	w.Helper()
	if got := w.found(q); !slices.Equal(got, want) {
		w.Errorf("%q sorted by %q: got %q, want %q", q.Filters, q.Sort, got, want)
	}
}

func TestSyncShowsWhatWasRecorded(t *testing.T) {
	w := newWorld(t)
	e, c0, c1 := id("67386ce"), id("3be0c21"), id("80f61fe")
	w.add(
		experimentRecord(replicate.Experiment{ID: e, Name: "iris", User: "dev", Host: "gpu1", Command: []string{"python", "train.py"},
			Params: values(t, `{"lr":0.01,"optimizer":{"name":"adam"},"layers":[1,2]}`), Metric: &replicate.Metric{Name: "loss", Goal: replicate.Minimize}}),
		commitRecord(replicate.Commit{ID: c0, Experiment: e, Seq: 0, Step: 1, Metrics: values(t, `{"loss":0.1,"acc":0.5}`), Bytes: 10}),
		commitRecord(replicate.Commit{ID: c1, Experiment: e, Parent: c0, Seq: 1, Step: 2, Metrics: values(t, `{"loss":0.2,"acc":"NaN"}`), Bytes: 20}),
	)
	w.add(setRecord(e, start.Add(time.Minute), map[string]string{"status": `"finished"`, "tags": `{"b":true,"a":true}`, "git": `{"commit":"abc","patch":"long"}`}))
	all, _, err := w.List(w.Context(), Query{})
	w.must(err)
	if len(all) != 1 {
		t.Fatalf("got %d experiments", len(all))
	}
	got := all[0]
	if got.Name != "iris" || got.Status != replicate.Finished || got.Commits != 2 || got.Latest.ID != c1 || got.Best.ID != c0 || got.Size != 20 ||
		!slices.Equal(got.Tags, []string{"a", "b"}) || got.Git.Patch != "" {
		t.Errorf("got %+v", got)
	}
	acc, loss := got.Metrics[0], got.Metrics[1]
	if acc.Min.Value.Float() != 0.5 || !acc.Last.Value.IsNaN() || loss.Min.Commit != c0 || loss.Last.Step != 2 || loss.Goal != replicate.Minimize {
		t.Errorf("metrics: %+v %+v", acc, loss)
	}
	full, err := w.Experiment(w.Context(), e)
	w.must(err)
	if full.Git.Patch != "long" || full.Status != replicate.Finished {
		t.Errorf("whole: %+v", full)
	}
	commits, err := w.CommitsOf(w.Context(), e)
	w.must(err)
	if len(commits) != 2 || commits[0].ID != c0 || commits[1].Parent != c0 {
		t.Errorf("commits: %v", commits)
	}
	for _, q := range []string{"lr = 0.01", "optimizer.name = adam and acc.last is nan", "layers.1 = 2", "status = stopped", "tag = a", "loss < 0.15", "commits = 2", "id = 6738"} {
		w.wantFound(Query{Filters: []string{q}}, "67")
	}
	for _, q := range []string{"lr != 0.01", "layers.1 = 1", "tag = c", "tag != a", "status = running"} {
		w.wantFound(Query{Filters: []string{q}})
	}
}
