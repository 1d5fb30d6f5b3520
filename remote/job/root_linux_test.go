package job

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// leaveMounts runs a program that keeps no mount of another test from ending, as a copy of it would.
const leaveMounts = `umount -alt fuse.replicate; exec "$0"`

// superviseAs1 starts a supervisor as process 1 of a container of nothing but processes and mounts.
func superviseAs1(t *testing.T, dir string) *run {
	t.Helper()
	require.Root(t)
	unshare := require.Program(t, "unshare")
	r := &run{t: t, dir: dir, ended: make(chan struct{})}
	r.cmd = exec.Command(unshare, "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c", leaveMounts, os.Args[0])
	r.cmd.Env = append(os.Environ(), asSupervisor+"="+dir)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r.cmd.Stderr = os.Stderr
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

// TestProcess1ReapsOrphans makes many orphans with sessions of their own, and counts zombies.
func TestProcess1ReapsOrphans(t *testing.T) {
	const script = `i=0; while [ $i -lt 30 ]; do (setsid true &); i=$((i+1)); done
		n=1; while [ $n != 0 ]; do sleep 0.02; n=$(cat /proc/[0-9]*/stat | grep -c ') Z '); done; ps -e | wc -l`
	r := superviseAs1(t, t.TempDir()).give(shell(script), Secrets{})
	if code := r.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, text(r.log(), Stderr))
	}
}

// TestProcess1LetsOrphansFinish has a job that is killed and leaves one with something to write.
func TestProcess1LetsOrphansFinish(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	r := superviseAs1(t, t.TempDir()).give(shell(`setsid sh -c 'echo ready; sleep 0.2; echo written > `+file+`' & sleep 0.1; kill -9 $$`), Secrets{})
	if code := r.wait(); code != 137 {
		t.Errorf("exit code %d", code)
	}
	if got, _ := os.ReadFile(file); string(got) != "written\n" {
		t.Errorf("it wrote %q", got)
	}
}

// TestAJobOfAnotherUser has a uid that no machine knows.
func TestAJobOfAnotherUser(t *testing.T) {
	require.Root(t)
	const uid, gid = 54321, 54322
	dir := filepath.Join(t.TempDir(), "run")
	for _, path := range []string{filepath.Dir(filepath.Dir(dir)), filepath.Dir(dir)} { // of the test, which others may not enter
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mounted := filepath.Join(dir, "code", "data")
	if err := os.MkdirAll(mounted, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", mounted, "tmpfs", 0, "size=64k"); err != nil {
		require.Missing(t, "the right to mount")
	}
	t.Cleanup(func() { _ = unix.Unmount(mounted, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(mounted, "theirs"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	spec := Spec{Argv: []string{"sh", "-c", `id -u; id -g; echo $HOME; echo $USER $LOGNAME; touch $HOME/a mine && echo ok`}, Cwd: filepath.Join(dir, "code"),
		UID: uid, GID: gid, User: "ann"}
	r := supervise(t, dir).give(spec, Secrets{})
	if code := r.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, text(r.log(), Stderr))
	}
	want := fmt.Sprintf("%d\n%d\n%s\nann ann\nok\n", uid, gid, filepath.Join(dir, "home"))
	if got := text(r.log(), Stdout); got != want {
		t.Errorf("it printed %q, want %q", got, want)
	}
	for path, owner := range map[string]uint32{"status.json": uid, "code/mine": uid, "code/data": 0, "code/data/theirs": 0} {
		var stat unix.Stat_t
		if err := unix.Stat(filepath.Join(dir, path), &stat); err != nil || stat.Uid != owner {
			t.Errorf("%s belongs to %d, %v", path, stat.Uid, err)
		}
	}
}

// TestAFullDiskDoesNotStopTheJob fills the disk of the log while the job prints, and frees it, or not, before the job ends.
func TestAFullDiskDoesNotStopTheJob(t *testing.T) {
	for name, free := range map[string]bool{"and free again": true, "to the end": false} {
		t.Run(name, func(t *testing.T) { testFullDisk(t, free) })
	}
}

func testFullDisk(t *testing.T, free bool) {
	require.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		require.Missing(t, "the right to mount")
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 700<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	const size = 600000
	r := supervise(t, dir).give(shell(fmt.Sprintf(`head -c %d /dev/zero; cat %s; echo after`, size, fifo)), Secrets{})
	printed := openFifo(t, fifo)
	waitFor(t, "full", func() bool {
		state, err := Asked(t.Context(), dir)
		return err == nil && state.Log >= size
	})
	if free {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
	printed.Close()
	if code := r.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if state := r.state(); state.Phase != Exited || state.Status != replicate.Finished {
		t.Errorf("state %+v", state)
	}
	if frames := r.log(); free {
		checkGap(t, frames, size)
	} else if got := len(text(frames, Stdout)); got == 0 || got >= size {
		t.Errorf("the log has %d bytes", got)
	}
}

// openFifo returns when a job has come to read from a fifo.
func openFifo(t *testing.T, fifo string) *os.File {
	t.Helper()
	opened := make(chan *os.File, 1)
	go func() {
		f, _ := os.OpenFile(fifo, os.O_WRONLY, 0)
		opened <- f
	}()
	select {
	case f := <-opened:
		return f
	case <-time.After(time.Minute):
		t.Fatal("the job stands still")
		return nil
	}
}

// checkGap looks that what is missing in a log is told.
func checkGap(t *testing.T, frames []Frame, size int) {
	t.Helper()
	var next, missing, told int64
	for _, f := range frames {
		missing, next = missing+f.Offset-next, f.End()
		if f.Stream == Notes {
			note, err := ParseNote(f.Data)
			if err != nil {
				t.Fatal(err)
			}
			told += note.Gap
		}
	}
	got := text(frames, Stdout)
	if missing == 0 || told != missing || int64(len(got))+missing != int64(size+len("after\n")) || !strings.HasSuffix(got, "after\n") {
		t.Errorf("%d bytes are missing, %d are said to be, %d are there", missing, told, len(got))
	}
}

func TestOOMKillsAreCounted(t *testing.T) {
	for name, tt := range map[string]struct {
		files fstest.MapFS
		want  int64
	}{
		"version 2": {fstest.MapFS{
			"proc/self/cgroup":                {Data: []byte("0::/job\n")},
			"sys/fs/cgroup/job/memory.events": {Data: []byte("low 0\nhigh 0\nmax 7\noom 3\noom_kill 2\noom_group_kill 0\n")},
		}, 2},
		"version 2, in a container": {fstest.MapFS{
			"proc/self/cgroup":            {Data: []byte("0::/../../system.slice/docker-12.scope\n")},
			"sys/fs/cgroup/memory.events": {Data: []byte("oom_kill 4\n")},
		}, 4},
		"version 1": {fstest.MapFS{
			"proc/self/cgroup":                        {Data: []byte("3:cpuset:/\n4:cpu,memory:/docker/12\n0::/\n")},
			"sys/fs/cgroup/memory/memory.oom_control": {Data: []byte("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")},
		}, 5},
		"none": {fstest.MapFS{}, 0},
	} {
		if got := oomKillsBelow(tt.files); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
}
