package recorder

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

func TestResume(t *testing.T) {
	dir := newProject(t)
	r := start(t, dir)
	id := r.init(map[string]any{"params": map[string]any{"lr": 1}})
	first := r.call("commit", map[string]any{"step": 5})
	r.close()

	r = start(t, dir)
	if got := r.init(map[string]any{"resume": string(id[:7]), "params": map[string]any{"more": 2}}); got != id {
		t.Fatalf("resumed %s, want %s", got, id)
	}
	if s := recorded(t, dir, id); s.row.Status != replicate.Running || !s.row.Ended.IsZero() {
		t.Errorf("while it runs again: %s, ended %v", s.row.Status, s.row.Ended)
	}
	if got := r.call("commit", nil); got["step"] != 6.0 {
		t.Errorf("second commit: %v", got)
	}
	r.call("end", nil)
	r.close()

	s := recorded(t, dir, id)
	if s.row.Status != replicate.Finished || string(s.row.Params.AppendJSON(nil)) != `{"lr":1,"more":2}` {
		t.Errorf("got %s, %s", s.row.Status, s.row.Params.AppendJSON(nil))
	}
	if newest := s.newest(); newest.Seq != 1 || string(newest.Parent) != first["commit"] {
		t.Errorf("newest commit: %+v", newest.Commit)
	}
}

func TestResumeTheNewestThatIsNotFinished(t *testing.T) {
	dir := newProject(t)
	begin := func(fields map[string]any, end string) replicate.ID {
		t.Helper()
		r := start(t, dir)
		id := r.init(fields)
		if end != "" {
			r.call("end", map[string]any{"status": end})
		}
		r.close()
		return id
	}
	again := map[string]any{"resume": true}
	crashed := begin(again, "") // nothing to resume: a new one
	if got := begin(again, "terminated"); got != crashed {
		t.Errorf("got %s, want the crashed %s", got, crashed)
	}
	if got := begin(map[string]any{"resume": true, "argv": []string{"other"}}, ""); got == crashed {
		t.Error("another command resumed it")
	}
	if got := begin(again, "finished"); got != crashed {
		t.Errorf("got %s, want the terminated %s", got, crashed)
	}
	if got := begin(again, ""); got == crashed {
		t.Error("a finished experiment was resumed")
	}
}

func TestJoin(t *testing.T) {
	dir := newProject(t)
	owner := start(t, dir)
	id := owner.init(map[string]any{"params": map[string]any{"lr": 1}})

	guest := start(t, dir)
	guest.init(map[string]any{"params": map[string]any{"depth": 3}, "env": map[string]string{joinVariable: string(id)}})
	guest.call("commit", map[string]any{"step": 3})
	guest.call("end", map[string]any{"status": "failed", "exit_code": 9, "traceback": "KeyError: 'x'"})
	guest.close()
	if s := recorded(t, dir, id); s.row.Status != "" || s.row.Failure == nil || s.row.Failure.Type != "KeyError" {
		t.Errorf("a guest ended it: %s, %+v", s.row.Status, s.row.Failure)
	}

	killed := start(t, dir)
	killed.init(map[string]any{"env": map[string]string{joinVariable: string(id)}})
	killed.close()
	if s := recorded(t, dir, id); s.row.Status != "" {
		t.Errorf("the end of a guest ended it: %s", s.row.Status)
	}

	if c := owner.call("commit", map[string]any{"if_changed": true}); c["commit"] != "" {
		t.Errorf("a commit though nothing changed since the guest's: %v", c)
	}
	write(t, filepath.Join(dir, "new"), "x")
	if c := owner.call("commit", map[string]any{"if_changed": true}); c["step"] != 4.0 {
		t.Errorf("no commit though a file is new: %v", c)
	}
	owner.call("end", map[string]any{"exit_code": 0})
	owner.close()
	s := recorded(t, dir, id)
	if s.row.Status != replicate.Finished || string(s.row.Params.AppendJSON(nil)) != `{"lr":1,"depth":3}` || len(s.commits) != 2 {
		t.Errorf("got %s, %s, %d commits", s.row.Status, s.row.Params.AppendJSON(nil), len(s.commits))
	}

	late := start(t, dir)
	err := late.client.Call("init", map[string]any{"cwd": dir, "env": map[string]string{joinVariable: string(id)}}, nil)
	if replicate.KindOf(err) != replicate.Usage || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("joining a finished experiment: %v", err)
	}
	late.close()
}

func TestParentIsWhatWasCheckedOut(t *testing.T) {
	dir := newProject(t)
	r := start(t, dir)
	id := r.init(map[string]any{"metric": []string{"loss", "minimize"}})
	best := r.call("commit", map[string]any{"metrics": map[string]any{"loss": 1}})["commit"].(string)
	worse := r.call("commit", map[string]any{"metrics": map[string]any{"loss": 2}})["commit"].(string)
	r.call("end", nil)
	r.close()

	write(t, filepath.Join(dir, ".replicate", "checkout"), `{"commit":"`+worse+`","at":"2026-11-23T10:00:00Z"}`)
	for _, tt := range []struct {
		name, given, want string
	}{{"checked out", "", worse}, {"prefix", best[:8], best}, {"an experiment is its best commit", string(id), best}} {
		t.Run(tt.name, func(t *testing.T) {
			r := start(t, dir)
			id := r.init(map[string]any{"parent": tt.given})
			r.call("end", nil)
			r.close()
			if got := recorded(t, dir, id).row.Experiment.Parent; string(got) != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestDetachedRecorderLeavesAfterStop(t *testing.T) {
	dir := newProject(t)
	shell := exec.Command("sleep", "1000")
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = shell.Process.Kill(); _ = shell.Wait() }()
	begin := func() (*run, replicate.ID) {
		r := start(t, dir)
		r.call("hello", map[string]any{"protocol": 1, "pid": shell.Process.Pid, "detached": true})
		id := replicate.ID(r.call("init", map[string]any{"cwd": dir})["experiment"].(string))
		r.to.Close()
		return r, id
	}
	stopped, id := begin()
	s, err := Join(t.Context(), string(id[:8]), dir, withTell(t))
	if err != nil {
		t.Fatal(err)
	}
	s.Log(repository.Point{Step: 1, Time: time.Now(), Metrics: replicate.Values{{Name: "loss", Value: replicate.Float(1)}}})
	code := 3
	if err := s.Stop(t.Context(), replicate.Failed, &code); err != nil {
		t.Fatal(err)
	}
	if err := <-stopped.served; err != nil {
		t.Fatal(err)
	}
	if e := recorded(t, dir, id).row; e.Status != replicate.Failed || *e.ExitCode != 3 {
		t.Errorf("after stop: %s", e.Status)
	}
	if len(points(t, dir, id)) != 1 {
		t.Error("the point is lost")
	}

	left, id := begin()
	_ = shell.Process.Kill()
	_ = shell.Wait()
	if err := <-left.served; err != nil {
		t.Fatal(err)
	}
	if e := recorded(t, dir, id).row; e.Status != replicate.Crashed {
		t.Errorf("after the death of the shell: %s", e.Status)
	}
}

func withTell(t testing.TB) Options {
	o := testOptions()
	o.Tell = func(r Remark) { t.Logf("told: %+v", r) }
	return o
}

func TestFindExperiment(t *testing.T) {
	dir := newProject(t)
	r := start(t, dir)
	id := r.init(map[string]any{"name": "one"})
	r.call("end", nil)
	r.close()
	repo := open(t, dir)
	for _, ref := range []string{string(id), string(id[:1]), "one"} {
		if s, err := findExperiment(t.Context(), repo, ref); err != nil || s.row.ID != id {
			t.Errorf("%s: %v", ref, err)
		}
	}
	for _, ref := range []string{"", "two", strings.Repeat("0", 32)} {
		if _, err := findExperiment(t.Context(), repo, ref); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q: %v", ref, err)
		}
	}
	s := &standing{row: repository.ExperimentRow{Experiment: replicate.Experiment{ID: id}}}
	if _, err := only("x", []*standing{s, s}); replicate.KindOf(err) != replicate.Ambiguous || replicate.HintOf(err) == "" {
		t.Errorf("two: %v", err)
	}
}
