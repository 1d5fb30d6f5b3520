package remote_test

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// onTerminal runs a command on a pseudo terminal: what comes on stdin is typed, and what the terminal shows goes to stdout.
const onTerminal = `import os, pty, select, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execvp(sys.argv[1], sys.argv[1:])
while True:
    ready, _, _ = select.select([terminal, 0], [], [])
    try:
        if 0 in ready:
            typed = os.read(0, 1)
            if not typed:
                break
            os.write(terminal, typed)
        if terminal in ready:
            os.write(1, os.read(terminal, 65536))
    except OSError:
        break
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`

// A terminal is a command that runs on one. Everything it prints is in stdout.
type terminal struct {
	*running
	keys io.WriteCloser
}

func (d *desk) terminal(args ...string) *terminal {
	d.t.Helper()
	require.Program(d.t, "python3")
	cmd := exec.Command("python3", append([]string{"-c", onTerminal, binary}, args...)...)
	cmd.Dir, cmd.Env = d.dir, d.env
	keys, err := cmd.StdinPipe()
	d.must(err)
	return &terminal{d.beginCommand(cmd), keys}
}

func (t *terminal) types(keys string) {
	t.d.t.Helper()
	_, err := io.WriteString(t.keys, keys)
	t.d.must(err)
}

// TestMuchIsAskedAbout sends more than a gigabyte only if somebody says so.
func TestMuchIsAskedAbout(t *testing.T) {
	d := newDesk(t)
	d.write("large.bin", "")
	d.must(os.Truncate(filepath.Join(d.dir, "large.bin"), 1200<<20))
	run := d.terminal("run", "-H", "rh1", "true")
	run.prints("Send them?")
	run.types("n\n")
	if code := run.wait(); code != 125 || !strings.Contains(run.out(), "nothing was sent") {
		t.Errorf("exit code %d\n%s", code, run.out())
	}
}

// ticking prints numbers until it is stopped; with an argument it cannot be asked to.
const ticking = `import signal, sys, time
if len(sys.argv) > 1:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
n = 0
while True:
    print("tick", n, flush=True)
    n += 1
    time.sleep(0.05)
`

const interrupt = "\x03"

// more waits until the terminal has shown more than it has now.
func (t *terminal) more() {
	t.d.t.Helper()
	ticks := strings.Count(t.out(), "tick")
	t.d.within(time.Minute, "the job goes on", func() bool { return strings.Count(t.out(), "tick") > ticks+2 })
}

func TestInterruptAtATerminal(t *testing.T) {
	d := newDesk(t)
	d.write("tick.py", ticking)
	run := d.terminal("run", "-H", "rh1", "tick.py")
	run.prints("tick 2")
	run.types(interrupt)
	run.prints("again: stop the job · d: detach")
	run.more()
	run.types("d")
	if code := run.wait(); code != 0 || !strings.Contains(run.out(), "goes on; replicate attach") {
		t.Errorf("after d the exit code is %d", code)
	}
	e := d.only()
	if e.Status != "detached" {
		t.Errorf("after d ls says %+v", e)
	}

	run = d.terminal("attach", e.ID)
	run.more()
	run.types(interrupt)
	run.prints("again: stop the job")
	run.types(interrupt)
	if code := run.wait(); code != 130 {
		t.Errorf("after the second Ctrl-C the exit code is %d", code)
	}
	if e := d.only(); e.Status != "interrupted" {
		t.Errorf("after the second Ctrl-C ls says %+v", e)
	}
	d.within(time.Minute, "its container has ended", func() bool { return strings.HasPrefix(d.containers(d.lab.Hosts[0])[e.ID], "Exited") })
}

func TestThirdInterruptKills(t *testing.T) {
	d := newDesk(t)
	d.write("tick.py", ticking)
	run := d.terminal("run", "-H", "rh1", "tick.py", "stubborn")
	run.prints("tick 2")
	run.types(interrupt)
	run.prints("again: stop the job")
	run.types(interrupt)
	run.more() // it takes no notice
	run.types(interrupt)
	if code := run.wait(); code != 137 {
		t.Errorf("the exit code is %d", code)
	}
	if e := d.only(); e.Status != "interrupted" {
		t.Errorf("ls says %+v", e)
	}
}

// TestTwoFollowOneRun hangs the terminal of a run up, follows it by three commands at once, and stops it by a signal to one of them.
func TestTwoFollowOneRun(t *testing.T) {
	d := newDesk(t)
	d.write("tick.py", ticking)
	run := d.terminal("run", "-H", "rh1", "tick.py")
	run.prints("tick 2")
	run.keys.Close()
	run.wait()
	e := d.only()
	if e.Status != "detached" {
		t.Errorf("after the hang-up ls says %+v", e)
	}

	d.must(os.RemoveAll(filepath.Join(d.dir, ".replicate", "runs"))) // as on another machine, which shows it from the beginning
	one, two, logs := d.begin("attach", e.ID), d.begin("attach", e.ID), d.begin("logs", "-f", e.ID)
	for _, r := range []*running{one, two, logs} {
		r.prints("tick 20\n")
	}
	one.signal(syscall.SIGTERM)
	for _, r := range []*running{one, two} {
		if code := r.wait(); code != 143 {
			t.Errorf("the exit code is %d", code)
		}
	}
	if code := logs.wait(); code != 0 {
		t.Errorf("the exit code of logs is %d", code)
	}
	if one.out() != two.out() || one.out() != logs.out() || strings.Count(one.out(), "tick 20\n") != 1 {
		t.Errorf("they show different things:\n%s\n%s\n%s", one.out(), two.out(), logs.out())
	}
	if e := d.only(); e.Status != "terminated" {
		t.Errorf("ls says %+v", e)
	}
	if got := d.replicate("logs", e.ID); got != one.out() {
		t.Errorf("the storage has %d bytes of output, %d were shown", len(got), len(one.out()))
	}
}
