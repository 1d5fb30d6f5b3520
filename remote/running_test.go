package remote_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate/remote/remotetest"
)

// A running is a command that has not ended yet.
type running struct {
	d              *desk
	cmd            *exec.Cmd
	stdout, stderr string // paths
	ended          chan struct{}
}

// begin starts a command, which is killed when the test ends.
func (d *desk) begin(args ...string) *running {
	d.t.Helper()
	return d.beginCommand(d.command(args...))
}

func (d *desk) beginCommand(cmd *exec.Cmd) *running {
	d.t.Helper()
	dir := d.t.TempDir()
	r := &running{d: d, cmd: cmd, stdout: filepath.Join(dir, "stdout"), stderr: filepath.Join(dir, "stderr"), ended: make(chan struct{})}
	stdout, err := os.Create(r.stdout)
	d.must(err)
	stderr, err := os.Create(r.stderr)
	d.must(err)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	d.must(cmd.Start())
	stdout.Close()
	stderr.Close()
	go func() {
		_ = cmd.Wait()
		close(r.ended)
	}()
	d.t.Cleanup(func() {
		r.kill()
		if d.t.Failed() {
			said, _ := os.ReadFile(r.stderr)
			d.t.Logf("%s: %s", strings.Join(cmd.Args[1:], " "), said)
		}
	})
	return r
}

func (r *running) out() string { r.d.t.Helper(); return r.d.read(r.stdout) }
func (r *running) err() string { r.d.t.Helper(); return r.d.read(r.stderr) }

// prints waits until the command has printed a text on stdout.
func (r *running) prints(text string) {
	r.d.t.Helper()
	r.d.within(time.Minute, "stdout has "+text, func() bool { return strings.Contains(r.out(), text) })
}

// says waits until the command has printed a text on stderr.
func (r *running) says(text string) {
	r.d.t.Helper()
	r.d.within(2*time.Minute, "stderr has "+text, func() bool { return strings.Contains(r.err(), text) })
}

// kill kills the command as kill -9 does.
func (r *running) kill() {
	_ = r.cmd.Process.Kill()
	<-r.ended
}

func (r *running) signal(s syscall.Signal) {
	r.d.t.Helper()
	r.d.must(r.cmd.Process.Signal(s))
}

// wait waits for the end of the command and returns its exit code.
func (r *running) wait() int {
	r.d.t.Helper()
	select {
	case <-r.ended:
	case <-time.After(time.Minute):
		_ = r.cmd.Process.Signal(syscall.SIGQUIT) // its goroutines tell what it waits for
		<-r.ended
		r.d.t.Fatalf("%s does not end", strings.Join(r.cmd.Args[1:], " "))
	}
	return r.cmd.ProcessState.ExitCode()
}

// id waits until the job of the command runs, and returns its experiment.
func (r *running) id() string {
	r.d.t.Helper()
	r.says("Running '")
	_, after, _ := strings.Cut(r.err(), "' as ")
	short, _, _ := strings.Cut(after, "...")
	var id string
	r.d.within(time.Minute, "ls has "+short, func() bool { // to a bucket it goes by itself
		for _, e := range r.d.list() {
			if strings.HasPrefix(e.ID, short) {
				id = e.ID
			}
		}
		return id != ""
	})
	return id
}

// inside runs a program in the working directory of a run.
func (d *desk) inside(h *remotetest.Host, id string, argv ...string) string {
	d.t.Helper()
	return h.Docker(d.t, append([]string{"exec", "-w", "/replicate/code", "replicate-run-" + id}, argv...)...)
}

// fetch reads a file of the working directory of a run, whether that has ended or not; "" if it is not there.
func (d *desk) fetch(h *remotetest.Host, id, name string) string {
	d.t.Helper()
	to := filepath.Join(d.t.TempDir(), "file")
	err := exec.Command("docker", "-H", "unix://"+h.Socket(), "cp", "replicate-run-"+id+":/replicate/code/"+name, to).Run()
	if err != nil {
		return ""
	}
	return d.read(to)
}

// forget removes a run from a host, whatever it does. Other tests have that host after this one.
func (d *desk) forget(h *remotetest.Host, id string) {
	d.t.Helper()
	h.Docker(d.t, "rm", "-f", "replicate-run-"+id)
	h.Docker(d.t, "volume", "rm", "replicate-run-"+id)
}

// containers lists the containers of runs of this desk's experiments on a host: name and status.
func (d *desk) containers(h *remotetest.Host) map[string]string {
	d.t.Helper()
	found := map[string]string{}
	for line := range strings.Lines(h.Docker(d.t, "ps", "-a", "--filter", "label=replicate.kind=run", "--format", "{{.Names}} {{.Status}}")) {
		name, status, _ := strings.Cut(strings.TrimSpace(line), " ")
		if id, ok := strings.CutPrefix(name, "replicate-run-"); ok {
			found[id] = status
		}
	}
	return found
}

// ps asks the hosts how their runs are, again if one was too busy to answer in time.
func (d *desk) ps() (o outcome) {
	d.t.Helper()
	d.within(time.Minute, "all hosts answer", func() bool { o = d.try("ps"); return o.code == 0 && !strings.Contains(o.stdout, "unreachable") })
	return o
}

// killSessions kills the processes of a host's sshd that serve dev.
func killSessions(t testing.TB, h *remotetest.Host) {
	t.Helper()
	h.Run(t, "pkill", "-KILL", "-f", "^sshd: dev")
}
