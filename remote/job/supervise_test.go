package job

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// asSupervisor makes the test binary a supervisor of the directory that it names.
const asSupervisor = "JOB_TEST_SUPERVISOR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(asSupervisor); dir != "" {
		os.Exit(supervisorMain(dir))
	}
	os.Exit(m.Run())
}

func supervisorMain(dir string) int {
	os.Unsetenv(asSupervisor)
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if dir == "local" { // Local gives it as an argument
		dir = os.Args[len(os.Args)-1]
	}
	o := Options{
		Dir: dir, Locks: os.Getenv("JOB_TEST_LOCKS"), Stdin: os.Stdin, Stdout: os.Stdout, Env: os.Environ(), Now: time.Now, Signals: signals,
		RetryPause: 20 * time.Millisecond,
	}
	if os.Getenv(receiving) != "" {
		o.Receive = func(_ context.Context, _ replicate.ID, rw io.ReadWriter) error {
			code := make([]byte, 4)
			if _, err := io.ReadFull(rw, code); err != nil {
				return err
			}
			if string(code) == "fail" {
				return errors.New("no room for code")
			}
			_, err := io.WriteString(rw, "got ")
			return errors.Join(err, os.WriteFile(filepath.Join(dir, "code"), code, 0o600))
		}
	}
	if dir := os.Getenv(outboxOf); dir != "" {
		o.Outbox = func(context.Context, Spec, Secrets) (Outbox, error) { return fileOutbox(dir), nil }
	}
	code, err := Supervise(context.Background(), o)
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
	}
	return code
}

// A run is a supervisor in a process of its own, and what it left.
type run struct {
	t     *testing.T
	dir   string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{} // closed when the supervisor has
}

// supervise starts a supervisor in a directory.
func supervise(t *testing.T, dir string, env ...string) *run {
	t.Helper()
	return superviseTo(t, dir, nil, env...)
}

// superviseTo does so with a file for stdout; nil is none.
func superviseTo(t *testing.T, dir string, stdout *os.File, env ...string) *run {
	t.Helper()
	r := &run{t: t, dir: dir, ended: make(chan struct{})}
	r.cmd = exec.Command(os.Args[0])
	r.cmd.Env = append(append(os.Environ(), env...), asSupervisor+"="+dir)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r.cmd.Stderr = os.Stderr
	if stdout != nil {
		r.cmd.Stdout = stdout
	}
	var err error
	if r.stdin, err = r.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { defer close(r.ended); _ = r.cmd.Wait() }()
	t.Cleanup(func() { r.kill(); r.stdin.Close() })
	return r
}

// give sends a job. A supervisor that has ended meanwhile takes none.
func (r *run) give(spec Spec, secrets Secrets) *run {
	r.t.Helper()
	text, err := Line{Job: &spec, Secrets: &secrets}.Encode()
	if err == nil {
		_, err = r.stdin.Write(text)
	}
	if err != nil && !errors.Is(err, syscall.EPIPE) {
		r.t.Fatal(err)
	}
	return r
}

func (r *run) kill() {
	_ = r.cmd.Process.Kill()
	<-r.ended
}

// wait returns the exit code of the supervisor.
func (r *run) wait() int {
	r.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(60 * time.Second):
		r.t.Fatal("the supervisor does not end")
	}
	return r.cmd.ProcessState.ExitCode()
}

func (r *run) state() State {
	r.t.Helper()
	state, err := ReadState(os.DirFS(r.dir))
	if err != nil {
		r.t.Fatal(err)
	}
	return state
}

// until waits until the state of a job is as wanted.
func (r *run) until(what string, wanted func(State) bool) State {
	r.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if state, err := ReadState(os.DirFS(r.dir)); err == nil && wanted(state) {
			return state
		}
	}
	r.t.Fatalf("the job is never %s: %+v", what, r.state())
	return State{}
}

// log returns all frames.
func (r *run) log() []Frame {
	r.t.Helper()
	in, err := OpenLog(os.DirFS(r.dir), 0)
	if err != nil {
		r.t.Fatal(err)
	}
	defer in.Close()
	return readAll(r.t, NewFrameReader(in, 0))
}

func readAll(t *testing.T, r *FrameReader) []Frame {
	t.Helper()
	var frames []Frame
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			return frames
		} else if err != nil {
			t.Fatal(err)
		}
		f.Data = bytes.Clone(f.Data) // Next takes it back
		frames = append(frames, f)
	}
}

// text returns what one stream says.
func text(frames []Frame, s Stream) string {
	var b bytes.Buffer
	for _, f := range frames {
		if f.Stream == s {
			b.Write(f.Data)
		}
	}
	return b.String()
}

// shell is a job that runs a script.
func shell(script string) Spec { return Spec{Argv: []string{"sh", "-c", script}, Cwd: "/"} }

func TestTheExitCodeIsThatOfTheJob(t *testing.T) {
	notExecutable := filepath.Join(t.TempDir(), "data")
	if err := os.WriteFile(notExecutable, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		spec   Spec
		code   int
		status replicate.Status
		signal string
	}{
		"zero":           {spec: shell("exit 0"), code: 0, status: replicate.Finished},
		"three":          {spec: shell("exit 3"), code: 3, status: replicate.Failed},
		"killed":         {spec: shell("kill -9 $$"), code: 137, status: replicate.Crashed, signal: "SIGKILL"},
		"terminated":     {spec: shell("kill $$"), code: 143, status: replicate.Terminated, signal: "SIGTERM"},
		"interrupted":    {spec: shell("kill -INT $$"), code: 130, status: replicate.Interrupted, signal: "SIGINT"},
		"not executable": {spec: Spec{Argv: []string{notExecutable}, Cwd: "/"}, code: 126, status: replicate.Failed},
		"not found":      {spec: Spec{Argv: []string{"no-such-program"}, Cwd: "/"}, code: 127, status: replicate.Failed},
		"no directory":   {spec: Spec{Argv: []string{"true"}, Cwd: "/no/such/directory"}, code: 125, status: replicate.Failed},
		"timeout":        {spec: Spec{Argv: []string{"sleep", "60"}, Cwd: "/", Timeout: Duration(50 * time.Millisecond)}, code: 124, status: replicate.Terminated, signal: "SIGTERM"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := supervise(t, t.TempDir()).give(tt.spec, Secrets{})
			if code := r.wait(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			state := r.state()
			if state.Phase != Exited || state.Status != tt.status || state.ExitCode != tt.code || state.Signal != tt.signal {
				t.Errorf("state %+v", state)
			}
			frames := r.log()
			last, err := ParseNote(frames[len(frames)-1].Data)
			if err != nil || last.End == nil || last.End.ExitCode != tt.code {
				t.Errorf("the log ends with %s", frames[len(frames)-1].Data)
			}
			if again := supervise(t, r.dir).wait(); again != tt.code {
				t.Errorf("started again after the end it exits with %d", again)
			}
		})
	}
}

func TestStdoutAndStderrAreApartAndWhole(t *testing.T) {
	r := supervise(t, t.TempDir()).give(shell(`printf 'a\0\377b'; printf err >&2; head -c 1000000 /dev/zero`), Secrets{})
	r.wait()
	frames := r.log()
	if got, want := text(frames, Stdout), "a\x00\xffb"+strings.Repeat("\x00", 1000000); got != want {
		t.Errorf("stdout has %d bytes, want %d", len(got), len(want))
	}
	if got := text(frames, Stderr); got != "err" {
		t.Errorf("stderr: %q", got)
	}
	next := int64(0)
	for _, f := range frames {
		if f.Offset != next {
			t.Fatalf("a frame at %d, expected at %d", f.Offset, next)
		}
		next = f.End()
	}
	if state := r.state(); state.Log != next {
		t.Errorf("the state says %d bytes, there are %d", state.Log, next)
	}
}

// receiving makes the supervisor of a test receive four bytes behind its job.
const receiving = "JOB_TEST_RECEIVING"

func TestAJobBeginsWhenWhatComesBehindItIsThere(t *testing.T) {
	dir := t.TempDir()
	from, stdout, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	r := superviseTo(t, dir, stdout, receiving+"=1")
	stdout.Close()
	r.give(Spec{Argv: []string{"cat", filepath.Join(dir, "code")}}, Secrets{})
	if _, err := os.Stat(filepath.Join(dir, specName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("spec.json says that everything is there: %v", err)
	}
	if _, err := io.WriteString(r.stdin, "here"); err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(from)
	if err != nil || r.wait() != 0 {
		t.Fatalf("exit code %d, %v", r.cmd.ProcessState.ExitCode(), err)
	}
	frames, ok := bytes.CutPrefix(said, []byte("got @0 "))
	if !ok || !bytes.Contains(frames, []byte("\nhere")) {
		t.Errorf("stdout is %q", said)
	}
}

func TestWhatCannotBeReceivedEndsTheJob(t *testing.T) {
	r := supervise(t, t.TempDir(), receiving+"=1").give(Spec{Argv: []string{"true"}}, Secrets{})
	if _, err := io.WriteString(r.stdin, "fail"); err != nil {
		t.Fatal(err)
	}
	if code, state := r.wait(), r.state(); code != ExitBroken || !strings.Contains(state.Reason, "no room for code") {
		t.Errorf("exit code %d, state %+v", code, state)
	}
}

func TestASupervisorThatReceivesCanBeStopped(t *testing.T) {
	r := supervise(t, t.TempDir(), receiving+"=1").give(Spec{Argv: []string{"true"}}, Secrets{})
	waitFor(t, "asked", func() bool {
		_, err := Control(t.Context(), r.dir, Request{Op: OpSignal, Signal: Stop})
		return err == nil
	})
	if code := r.wait(); code != 143 {
		t.Errorf("exit code %d, state %+v", code, r.state())
	}
}

// TestASupervisorThatWasKilledBeforeItsJobCameSaysSo starts it again, as an engine does.
func TestASupervisorThatWasKilledBeforeItsJobCameSaysSo(t *testing.T) {
	r := supervise(t, t.TempDir())
	r.until("begun", func(s State) bool { return s.Phase == Preparing })
	r.kill()
	r = supervise(t, r.dir)
	if code := r.wait(); code != ExitBroken {
		t.Errorf("exit code %d", code)
	}
	if s := r.state(); s.Status != replicate.Failed || s.Reason != "the supervisor was killed before it had its job" {
		t.Errorf("%+v", s)
	}
	if code := supervise(t, r.dir).wait(); code != ExitBroken {
		t.Errorf("started once more it ends with %d", code)
	}
}

// TestAJobThatIsSettledIsNotTriedAgain starts the supervisor of a killed one again, with word that nothing is to run any more.
func TestAJobThatIsSettledIsNotTriedAgain(t *testing.T) {
	spec := shell(`echo ready; exec sleep 60`)
	spec.Retries = 5
	r := supervise(t, t.TempDir()).give(spec, Secrets{}).ready()
	r.kill()
	if err := os.WriteFile(filepath.Join(r.dir, SettleName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code := supervise(t, r.dir).wait(); code != 137 || r.state().Status != replicate.Crashed || r.state().Attempt != 1 {
		t.Errorf("exit code %d, state %+v", code, r.state())
	}
}
