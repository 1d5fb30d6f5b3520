package recorder

import (
	"context"
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/repository"
	"github.com/replicate/replicate/storage/storagetest"
)

// TestRunComesHome begins a run in one project, carries it out in a copy of it with a storage of its own, whose clock is behind, and copies what was
// recorded there back: one experiment, with the commits of the script, the output and the end.
// TestARunTookAsLongAsItTook has a run that one clock says began, and another, an hour before or behind, that it ended.
func TestARunTookAsLongAsItTook(t *testing.T) {
	for _, ahead := range []time.Duration{time.Hour, -time.Hour} {
		dir := newProject(t)
		s, _, err := BeginRun(t.Context(), Run{Dir: dir, Command: []string{"make"}, Ended: true, Created: time.Now().Add(-ahead), Ahead: ahead}, testOptions())
		check(t, err)
		id, code := s.ID(), 0
		check(t, s.Stop(t.Context(), replicate.Finished, &code))
		e := recorded(t, dir, id).row.Experiment
		if took := e.Ended.Sub(e.Created); took < 0 || took > time.Minute {
			t.Errorf("on a machine that is ahead by %v it took %v", ahead, took)
		}
	}
}

func TestRunComesHome(t *testing.T) {
	ctx := context.Background()
	here, there := newProject(t), newProject(t)
	asked, _, err := BeginRun(ctx, Run{
		Dir: here, Command: []string{"python", "train.py"}, User: "ann", Host: "gpu1", Status: replicate.Building, Git: true,
		Facts: replicate.Run{Target: "ben@gpu1"},
	}, testOptions())
	check(t, err)
	id := asked.ID()
	if e := recorded(t, here, id).row.Experiment; e.Status != replicate.Building || e.Run.Target != "ben@gpu1" || e.Host != "gpu1" || e.User != "ann" {
		t.Errorf("it begins as %+v", e)
	}
	after := time.Now().Add(time.Hour)
	o := testOptions()
	supervised, _, err := BeginRun(ctx, Run{ID: id, Dir: there, Command: []string{"python", "train.py"}, User: "ann", Host: "gpu1", Ended: true, Here: true,
		After: after}, o)
	check(t, err)
	check(t, asked.Leave(ctx))

	o.Env["REPLICATE_EXPERIMENT_ID"] = string(id)
	script := startWith(t, there, o)
	if got := script.init(map[string]any{"params": map[string]any{"lr": 0.1}}); got != id {
		t.Errorf("the script records %s instead of %s", got, id)
	}
	script.call("commit", map[string]any{"step": 1, "metrics": map[string]any{"loss": 0.5}})
	script.call("end", map[string]any{"status": "finished"})
	script.close()
	supervised.Output([]byte("epoch 1\r"))
	supervised.Output([]byte{0, 255, '\n'})
	code := 0
	looked(t, open(t, there), id) // the end waits a moment only
	check(t, supervised.Stop(ctx, replicate.Finished, &code))

	for range 2 { // again it changes nothing
		_, err = bring(t, here, open(t, there), id)
		check(t, err)
	}
	found := recorded(t, here, id)
	if e := found.row.Experiment; e.Status != replicate.Finished || *e.ExitCode != 0 || e.Directory != here || e.Machine == nil {
		t.Errorf("it ends as %+v", e)
	}
	if lr, _ := found.row.Params.Get("lr"); lr.String() != "0.1" {
		t.Errorf("lr is %v", lr)
	}
	if len(found.commits) != 1 || found.commits[0].Step != 1 {
		t.Errorf("commits are %+v", found.commits)
	}
	if got := output(t, here, id); got != "epoch 1\r\x00\xff\n" {
		t.Errorf("output is %q", got)
	}
}

// TestAttachedRunAsksNoStorage takes part in an experiment of a storage that does not answer, and lets a script of the same machine join.
func TestAttachedRunAsksNoStorage(t *testing.T) {
	ctx := context.Background()
	dir := newProject(t)
	store := newClosedStore(t)
	id, err := replicate.NewID(rand.Reader)
	check(t, err)
	o := testOptions()
	o.StorageFlag = store.URL()
	s, err := AttachRun(ctx, Run{ID: id, Dir: dir, Command: []string{"make"}, Ended: true, Here: true}, o)
	check(t, err)
	o.Env["REPLICATE_EXPERIMENT_ID"] = string(id)
	script := startWith(t, dir, o)
	if got := script.init(nil); got != id {
		t.Errorf("the script records %s instead of %s", got, id)
	}
	script.call("commit", map[string]any{"step": 1})
	script.call("end", map[string]any{"status": "finished", "wait": 0})
	script.close()
	check(t, s.SetStatus(ctx, replicate.Running, replicate.Run{Target: "gpu1"}))
	check(t, s.Stop(ctx, replicate.Failed, new(int)))
	if w := s.place.spool.Waiting(); w.Commits != 1 {
		t.Errorf("%d commits wait", w.Commits)
	}
}

// output reads what the command of an experiment printed.
func output(t *testing.T, dir string, id replicate.ID) string {
	t.Helper()
	var text strings.Builder
	check(t, streamOf(t, dir, id, repository.OutputStream).WriteTo(t.Context(), &text))
	return text.String()
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestEndsOfOthersAreRecorded gives experiments an end that somebody else recorded elsewhere, or that nobody recorded: once.
func TestEndsOfOthersAreRecorded(t *testing.T) {
	ctx := t.Context()
	here, there := newProject(t), newProject(t)
	asked, _, err := BeginRun(ctx, Run{Dir: here, Command: []string{"make"}, Status: replicate.Building}, testOptions())
	check(t, err)
	id := asked.ID()
	supervised, _, err := BeginRun(ctx, Run{ID: id, Dir: there, Command: []string{"make"}, Ended: true}, testOptions())
	check(t, err)
	code := 3
	check(t, supervised.Stop(ctx, replicate.Failed, &code))
	check(t, asked.Leave(ctx))
	e, err := bring(t, here, open(t, there), id)
	check(t, err)
	if e.Status != replicate.Failed || *e.ExitCode != 3 {
		t.Errorf("it is brought as %+v", e)
	}
	check(t, Conclude(ctx, open(t, here), id, replicate.Crashed, nil, "nobody knows"))
	if e := recorded(t, here, id).row.Experiment; e.Status != replicate.Failed || *e.ExitCode != 3 {
		t.Errorf("it ends as %+v", e)
	}
	other, _, err := BeginRun(ctx, Run{Dir: here, Command: []string{"make"}, Status: replicate.Building}, testOptions())
	check(t, err)
	check(t, other.Leave(ctx))
	check(t, Conclude(ctx, open(t, here), other.ID(), replicate.Crashed, nil, "killed"))
	if e := recorded(t, here, other.ID()).row.Experiment; e.Status != replicate.Crashed || e.Failure.Message != "killed" || e.Ended.IsZero() {
		t.Errorf("it ends as %+v", e)
	}
}

func bring(t *testing.T, to string, from *repository.Repository, id replicate.ID) (replicate.Experiment, error) {
	t.Helper()
	home := open(t, to)
	return Bring(t.Context(), repository.OpenSpool(home, ""), home, from, id, func(err error) { t.Error(err) })
}

// TestRoundTripsOfBringing counts how many times in succession a far store is waited for that holds a run: for the names of records, while it is looked at what it
// is; for the records; for the sizes of packs; for the packs.
func TestRoundTripsOfBringing(t *testing.T) {
	here, there := newProject(t), newProject(t)
	asked, _, err := BeginRun(t.Context(), Run{Dir: here, Command: []string{"make"}, Status: replicate.Building}, testOptions())
	check(t, err)
	check(t, asked.Leave(t.Context()))
	far, _, err := BeginRun(t.Context(), Run{ID: asked.ID(), Dir: there, Command: []string{"make"}, Ended: true}, testOptions())
	check(t, err)
	far.Output([]byte("done"))
	write(t, filepath.Join(there, "model.bin"), "weights")
	_, _, err = far.writer.Commit(t.Context(), repository.CommitRequest{Time: time.Now()})
	check(t, err)
	check(t, far.Stop(t.Context(), replicate.Finished, new(int)))
	synctest.Test(t, func(t *testing.T) {
		const trip = time.Second
		store := storagetest.Wrap(struct{ storage.Store }{open(t, there).Store()}, storagetest.Hooks{Before: func(context.Context, storagetest.Call) error {
			time.Sleep(trip)
			return nil
		}})
		start := time.Now()
		from, err := repository.Open(t.Context(), repository.Ahead(t.Context(), store))
		check(t, err)
		e, err := bring(t, here, from, asked.ID())
		if took := time.Since(start); err != nil || took != 4*trip || e.Status != replicate.Finished {
			t.Errorf("%d round trips, and then it is %s, %v", took/trip, e.Status, err)
		}
	})
	if got := output(t, here, asked.ID()); got != "done" {
		t.Errorf("output is %q", got)
	}
}
