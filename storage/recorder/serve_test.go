package recorder

import (
	"context"
	"crypto/rand"
	"encoding/json"
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
	return startWith(t, dir, testOptions())
}

func startWith(t testing.TB, dir string, o Options) *run {
	t.Helper()
	r := &run{t: t, dir: dir, served: make(chan error, 1)}
	in, to := pipe(t)
	from, out := pipe(t)
	r.to = to
	r.client = NewClient(to, from, r.told)
	go func() {
		r.served <- Serve(context.Background(), in, out, o)
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

// streamOf returns a stream of an experiment.
func streamOf(t testing.TB, dir string, id replicate.ID, kind repository.StreamKind) *repository.Stream {
	t.Helper()
	repo := open(t, dir)
	var rows []repository.StreamRow
	for batch, err := range repo.Sync(t.Context(), func(string) bool { return false }) {
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range batch.Records {
			if r.Stream != nil && r.Stream.Experiment == id && r.Stream.Stream == kind {
				rows = append(rows, *r.Stream)
			}
		}
	}
	return repo.Stream(rows)
}

// points reads all points of an experiment.
func points(t testing.TB, dir string, id replicate.ID) []repository.Point {
	t.Helper()
	var all []repository.Point
	for p, err := range streamOf(t, dir, id, repository.MetricsStream).Points(t.Context()) {
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
	looked(t, open(t, dir), id) // the end waits a moment only
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

// TestKilledClient kills clients whose child holds the pipe open: the end must be seen within a second all the same, by the fastest of some, as others
// want the machine too.
func TestKilledClient(t *testing.T) {
	var took []time.Duration
	for len(took) == 0 || slices.Min(took) > time.Second {
		if took = append(took, killedClient(t)); len(took) > 10 {
			t.Fatalf("it took %v", took)
		}
	}
}

// killedClient returns how long it took to see the end of one.
func killedClient(t *testing.T) (took time.Duration) {
	t.Helper()
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
	took = time.Since(killed)
	if s := recorded(t, dir, answer.Experiment); s.row.Status != replicate.Crashed {
		t.Errorf("status %s", s.row.Status)
	}
	if got := points(t, dir, answer.Experiment); len(got) != 2000 {
		t.Errorf("%d of 2000 points", len(got))
	}
	return took
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
	if err := r.to.SetWriteDeadline(time.Now().Add(time.Minute)); err != nil {
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
