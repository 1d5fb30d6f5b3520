package recorder

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	_ "github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/repository"
)

// A run is a recorder at work over two pipes, and the project it records.
type run struct {
	t       testing.TB
	dir     string
	client  *Client
	to      *os.File // the client's end
	served  chan error
	mu      sync.Mutex // guards remarks
	remarks []Remark
}

// newProject makes a folder with a script, which is its own project root.
func newProject(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "replicate.yaml"), "")
	write(t, filepath.Join(dir, "train.py"), "print(1)\n")
	return dir
}

// start starts a recorder for the project in dir.
func start(t testing.TB, dir string) *run {
	t.Helper()
	r := &run{t: t, dir: dir, served: make(chan error, 1)}
	in, to := pipe(t)
	from, out := pipe(t)
	r.to = to
	r.client = NewClient(to, from, r.told)
	go func() {
		r.served <- Serve(context.Background(), in, out, testOptions())
		out.Close()
	}()
	return r
}

func testOptions() Options {
	return Options{Now: time.Now, Random: rand.Reader, Env: map[string]string{"HOME": "/nonexistent"}}
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

func (r *run) told(remark Remark) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.remarks = append(r.remarks, remark)
}

// call fails the test if the recorder refuses.
func (r *run) call(op string, fields map[string]any) map[string]any {
	r.t.Helper()
	var answer map[string]any
	if err := r.client.Call(op, fields, &answer); err != nil {
		r.t.Fatalf("%s: %v", op, err)
	}
	return answer
}

// init says hello and begins an experiment with fields beside what every client sends.
func (r *run) init(fields map[string]any) replicate.ID {
	r.t.Helper()
	r.call("hello", map[string]any{"protocol": 1, "client": "test", "pid": os.Getpid()})
	all := map[string]any{"cwd": r.dir, "argv": []string{"python", "train.py"}}
	maps.Copy(all, fields)
	return replicate.ID(r.call("init", all)["experiment"].(string))
}

// close ends the pipe and waits for the recorder.
func (r *run) close() {
	r.t.Helper()
	r.to.Close()
	if err := <-r.served; err != nil {
		r.t.Fatalf("serve: %v", err)
	}
}

// open opens the repository of a project.
func open(t testing.TB, dir string) *repository.Repository {
	t.Helper()
	store, err := storage.Open(t.Context(), "file://"+filepath.Join(dir, ".replicate", "storage"))
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return repo
}

// recorded reads what is stored of an experiment.
func recorded(t testing.TB, dir string, id replicate.ID) *standing {
	t.Helper()
	s, err := findExperiment(t.Context(), open(t, dir), string(id))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// points reads all points of an experiment.
func points(t testing.TB, dir string, id replicate.ID) []repository.Point {
	t.Helper()
	repo := open(t, dir)
	var rows []repository.StreamRow
	for batch, err := range repo.Sync(t.Context(), func(string) bool { return false }) {
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range batch.Records {
			if r.Stream != nil && r.Stream.Experiment == id && r.Stream.Stream == repository.MetricsStream {
				rows = append(rows, *r.Stream)
			}
		}
	}
	var all []repository.Point
	for p, err := range repo.Stream(rows).Points(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	return all
}

func TestOneRun(t *testing.T) {
	dir := newProject(t)
	r := start(t, dir)
	id := r.init(map[string]any{
		"params": json.RawMessage(`{"lr":0.1,"n":9007199254740993,"api_key":"abcdefgh","x":"NaN"}`), "name": "trial", "tags": []string{"b", "a", "b"},
		"metric": []string{"loss", "min"}, "argv": []string{"python", "train.py", "--password=x"},
		"env": map[string]string{"RANK": "0", "REPLICATE_USER": "dev", "REPLICATE_HOST": "gpu1", "SECRET": "s"},
		"python": map[string]any{"version": "3.11.7", "executable": "/usr/bin/python3", "path": []string{
			site(t, map[string]string{"six-1.16.dist-info/METADATA": "Name: six\nVersion: 1.16\n"}),
		}},
	})
	for i := range 3 {
		if err := r.client.Post("log", map[string]any{"step": i, "metrics": json.RawMessage(fmt.Sprintf(`{"loss":%d.5}`, 3-i))}); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(dir, "model"), "weights")
	c := r.call("commit", map[string]any{"step": 2, "metrics": json.RawMessage(`{"loss":0.5}`), "message": "m", "modules": []string{"six", "os"}})
	if c["files"] != 3.0 || c["step"] != 2.0 {
		t.Errorf("commit: got %v", c)
	}
	c = r.call("commit", map[string]any{"metrics": json.RawMessage(`{"loss":0.25}`), "cells": "x = 1"})
	if c["step"] != 3.0 || c["files"] != 4.0 {
		t.Errorf("second commit: got %v", c)
	}
	if err := r.client.Post("set", map[string]any{"tags": []string{"c"}, "note": "n"}); err != nil {
		t.Fatal(err)
	}
	r.call("end", map[string]any{"status": "failed", "exit_code": 1, "traceback": "Traceback (most recent call last):\n  File x\nValueError: bad: thing\n"})
	r.close()

	s := recorded(t, dir, id)
	e := s.row.Experiment
	want := `{"lr":0.1,"n":9007199254740993,"api_key":"(masked)","x":"NaN"}`
	if got := string(e.Params.AppendJSON(nil)); got != want {
		t.Errorf("params: got %s, want %s", got, want)
	}
	if got := strings.Join(e.Command, " "); got != "python train.py --password=(masked)" {
		t.Errorf("command: %s", got)
	}
	if e.Name != "trial" || e.User != "dev" || e.Host != "gpu1" || e.Directory != dir || e.Note != "n" || !slices.Equal(e.Tags, []string{"a", "b", "c"}) {
		t.Errorf("got %+v", e)
	}
	if e.Metric == nil || *e.Metric != (replicate.Metric{Name: "loss", Goal: replicate.Minimize}) {
		t.Errorf("metric: %v", e.Metric)
	}
	if got := string(e.Environment.AppendJSON(nil)); got != `{"RANK":"0"}` {
		t.Errorf("environment: %s", got)
	}
	if e.Status != replicate.Failed || e.ExitCode == nil || *e.ExitCode != 1 || e.Ended.IsZero() ||
		e.Failure == nil || e.Failure.Type != "ValueError" || e.Failure.Message != "bad: thing" {
		t.Errorf("end: %v %v %v %+v", e.Status, e.ExitCode, e.Ended, e.Failure)
	}
	if e.Machine == nil || e.Machine.Cores < 1 {
		t.Errorf("machine: %+v", e.Machine)
	}
	if e.Python == nil || e.Python.Packages["six"] != "1.16" || !slices.Equal(e.Python.Imported, []string{"six"}) {
		t.Errorf("python: %+v", e.Python)
	}
	if len(s.commits) != 2 || s.newest().Step != 3 {
		t.Errorf("commits: %+v", s.commits)
	}
	if got := points(t, dir, id); len(got) != 5 || got[4].Commit != s.newest().ID {
		t.Errorf("points: %+v", got)
	}
}

func TestRefusals(t *testing.T) {
	r := start(t, newProject(t))
	refused := func(op string, fields map[string]any, kind replicate.Kind, text string) {
		t.Helper()
		err := r.client.Call(op, fields, nil)
		if replicate.KindOf(err) != kind || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got %v (%s), want %q (%s)", op, err, replicate.KindOf(err), text, kind)
		}
	}
	refused("hello", map[string]any{"protocol": 0}, replicate.Usage, "protocol 0")
	refused("commit", nil, replicate.Usage, "before init")
	refused("frobnicate", nil, replicate.Usage, "unknown operation")
	refused("init", map[string]any{"cwd": r.dir, "metric": []string{"loss", "down"}}, replicate.Usage, `unknown goal "down"`)
	refused("init", map[string]any{"cwd": r.dir, "resume": "abc"}, replicate.NotFound, "abc")
	refused("init", map[string]any{"cwd": "/no/such/place"}, replicate.NotFound, "/no/such/place")
	write(t, filepath.Join(r.dir, "replicate.yaml"), "metric: x\n")
	refused("init", map[string]any{"cwd": r.dir}, replicate.Usage, "replicate.yaml:1")
	write(t, filepath.Join(r.dir, "replicate.yaml"), "")
	r.init(nil)
	refused("init", map[string]any{"cwd": r.dir}, replicate.Usage, "init while")
	refused("commit", map[string]any{"step": 1.5}, replicate.Usage, "1.5")
	refused("end", map[string]any{"status": "happy"}, replicate.Usage, "happy")
	r.call("end", nil)
	refused("commit", nil, replicate.Usage, "after end")
	r.close()
}

func TestGarbageIsSurvived(t *testing.T) {
	dir := newProject(t)
	r := start(t, dir)
	id := r.init(nil)
	for _, line := range []string{
		"", "x", "{", "[]", "null", `{"op":"log"}`, `{"op":"log","step":"a"}`, `{"op":"log","metrics":[1]}`, `{"op":"nonsense"}`,
		"\x00\x01\xff", `{"op":"log","step":1,"metrics":{"a":1},"what":{"is":"this"}}`, `{"op":"set","tags":[]}`,
		strings.Repeat("[", 100_000), `{"op":"log","step":2,"metrics":{"b":"` + strings.Repeat("z", 1<<20) + `"}}`,
	} {
		if _, err := r.to.WriteString(line + "\n"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.to.WriteString(`{"id":1,"x":"` + strings.Repeat("y", MaxLine) + `"}` + "\n"); err != nil {
		t.Fatal(err)
	}
	r.client.last = 0 // so that the answer to that line is the next one's
	if err := r.client.Call("commit", nil, nil); err == nil || !strings.Contains(err.Error(), "longer than 16 MiB") {
		t.Errorf("got %v", err)
	}
	r.close()
	s := recorded(t, dir, id)
	if got := points(t, dir, id); len(got) != 3 { // the empty one and two with metrics
		t.Errorf("%d points", len(got))
	}
	if s.row.Status != replicate.Crashed {
		t.Errorf("status %s", s.row.Status)
	}
	if len(r.remarks) == 0 {
		t.Error("nobody was warned")
	}
}

func TestEndOfThePipeIsACrash(t *testing.T) {
	dir := newProject(t)
	r := start(t, dir)
	id := r.init(nil)
	if err := r.client.Post("log", map[string]any{"step": 7, "metrics": map[string]any{"loss": 1}}); err != nil {
		t.Fatal(err)
	}
	r.close()
	if s := recorded(t, dir, id); s.row.Status != replicate.Crashed || s.row.Ended.IsZero() {
		t.Errorf("got %s", s.row.Status)
	}
	if got := points(t, dir, id); len(got) != 1 || got[0].Step != 7 {
		t.Errorf("points: %+v", got)
	}
}

// TestKilledClient kills a client whose child holds the pipe open: the end must be seen within a second all the same.
func TestKilledClient(t *testing.T) {
	dir := newProject(t)
	in, to := pipe(t)
	from, out := pipe(t)
	script := `printf '{"id":1,"op":"hello","protocol":1,"pid":%d}\n' $$ >&3
printf '{"id":2,"op":"init","cwd":"%s","argv":["x"]}\n' "$PWD" >&3
read hello <&4; read init <&4
sleep 1000 & printf '%s\n%s\n' $! "$init"
i=0; while [ $i -lt 2000 ]; do i=$((i+1)); printf '{"op":"log","step":%d,"metrics":{"loss":1.5}}\n' $i; done >&3
echo done; wait`
	client := exec.Command("sh", "-c", script)
	client.Dir = dir
	client.ExtraFiles = []*os.File{to, from}
	said, err := client.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	to.Close()
	from.Close()
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), in, out, testOptions()) }()

	var worker int
	var answer struct {
		Experiment replicate.ID `json:"experiment"`
	}
	var line string
	if _, err := fmt.Fscanln(said, &worker); err != nil {
		t.Fatal(err)
	}
	defer func() { // by its id: it is not our child
		if p, err := os.FindProcess(worker); err == nil {
			_ = p.Kill()
		}
	}()
	scan := json.NewDecoder(said)
	if err := scan.Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanln(scan.Buffered(), &line); err != nil {
		_, _ = fmt.Fscanln(said, &line)
	}
	killed := time.Now()
	if err := client.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = client.Wait()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
	if took := time.Since(killed); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if s := recorded(t, dir, answer.Experiment); s.row.Status != replicate.Crashed {
		t.Errorf("status %s", s.row.Status)
	}
	if got := points(t, dir, answer.Experiment); len(got) != 2000 {
		t.Errorf("%d of 2000 points", len(got))
	}
}

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

func TestPrimaryMetricStays(t *testing.T) {
	dir := newProject(t)
	write(t, filepath.Join(dir, "replicate.yaml"), "metrics:\n- {name: acc, goal: maximize, primary: true}\n")
	r := start(t, dir)
	id := r.init(nil)
	r.call("commit", map[string]any{"metric": []string{"acc", "max"}})
	r.call("commit", map[string]any{"metric": []string{"loss", "min"}})
	r.call("end", nil)
	r.close()
	if m := recorded(t, dir, id).row.Metric; m == nil || m.Name != "acc" {
		t.Errorf("got %v", m)
	}
	if !slices.ContainsFunc(r.remarks, func(r Remark) bool { return strings.Contains(r.Warning, "stays acc") }) {
		t.Errorf("no warning: %v", r.remarks)
	}
}

func TestPaths(t *testing.T) {
	dir := newProject(t)
	write(t, filepath.Join(dir, "foo.txt"), "1")
	r := start(t, dir)
	r.init(map[string]any{"path": []string{}})
	if c := r.call("commit", map[string]any{"path": filepath.Join(dir, "foo.txt")}); c["files"] != 1.0 {
		t.Errorf("one path: %v", c)
	}
	if c := r.call("commit", map[string]any{"path": []string{}}); c["files"] != 1.0 {
		t.Errorf("no path: %v", c)
	}
	if c := r.call("commit", map[string]any{"path": []string{"/etc/passwd"}}); c["files"] != 1.0 {
		t.Errorf("outside: %v", c)
	}
	if !slices.ContainsFunc(r.remarks, func(r Remark) bool { return strings.Contains(r.Warning, "outside") }) {
		t.Errorf("no warning: %v", r.remarks)
	}
	r.call("end", nil)
	r.close()
}

func TestHomeDirectoryIsNotSaved(t *testing.T) {
	home := t.TempDir()
	write(t, filepath.Join(home, "private"), "x")
	r := start(t, home)
	answer := map[string]any{}
	if err := r.client.Call("init", map[string]any{"cwd": home, "env": map[string]string{"HOME": home}}, &answer); err != nil {
		t.Fatal(err)
	}
	if answer["files"] != 0.0 || len(r.remarks) != 1 {
		t.Errorf("got %v, %v", answer, r.remarks)
	}
	r.call("end", nil)
	r.close()
}

// TestLogNeverWaits writes far more than a pipe holds while the recorder is busy: the lines are taken all the same.
func TestLogNeverWaits(t *testing.T) {
	dir := newProject(t)
	if err := os.WriteFile(filepath.Join(dir, "large"), make([]byte, 64<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	r := start(t, dir)
	id := r.init(map[string]any{"path": []string{}})
	if _, err := r.to.WriteString(`{"id":2,"op":"commit","path":"` + dir + `"}` + "\n"); err != nil {
		t.Fatal(err)
	}
	const n = 50_000
	var lines strings.Builder
	for i := range n {
		fmt.Fprintf(&lines, `{"op":"log","step":%d,"metrics":{"loss":0.25}}`+"\n", i)
	}
	if err := r.to.SetWriteDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.to.WriteString(lines.String()); err != nil {
		t.Fatal(err)
	}
	r.client.last = 2
	r.call("end", nil)
	r.close()
	if got := points(t, dir, id); len(got) != n {
		t.Errorf("%d points of %d", len(got), n)
	}
}

func TestNotesNeverBlock(t *testing.T) {
	_, w := pipe(t)
	o := &outlet{file: w}
	for range 5000 {
		o.remark(Remark{Warning: strings.Repeat("x", 5000)})
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
