package job

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// ready waits until the job has printed something.
func (r *run) ready() *run {
	r.t.Helper()
	waitFor(r.t, "ready", func() bool { return text(r.log(), Stdout) != "" })
	return r
}

// ask asks the supervisor for something.
func (r *run) ask(s Signal) {
	r.t.Helper()
	if _, err := Control(r.t.Context(), r.dir, Request{Op: OpSignal, Signal: s}); err != nil {
		r.t.Fatal(err)
	}
}

// saved looks that a job had the time to save its work.
func (r *run) saved() {
	r.t.Helper()
	if got := text(r.log(), Stdout); got != "ready\nsaved\n" {
		r.t.Errorf("it printed %q", got)
	}
}

func TestAStoppedJobEnds(t *testing.T) {
	const stubborn = `trap '' TERM INT; echo ready; while :; do sleep 1; done`
	const polite = `trap 'echo bye; exit 5' TERM; echo ready; while :; do sleep 0.01; done`
	for name, tt := range map[string]struct {
		script string
		grace  time.Duration
		stop   func(*run)
		status replicate.Status
		code   int
	}{
		"by TERM":                 {`echo ready; exec sleep 60`, 0, func(r *run) { r.ask(Stop) }, replicate.Terminated, 143},
		"by INT":                  {`echo ready; exec sleep 60`, 0, func(r *run) { r.ask(Interrupt) }, replicate.Interrupted, 130},
		"by a signal from Docker": {`echo ready; exec sleep 60`, 0, func(r *run) { _ = r.cmd.Process.Signal(syscall.SIGTERM) }, replicate.Terminated, 143},
		"by itself":               {polite, 0, func(r *run) { r.ask(Stop) }, replicate.Terminated, 5},
		"when all of it has":      {`sh -c 'trap "sleep 0.2; echo saved; exit" TERM; echo ready; while :; do sleep 0.01; done'; exit 1`, 0, func(r *run) { r.ask(Stop); r.wait(); r.saved() }, replicate.Terminated, 143},
		"by KILL after the grace": {stubborn, 50 * time.Millisecond, func(r *run) { r.ask(Stop) }, replicate.Terminated, 137},
		"at once the second time": {stubborn, time.Hour, func(r *run) { r.ask(Stop); r.ask(Stop) }, replicate.Terminated, 137},
		"at once by kill":         {stubborn, time.Hour, func(r *run) { r.ask(Kill) }, replicate.Terminated, 137},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := shell(tt.script)
			spec.Grace, spec.Retries = Duration(tt.grace), 3 // which a stop ends too
			r := supervise(t, t.TempDir()).give(spec, Secrets{}).ready()
			tt.stop(r)
			if code := r.wait(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if state := r.state(); state.Status != tt.status || state.Attempt != 1 {
				t.Errorf("state %+v", state)
			}
		})
	}
}

// TestNothingOfAJobOutlivesIt has a job with a child and a grandchild that ignore TERM; each writes its pid.
func TestNothingOfAJobOutlivesIt(t *testing.T) {
	for name, end := range map[string]string{"that ends": ``, "that is stopped": `trap 'exit 1' TERM; while :; do sleep 0.01; done`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := shell(`(trap '' TERM; sh -c 'echo $$; : >child; exec sleep 60' & echo $$; : >parent; exec sleep 60) &
				until [ -e child ] && [ -e parent ]; do sleep 0.01; done; ` + end)
			spec.Cwd = t.TempDir()
			spec.Grace = Duration(50 * time.Millisecond)
			r := supervise(t, t.TempDir()).give(spec, Secrets{})
			waitFor(t, "ready", func() bool { return strings.Count(text(r.log(), Stdout), "\n") == 2 })
			if strings.HasPrefix(end, "trap") {
				r.ask(Stop)
			}
			r.wait()
			for _, line := range strings.Fields(text(r.log(), Stdout)) {
				pid, err := strconv.Atoi(line)
				if err != nil {
					t.Fatal(err)
				}
				if err := syscall.Kill(pid, 0); err == nil && pid != r.cmd.Process.Pid {
					if state, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); bytes.Contains(state, []byte("(sleep)")) && !bytes.Contains(state, []byte(") Z ")) {
						t.Errorf("process %d lives: %s", pid, state)
					}
				}
			}
		})
	}
}

func TestAJobIsTriedAgain(t *testing.T) {
	spec := shell(`echo attempt $REPLICATE_ATTEMPT; test $REPLICATE_ATTEMPT = 3`)
	spec.Retries = 5
	r := supervise(t, t.TempDir()).give(spec, Secrets{})
	if code := r.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := text(r.log(), Stdout); got != "attempt 1\nattempt 2\nattempt 3\n" {
		t.Errorf("it printed %q", got)
	}
	spec.Argv[2], spec.Retries = `echo again; exit 7`, 1
	r = supervise(t, t.TempDir()).give(spec, Secrets{})
	if code := r.wait(); code != 7 || text(r.log(), Stdout) != "again\nagain\n" {
		t.Errorf("exit code %d after %q", code, text(r.log(), Stdout))
	}
}

func TestATimeoutEndsAllAttempts(t *testing.T) {
	spec := shell(`echo $REPLICATE_ATTEMPT; exit 1`)
	spec.Retries, spec.Timeout = 1000000, Duration(200*time.Millisecond)
	r := supervise(t, t.TempDir()).give(spec, Secrets{})
	if code := r.wait(); code != ExitTimeout || r.state().Status != replicate.Terminated {
		t.Errorf("exit code %d, state %+v", code, r.state())
	}
}

// TestSecretsAreInNoFile has a job that knows its own secret, and a value for the storage that it must not see.
func TestSecretsAreInNoFile(t *testing.T) {
	spec := shell(`echo ready; test ${#HF_TOKEN} = 8 && test -z "$AWS_SECRET_ACCESS_KEY" && test -z "$OTHER"`)
	spec.Env, spec.Secrets = []string{"HF_TOKEN"}, true
	r := supervise(t, t.TempDir()).give(spec, Secrets{
		Env:     map[string]string{"HF_TOKEN": "planted1", "OTHER": "planted3"},
		Storage: map[string]string{"AWS_SECRET_ACCESS_KEY": "planted2"},
	})
	if code := r.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	err := filepath.WalkDir(r.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		content, err := os.ReadFile(path)
		if bytes.Contains(content, []byte("planted")) {
			t.Errorf("%s holds a secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestAJobOfADeadSupervisorWaitsForItsSecrets(t *testing.T) {
	spec := shell(`echo $HF_TOKEN; test $REPLICATE_ATTEMPT = 2 || exec sleep 60`)
	spec.Env, spec.Secrets, spec.Retries = []string{"HF_TOKEN"}, true, 1
	r := supervise(t, t.TempDir()).give(spec, Secrets{Env: map[string]string{"HF_TOKEN": "one"}}).ready()
	r.kill()
	r = supervise(t, r.dir)
	r.until("waiting", func(s State) bool { return s.Phase == Waiting && s.Reason == ReasonSecrets })
	if _, err := Control(t.Context(), r.dir, Request{Op: OpSecrets, Secrets: &Secrets{Env: map[string]string{"HF_TOKEN": "two"}}}); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(); code != 0 || text(r.log(), Stdout) != "one\ntwo\n" {
		t.Errorf("exit code %d after %q", code, text(r.log(), Stdout))
	}
}

func TestAWaitingJobCanBeStopped(t *testing.T) {
	spec := shell(`echo $HF_TOKEN`)
	spec.Secrets = true
	text, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, specName), text, 0o600); err != nil {
		t.Fatal(err)
	}
	r := supervise(t, dir)
	r.until("waiting", func(s State) bool { return s.Phase == Waiting })
	r.ask(Stop)
	if code := r.wait(); code != 143 || r.state().Status != replicate.Terminated || r.state().Attempt != 0 {
		t.Errorf("exit code %d, state %+v", code, r.state())
	}
}

func TestASupervisorWithoutAJobCanBeStopped(t *testing.T) {
	r := supervise(t, t.TempDir())
	r.until("begun", func(s State) bool { return s.Phase == Preparing })
	waitFor(t, "asked", func() bool {
		_, err := Control(t.Context(), r.dir, Request{Op: OpSignal, Signal: Stop})
		return err == nil
	})
	if code := r.wait(); code != 143 || r.state().Phase != Exited {
		t.Errorf("exit code %d, state %+v", code, r.state())
	}
}

// TestNewerClientsAreUnderstood sends what this version does not know.
func TestNewerClientsAreUnderstood(t *testing.T) {
	r := supervise(t, t.TempDir())
	if _, err := io.WriteString(r.stdin, "\n{\"replicate\":9,\"later\":1,\"job\":{\"argv\":[\"sh\",\"-c\",\"echo ready; exec sleep 60\"],\"later\":[]}}\n"); err != nil {
		t.Fatal(err)
	}
	r.ready()
	for _, request := range []Request{{Op: "later"}, {Op: OpSignal, Signal: "later"}, {Op: OpSecrets}} {
		if _, err := Control(t.Context(), r.dir, request); replicate.KindOf(err) != replicate.Usage {
			t.Errorf("%+v: %v", request, err)
		}
	}
	r.ask(Kill)
	if code := r.wait(); code != 137 {
		t.Errorf("exit code %d", code)
	}
}

func TestTheJobsEnvironment(t *testing.T) {
	id := replicate.ID("274a9ec0000000000000000000000001")
	spec := Spec{
		Experiment: id, Argv: []string{"sh", "-c", `env; readlink /proc/self/fd/0; trap`}, Cwd: "/", Record: true, User: "ann", Host: "gpu1",
		Storage: "s3://b/p", GPUs: "none",
	}
	r := supervise(t, t.TempDir()).give(spec, Secrets{})
	r.wait()
	got := "\n" + text(r.log(), Stdout)
	for _, want := range []string{
		"REPLICATE_EXPERIMENT_ID=" + string(id), "REPLICATE_USER=ann", "REPLICATE_HOST=gpu1", "REPLICATE_STORAGE=s3://b/p", "REPLICATE_EXIT_WAIT=0",
		"REPLICATE_ATTEMPT=1", "PYTHONUNBUFFERED=1", "PWD=/", "CUDA_VISIBLE_DEVICES=", "/dev/null",
	} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("%q is not in %s", want, got)
		}
	}
}

// TestAProgressBarIsThereAtOnce reads a line without its end while the job waits for the reader.
func TestAProgressBarIsThereAtOnce(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	r := supervise(t, t.TempDir()).give(Spec{Argv: []string{"sh", "-c", `printf '\r10%%'; cat ` + fifo + `; printf '\r20%%'`}, Cwd: "/"}, Secrets{})
	waitFor(t, "shown", func() bool { return text(r.log(), Stdout) == "\r10%" })
	if err := os.WriteFile(fifo, nil, 0); err != nil {
		t.Fatal(err)
	}
	r.wait()
	if got := text(r.log(), Stdout); got != "\r10%\r20%" {
		t.Errorf("%q", got)
	}
}

// TestAFrozenReaderDoesNotHoldUpTheJob never reads the supervisor's stdout, which is a pipe, nor a follower's.
func TestAFrozenReaderDoesNotHoldUpTheJob(t *testing.T) {
	dir := t.TempDir()
	r := superviseTo(t, dir, mustPipe(t)).give(shell(`head -c 20000000 /dev/zero`), Secrets{})
	if code := r.wait(); code != 0 || len(text(r.log(), Stdout)) != 20000000 {
		t.Errorf("exit code %d, %d bytes", code, len(text(r.log(), Stdout)))
	}
}

func mustPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return w
}

func TestStdoutHasTheFirstFrames(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := superviseTo(t, t.TempDir(), w).give(shell(`echo first; head -c 1000000 /dev/zero`), Secrets{})
	w.Close()
	echoed, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	frames := readAll(t, NewFrameReader(bytes.NewReader(echoed), 0))
	if got := text(frames, Stdout); !strings.HasPrefix(got, "first\n") || len(echoed) > 256<<10 {
		t.Errorf("%d bytes, which begin with %.20q", len(echoed), got)
	}
	s.wait()
}

// TestKilledSupervisorsLeaveAWholeLog kills supervisor and job at random moments and starts again, until the job has ended.
func TestKilledSupervisorsLeaveAWholeLog(t *testing.T) {
	dir := t.TempDir()
	const attempts = 12
	spec := shell(fmt.Sprintf(`i=0; while [ $i -lt 2000 ]; do echo "$REPLICATE_ATTEMPT $i"; i=$((i+1)); done; exit $((REPLICATE_ATTEMPT == %d ? 0 : 9))`, attempts))
	spec.Retries = attempts - 1
	rng := rand.New(rand.NewPCG(1, 2))
	r := supervise(t, dir).give(spec, Secrets{})
	for range 8 {
		at := r.length() + rng.Int64N(20000)
		waitFor(t, "far enough", func() bool { return r.length() >= at || isClosed(r.ended) })
		r.kill()
		if state, err := Asked(t.Context(), dir); err == nil && !state.Ended() {
			t.Errorf("a job without supervisor is %+v", state)
		}
		r = supervise(t, dir).give(spec, Secrets{})
	}
	code := r.wait()
	frames := r.log()
	next := int64(0)
	for _, f := range frames {
		if f.Offset != next {
			t.Fatalf("a frame at %d, expected at %d", f.Offset, next)
		}
		next = f.End()
	}
	note, err := ParseNote(frames[len(frames)-1].Data)
	if err != nil || note.End == nil || note.End.ExitCode != code || r.state().ExitCode != code {
		t.Errorf("exit code %d, and the log ends with %s", code, frames[len(frames)-1].Data)
	}
	if again := supervise(t, dir).wait(); again != code {
		t.Errorf("started again after the end it exits with %d, not %d", again, code)
	}
}

// TestAnEndNeverChanges kills supervisors about when their jobs end. Whatever was said of the end before, in the log or in the state, holds.
func TestAnEndNeverChanges(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		r := supervise(t, t.TempDir()).give(shell(`echo ready; exit 3`), Secrets{}).ready()
		time.AfterFunc(time.Duration(rng.Int64N(int64(15*time.Millisecond))), func() { _ = r.cmd.Process.Kill() })
		<-r.ended
		said := 0
		if state := r.state(); state.Ended() {
			said = state.ExitCode
		}
		for _, f := range r.log() {
			if note, err := ParseNote(f.Data); f.Stream == Notes && err == nil && note.End != nil {
				said = note.End.ExitCode
			}
		}
		if said != 0 && said != 3 {
			t.Errorf("it ended with %d", said)
		}
		code := supervise(t, r.dir).wait()
		if code != 3 && (said != 0 || code != 137) || r.state().ExitCode != code {
			t.Errorf("%d was said, the next supervisor says %d, the state %d", said, code, r.state().ExitCode)
		}
	}
}

// length is how long the log is.
func (r *run) length() int64 {
	frames := r.log()
	if len(frames) == 0 {
		return 0
	}
	return frames[len(frames)-1].End()
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestAJobDiesWithItsSupervisor and is not tried again unless that was asked for.
func TestAJobDiesWithItsSupervisor(t *testing.T) {
	r := supervise(t, t.TempDir()).give(shell(`echo $$; exec sleep 60`), Secrets{}).ready()
	pid, err := strconv.Atoi(strings.TrimSpace(text(r.log(), Stdout)))
	if err != nil {
		t.Fatal(err)
	}
	r.kill()
	waitFor(t, "dead", func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || bytes.Contains(state, []byte(") Z "))
	})
	state, err := Asked(t.Context(), r.dir)
	if err != nil || state.Status != replicate.Crashed || state.Phase != Exited {
		t.Errorf("%+v, %v", state, err)
	}
	if code := supervise(t, r.dir).wait(); code != 137 {
		t.Errorf("exit code %d", code)
	}
}

// TestKilledAttemptsCount also when a supervisor that waits for secrets is killed.
func TestKilledAttemptsCount(t *testing.T) {
	spec := shell(`echo ready; exec sleep 60`)
	spec.Env, spec.Secrets, spec.Retries = []string{"K"}, true, 1
	dir := t.TempDir()
	for range 2 {
		r := supervise(t, dir).give(spec, Secrets{Env: map[string]string{"K": "v"}})
		r.until("running", func(s State) bool { return s.Phase == Running })
		r.kill()
		r = supervise(t, dir)
		if r.state().Attempt == 1 {
			r.until("waiting", func(s State) bool { return s.Phase == Waiting })
			r.kill()
		} else if code := r.wait(); code != 137 {
			t.Errorf("exit code %d", code)
		}
	}
	if state, err := ReadState(os.DirFS(dir)); err != nil || state.Attempt != 2 || state.Status != replicate.Crashed || state.Phase != Exited {
		t.Errorf("%+v, %v", state, err)
	}
}

// TestAnEndThatOnlyTheLogKnowsIsKept has a supervisor that was killed between the two.
func TestAnEndThatOnlyTheLogKnowsIsKept(t *testing.T) {
	r := supervise(t, t.TempDir()).give(shell(`exit 3`), Secrets{})
	r.wait()
	if err := replace(filepath.Join(r.dir, statusName), State{Phase: Running, Attempt: 1}); err != nil {
		t.Fatal(err)
	}
	if code := supervise(t, r.dir).wait(); code != 3 || r.state().ExitCode != 3 {
		t.Errorf("exit code %d, state %+v", code, r.state())
	}
}

func TestADirectoryHasOneSupervisor(t *testing.T) {
	r := supervise(t, t.TempDir()).give(shell(`echo ready; exec sleep 60`), Secrets{}).ready()
	code, err := Supervise(t.Context(), Options{Dir: r.dir, Locks: t.TempDir(), Stdin: strings.NewReader(""), Now: time.Now})
	if code != ExitBroken || replicate.KindOf(err) != replicate.Conflict {
		t.Errorf("%d, %v", code, err)
	}
}

func TestLocalRunsAJob(t *testing.T) {
	id := replicate.ID("274a9ec0000000000000000000000001")
	deep := filepath.Join(t.TempDir(), strings.Repeat("a-long-name/", 12)) // longer than the path of a socket may be
	local := &Local{Runs: deep, Supervisor: []string{os.Args[0]}, Env: append(os.Environ(), asSupervisor+"=local")}
	ctx := t.Context()
	spec := shell(`echo $GREETING; exec sleep 60`)
	spec.Experiment, spec.Env, spec.Secrets = id, []string{"GREETING"}, true
	for range 2 { // the second time it is there
		if err := local.Start(ctx, id, spec, Secrets{Env: map[string]string{"GREETING": "hello"}}); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { _ = local.Signal(context.Background(), id, Kill) })
	follow, err := local.Logs(ctx, id, 0, true)
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close()
	frames := NewFrameReader(follow, 0)
	for {
		f, err := frames.Next()
		if err != nil {
			t.Fatal(err)
		}
		if f.Stream == Stdout {
			if string(f.Data) != "hello\n" {
				t.Errorf("it printed %q", f.Data)
			}
			break
		}
	}
	states, err := local.Status(ctx)
	if err != nil || len(states) != 1 || states[0].Phase != Running || states[0].Experiment != id || states[0].Log == 0 {
		t.Errorf("%+v, %v", states, err)
	}
	if err := local.Remove(ctx, id); replicate.KindOf(err) != replicate.Conflict {
		t.Errorf("a living job is removed: %v", err)
	}
	if err := local.Signal(ctx, id, Stop); err != nil {
		t.Fatal(err)
	}
	rest := readAll(t, frames)
	if note, err := ParseNote(rest[len(rest)-1].Data); err != nil || note.End == nil || note.End.Status != replicate.Terminated {
		t.Errorf("the log ends with %+v, %v", note, err)
	}
	waitFor(t, "ended", func() bool { return !alive(local.Dir(id)) })
	if err := local.Signal(ctx, id, Stop); err != nil {
		t.Errorf("a job that has ended: %v", err)
	}
	if states, err := local.Status(ctx, id, replicate.ID("f"+id[1:])); err != nil || len(states) != 1 || states[0].ExitCode != 143 {
		t.Errorf("%+v, %v", states, err)
	}
	if err := local.Remove(ctx, id); err != nil {
		t.Error(err)
	}
}
