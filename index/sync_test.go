package index

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// beat writes the heartbeat of an experiment at the present time of the store.
func (w *world) beat(experiment replicate.ID) {
	w.Helper()
	line, err := json.Marshal(repository.Heartbeat{Experiment: experiment, Time: w.now})
	w.must(err)
	_, err = w.store.Put(w.Context(), "live/"+string(experiment), bytes.NewReader(line), int64(len(line)))
	w.must(err)
}

func (w *world) status(experiment replicate.ID) replicate.Status {
	w.Helper()
	e, err := w.Experiment(w.Context(), experiment)
	w.must(err)
	return e.Status
}

func TestADurationIsNeverNegative(t *testing.T) {
	w := newWorld(t)
	w.add(experimentRecord(replicate.Experiment{ID: id("67"), Created: start, Status: replicate.Finished, Ended: start.Add(-time.Second)}))
	w.wantFound(Query{Filters: []string{"duration < 0"}})
	w.wantFound(Query{Filters: []string{"duration is null"}}, "67")
}

func TestStatusFollowsTheHeartbeat(t *testing.T) {
	w := newWorld(t)
	e := id("67")
	w.beat(e)
	w.add(experimentRecord(replicate.Experiment{ID: e}))
	if got := w.status(e); got != replicate.Running {
		t.Errorf("with a heartbeat: %s", got)
	}
	before := w.Version()
	w.now = w.now.Add(replicate.LostAfter + time.Second)
	w.sync()
	if got := w.status(e); got != replicate.Lost {
		t.Errorf("with an old heartbeat: %s", got)
	}
	if changed, _, err := w.Changes(t.Context(), before); err != nil || len(changed) != 1 || w.Version() <= before {
		t.Errorf("being lost is no change: %v, %v", changed, err)
	}
	w.wantFound(Query{Filters: []string{"status = lost"}}, "67")
	w.wantFound(Query{Filters: []string{"duration is null"}}, "67")
	w.beat(e)
	w.sync()
	w.wantFound(Query{Filters: []string{"status = running and duration > 2m"}}, "67")
	w.add(setRecord(e, w.now, map[string]string{"status": `"finished"`}))
	w.must(w.store.Delete(t.Context(), "live/"+string(e)))
	w.sync()
	if got := w.status(e); got != replicate.Finished {
		t.Errorf("at the end: %s", got)
	}
	w.add(setRecord(e, w.now.Add(time.Second), map[string]string{"status": `"running"`}))
	if got := w.status(e); got != replicate.Lost {
		t.Errorf("resumed, without a heartbeat: %s", got)
	}
}

func TestDeletedIsHiddenAndComesBackWhenPublishedAgain(t *testing.T) {
	w := newWorld(t)
	e, c0, c1 := id("67"), id("3b"), id("80")
	experiment := experimentRecord(replicate.Experiment{ID: e, Name: "iris", Metric: &replicate.Metric{Name: "loss", Goal: replicate.Minimize}})
	first := commitRecord(replicate.Commit{ID: c0, Experiment: e, Seq: 0, Metrics: values(t, `{"loss":0.1}`)})
	second := commitRecord(replicate.Commit{ID: c1, Experiment: e, Seq: 1, Metrics: values(t, `{"loss":0.2}`)})
	w.add(experiment, first, second)
	w.add(deleteRecord(c0, start.Add(time.Minute)))
	got, err := w.Experiment(t.Context(), e)
	w.must(err)
	if got.Commits != 1 || got.Best.ID != c1 || got.Latest.ID != c1 {
		t.Errorf("a deleted commit is counted, best or latest: %+v", got)
	}
	if _, err := w.Resolve(t.Context(), "3b"); replicate.KindOf(err) != replicate.NotFound {
		t.Errorf("a deleted commit is found: %v", err)
	}
	w.add(deleteRecord(e, start.Add(2*time.Minute)))
	w.wantFound(Query{})
	w.wantFound(Query{Filters: []string{"status != finished"}})
	w.wantFound(Query{Filters: []string{"status = deleted"}}, "67")
	w.wantFound(Query{Filters: []string{"status in (deleted, lost)", "name = iris"}}, "67")
	late := commitRecord(replicate.Commit{ID: id("99"), Experiment: e, Seq: 2})
	late.Commit.Before = start.Add(5 * time.Hour)
	w.add(late) // a process that still runs
	for _, ref := range []string{"67", "iris", "80", "99", "@latest"} {
		if _, err := w.Resolve(t.Context(), ref); replicate.KindOf(err) != replicate.NotFound {
			t.Errorf("%s of a deleted experiment is found: %v", ref, err)
		}
	}
	dead, err := w.ResolveDeleted(t.Context(), "iris")
	w.must(err)
	rows, err := w.Records(t.Context(), dead.Experiment.ID)
	w.must(err)
	if len(rows) != 4 || rows[0].Experiment == nil {
		t.Fatalf("%d records", len(rows))
	}
	experiment.Experiment.Before, second.Commit.Before = start.Add(2*time.Hour), start.Add(2*time.Hour)
	w.add(experiment, second)
	got, err = w.Experiment(t.Context(), e)
	w.must(err)
	if got.Commits != 2 || got.Best.ID != c1 || got.Latest.ID != id("99") {
		t.Errorf("after undelete: %+v", got)
	}
}

func TestOrdinalsAndVersions(t *testing.T) {
	w := newWorld(t)
	e, f := id("1"), id("2")
	w.add(experimentRecord(replicate.Experiment{ID: e}), commitRecord(replicate.Commit{ID: id("a"), Experiment: e}))
	was, err := w.Experiment(t.Context(), e)
	w.must(err)
	instance, version := w.Instance(), w.Version()
	w.sync()
	if w.Version() != version {
		t.Error("nothing new, and a new version")
	}
	w.add(deleteRecord(e, start.Add(time.Hour)), experimentRecord(replicate.Experiment{ID: f}))
	now, err := w.Experiment(t.Context(), f)
	w.must(err)
	if now.Ord <= was.Ord {
		t.Errorf("ordinal %d after %d", now.Ord, was.Ord)
	}
	experiments, commits, err := w.Changes(t.Context(), version)
	w.must(err)
	if !slices.Equal(experiments, []int64{was.Ord, now.Ord}) || len(commits) != 1 {
		t.Errorf("changes: %v, %v", experiments, commits)
	}
	if experiments, commits, err = w.Changes(t.Context(), w.Version()); err != nil || len(experiments)+len(commits) > 0 {
		t.Errorf("changes since now: %v, %v, %v", experiments, commits, err)
	}
	if experiments, commits, err = w.Changes(t.Context(), 0); err != nil || len(experiments) != 2 || len(commits) != 1 {
		t.Errorf("changes since ever: %v, %v, %v", experiments, commits, err)
	}
	w.reopen()
	if again, err := w.ByOrd(t.Context(), now.Ord); err != nil || again.ID != f || w.Instance() != instance || w.Version() != version+1 {
		t.Errorf("reopened: %v, %v", again, err)
	}
	stream := repository.Record{Stream: &repository.StreamRow{Stream: repository.OutputStream, Experiment: f, Writer: "00000000000000aa", To: 1, Inline: []byte{1}, Row: row(start)}}
	version = w.Version()
	w.add(stream)
	if experiments, _, err := w.Changes(t.Context(), version); err != nil || !slices.Equal(experiments, []int64{now.Ord}) {
		t.Errorf("output is no change: %v, %v", experiments, err)
	}
}

func TestDamageHidesNothingElseAndIsReportedEveryTime(t *testing.T) {
	w := newWorld(t)
	w.add(experimentRecord(replicate.Experiment{ID: id("1")}))
	good := encode(t, experimentRecord(replicate.Experiment{ID: id("2")}))
	w.must(w.repository.Append(t.Context(), good[0], repository.Record{Line: []byte(`{"experiment":"nonsense"}`)}))
	w.must(w.repository.Append(t.Context(), encode(t, setRecord(id("1"), start, map[string]string{"git": `7`, "note": `"kept"`}))[0]))
	for range 2 {
		warnings, err := w.Sync(t.Context())
		w.must(err)
		text := fmt.Sprint(warnings)
		if len(warnings) != 2 || !strings.Contains(text, "log/") || !strings.Contains(text, "git") || replicate.KindOf(warnings[0]) != replicate.Corrupt {
			t.Errorf("warnings: %v", warnings)
		}
		w.wantFound(Query{}, "10", "20")
		w.wantFound(Query{Filters: []string{"note = kept"}}, "10")
	}
	version := w.Version()
	if _, err := w.Sync(t.Context()); err != nil || w.Version() != version {
		t.Errorf("the damaged object makes new versions: %v", err)
	}
}

func TestCommitsOfAnUnreadableExperimentAreThere(t *testing.T) {
	w := newWorld(t)
	w.add(commitRecord(replicate.Commit{ID: id("3b"), Experiment: id("67"), Seq: 0}), setRecord(id("68"), start, map[string]string{"note": `"x"`}))
	w.wantFound(Query{}, "67")
	if got, err := w.Resolve(t.Context(), "3b"); err != nil || got.Experiment.ID != id("67") || got.Experiment.Created.IsZero() {
		t.Errorf("got %v, %v", got, err)
	}
	w.add(experimentRecord(replicate.Experiment{ID: id("67"), Name: "late"}), experimentRecord(replicate.Experiment{ID: id("68")}))
	w.wantFound(Query{Filters: []string{"name = late"}}, "67")
	w.wantFound(Query{Filters: []string{"note = x"}}, "68")
}

func TestDamagedFileIsMadeAnew(t *testing.T) {
	w := newWorld(t)
	w.add(experimentRecord(replicate.Experiment{ID: id("1")}), commitRecord(replicate.Commit{ID: id("a"), Experiment: id("1")}))
	path := filepath.Join(w.dir, fileName(w.repository.ID()))
	for name, damage := range map[string]func(){
		"no database": func() { w.must(os.WriteFile(path, []byte(strings.Repeat("nonsense ", 1000)), 0o600)) },
		"cut":         func() { w.must(os.Truncate(path, 5000)) },
		"foreign tables": func() {
			w.must(os.Remove(path))
			db, err := openFile(t.Context(), path)
			w.must(err)
			_, err = db.Exec("DROP TABLE doc; DROP TABLE experiment")
			w.must(err)
			w.must(db.Close())
		},
		"another version": func() {
			db, err := openFile(t.Context(), path)
			w.must(err)
			_, err = db.Exec("PRAGMA user_version = 99")
			w.must(err)
			w.must(db.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			w.must(w.Close())
			w.Index = nil
			damage()
			w.reopen()
			w.sync()
			w.wantFound(Query{}, "10")
			if _, err := w.Commit(t.Context(), id("a")); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestFileDamagedWhileOpen: whatever is asked next makes the file anew and is answered.
func TestFileDamagedWhileOpen(t *testing.T) {
	w := newWorld(t)
	w.add(experimentRecord(replicate.Experiment{ID: id("1")}))
	for _, ask := range []func(){
		func() { w.wantFound(Query{}, "10") },
		func() { w.must(func() error { _, err := w.Resolve(t.Context(), "1"); return err }()) },
		func() { w.sync(); w.wantFound(Query{}, "10") },
	} {
		instance := w.Instance()
		_, err := w.db.Exec("DROP TABLE doc; DROP TABLE seen")
		w.must(err)
		ask()
		if w.Instance() == instance {
			t.Error("new ordinals, and no new instance")
		}
	}
}

func TestWithoutAFolderTheIndexIsInMemory(t *testing.T) {
	w := newWorld(t)
	w.must(w.repository.Append(t.Context(), encode(t, experimentRecord(replicate.Experiment{ID: id("1")}))...))
	file := filepath.Join(t.TempDir(), "file")
	w.must(os.WriteFile(file, nil, 0o600))
	w.dir = filepath.Join(file, "cache") // below a file no folder can be made, by root neither
	w.reopen()
	if w.InMemory() == nil {
		t.Error("nobody is told")
	}
	w.sync()
	w.wantFound(Query{}, "10")
	if _, err := w.Resolve(t.Context(), "1"); err != nil {
		t.Error(err)
	}
}

// TestManyProcesses sync and read one file at once.
func TestManyProcesses(t *testing.T) {
	w := newWorld(t)
	const processes, each = 4, 15
	var running sync.WaitGroup
	for p := range processes {
		x, err := Open(t.Context(), w.dir, w.repository, w.options)
		w.must(err)
		defer x.Close()
		running.Go(func() {
			for i := range each {
				e := id(fmt.Sprintf("%d%02d", p, i))
				if err := w.repository.Append(t.Context(), encode(t, experimentRecord(replicate.Experiment{ID: e}),
					commitRecord(replicate.Commit{ID: e, Experiment: e}))...); err != nil {
					t.Error(err)
				}
				if _, err := x.Sync(t.Context()); err != nil {
					t.Error(err)
				}
				if _, err := x.Experiment(t.Context(), e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	running.Wait()
	w.sync()
	all, err := w.ExperimentNames(t.Context())
	w.must(err)
	if len(all) != processes*each {
		t.Errorf("%d experiments", len(all))
	}
	for i, e := range all {
		if e.Ord != int64(i+1) {
			t.Errorf("ordinal %d is %d", i+1, e.Ord)
		}
	}
}

func TestNotesSayWhatWasMeant(t *testing.T) {
	w := newWorld(t)
	w.add(experimentRecord(replicate.Experiment{ID: id("1"), Params: values(t, `{"lr":0.1,"name":"x","x-desc":1}`)}),
		commitRecord(replicate.Commit{ID: id("a"), Experiment: id("1"), Metrics: values(t, `{"lr":0.2}`)}),
		experimentRecord(replicate.Experiment{ID: id("2"), Params: values(t, `{"lr":0.3,"x-desc":0}`)}))
	_, notes, err := w.List(t.Context(), Query{Filters: []string{"lr > 0", "name is null"}})
	w.must(err)
	want := []string{`"lr" is a metric and a parameter: the metric was taken where there is one; metric.lr and param.lr say which`,
		`"name" is built in and a parameter: the built-in one was taken; param.name is the parameter`}
	if !slices.Equal(notes, want) {
		t.Errorf("got %q", notes)
	}
	w.wantFound(Query{Sort: "lr"}, "10", "20")
	w.wantFound(Query{Sort: "x-desc-asc"}, "20", "10")
	w.wantFound(Query{Sort: "x-desc-desc", Last: 1}, "20")
	_, _, err = w.List(t.Context(), Query{Sort: "los"})
	if err == nil || err.Error() != `sort: no experiment has "los"` || replicate.KindOf(err) != replicate.Usage {
		t.Errorf("got %v", err)
	}
}

func TestAnEmptyRepositoryRefusesNothing(t *testing.T) {
	w := newWorld(t)
	w.sync()
	w.wantFound(Query{Filters: []string{"los < 1"}, Sort: "x"})
	if _, _, err := w.List(t.Context(), Query{Filters: []string{"los <"}}); err == nil {
		t.Error("not even bad syntax")
	}
}

func TestTheReadersGoalsMakeTheBestCommit(t *testing.T) {
	w := newWorld(t)
	e := id("1")
	w.add(experimentRecord(replicate.Experiment{ID: e}), commitRecord(replicate.Commit{ID: id("a"), Experiment: e, Seq: 0, Metrics: values(t, `{"loss":1,"acc":1}`)}),
		commitRecord(replicate.Commit{ID: id("b"), Experiment: e, Seq: 1, Metrics: values(t, `{"loss":2,"acc":1.0}`)}))
	for _, tt := range []struct {
		metric replicate.Metric
		want   replicate.ID
	}{{replicate.Metric{Name: "loss", Goal: replicate.Maximize}, id("b")}, {replicate.Metric{Name: "loss", Goal: replicate.Minimize}, id("a")},
		{replicate.Metric{Name: "acc", Goal: replicate.Maximize}, id("a")}} {
		w.options.Metrics, w.options.Primary = []replicate.Metric{tt.metric}, true
		w.reopen()
		all, _, err := w.List(t.Context(), Query{})
		w.must(err)
		if all[0].Best == nil || all[0].Best.ID != tt.want || *all[0].Primary != tt.metric {
			t.Errorf("%v: best is %v", tt.metric, all[0].Best)
		}
	}
}
