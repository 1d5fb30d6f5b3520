package fs

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// reader is a process of its own that reads a mount and compares it with the tree it mirrors, over and over, until its input
// ends. It says "going" after the first round, and "done" at the end if everything was as it should be all the time.
func reader(tree, mnt string) error {
	stop := make(chan struct{})
	go func() { _, _ = io.Copy(io.Discard, os.Stdin); close(stop) }()
	if err := os.Chdir(mnt); err != nil {
		return err
	}
	for round := 0; ; round++ {
		if err := readTree(tree); err != nil {
			return fmt.Errorf("%s, round %d: %w", time.Now().UTC().Format("15:04:05.000"), round, err) // as in the log of the mount
		}
		if round == 0 {
			fmt.Println("going")
		}
		select {
		case <-stop:
			fmt.Println("done")
			return nil
		default:
		}
	}
}

// readTree compares the working directory with a tree, names and bytes, past the page cache.
func readTree(tree string) error {
	seen := 0
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		seen++
		if !d.Type().IsRegular() {
			return nil
		}
		want, err := os.ReadFile(filepath.Join(tree, path))
		if err != nil {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		got, err := io.ReadAll(f)
		if err != nil {
			return err
		}
		if !bytes.Equal(want, got) {
			return fmt.Errorf("%s has %d bytes that are not its %d", path, len(got), len(want))
		}
		return nil
	})
	if err != nil {
		return err
	}
	want := 0
	_ = filepath.WalkDir(tree, func(string, os.DirEntry, error) error { want++; return nil })
	if seen != want {
		return fmt.Errorf("%d names instead of %d", seen, want)
	}
	return nil
}

// startReaders starts n readers and waits until all of them have read everything once. The returned function ends them and
// fails the test unless all was well.
func startReaders(t *testing.T, n int, tree, mnt string) (stop func()) {
	t.Helper()
	type running struct {
		cmd    *exec.Cmd
		stdin  io.Closer
		out    *bufio.Reader
		stderr *bytes.Buffer
	}
	var all []running
	exe, err := os.Executable()
	check(t, err)
	for range n {
		r := running{cmd: exec.Command(exe, "reader", tree, mnt), stderr: new(bytes.Buffer)}
		r.cmd.Stderr = r.stderr
		r.stdin, err = r.cmd.StdinPipe()
		check(t, err)
		out, err := r.cmd.StdoutPipe()
		check(t, err)
		r.out = bufio.NewReader(out)
		check(t, r.cmd.Start())
		t.Cleanup(func() { _ = r.cmd.Process.Kill() })
		all = append(all, r)
	}
	for _, r := range all {
		if line, err := r.out.ReadString('\n'); line != "going\n" {
			t.Fatalf("a reader did not start: %v\n%s", err, r.stderr)
		}
	}
	return func() {
		t.Helper()
		for _, r := range all {
			r.stdin.Close()
		}
		for _, r := range all {
			line, _ := r.out.ReadString('\n')
			if err := r.cmd.Wait(); err != nil || line != "done\n" {
				t.Errorf("a reader met an error: %v\n%s", err, r.stderr)
			}
		}
	}
}

// serverOf returns the pid of the server of a mount, other than not.
func serverOf(t *testing.T, o Options, not int) int {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); pause(context.Background(), 5*time.Millisecond) {
		if r, err := stateOf(o.StateDir, o.Dir).read(); err == nil && r.Server != not {
			return r.Server
		}
	}
	t.Fatal("no other server came")
	return 0
}

// kills is how often a server is killed: more in the long run.
func kills() int {
	if n, err := strconv.Atoi(os.Getenv("REPLICATE_TORTURE")); err == nil {
		return n
	}
	return 20
}

func TestTortureKilledServersGoUnnoticed(t *testing.T) {
	needsMount(t)
	var uname unix.Utsname
	check(t, unix.Uname(&uname))
	if !kernelAtLeast(uname, 6, 9) {
		require.Missing(t, "Linux 6.9, which repeats requests")
	}
	tree := hostile(t)
	check(t, os.Chmod(filepath.Join(tree, "locked"), 0o400)) // the readers compare as whoever we are
	check(t, os.WriteFile(filepath.Join(tree, "slow"), bytes.Repeat([]byte("slow"), 1000), 0o644))
	check(t, os.WriteFile(filepath.Join(tree, growingName), []byte("1\n2\n3\n"), 0o644))
	check(t, os.WriteFile(tree+"."+growingName, []byte("1\n2\n3\n"), 0o644))
	check(t, os.WriteFile(filepath.Join(tree, "large"), bytes.Repeat([]byte("0123456789abcde"), leastCopy/15+1), 0o644)) // the kernel reads it itself
	o := testOptions(t, tree)
	mnt := mount(t, o)
	r, err := stateOf(o.StateDir, o.Dir).read()
	check(t, err)
	stop := startReaders(t, 8, tree, mnt)
	pid := serverOf(t, o, 0)
	for i := range kills() {
		pause(context.Background(), time.Duration(i%7)*30*time.Millisecond)
		if i%maxCrashes == maxCrashes-1 { // faster than a mount accepts: an upgrade kills as hard, and forgives
			check(t, syscall.Kill(r.Supervisor, syscall.SIGHUP))
		} else {
			check(t, syscall.Kill(pid, syscall.SIGKILL))
		}
		pid = serverOf(t, o, pid)
	}
	stop()
	table, err := os.ReadFile(stateOf(o.StateDir, o.Dir).path("copies"))
	if os.Geteuid() == 0 && !bytes.HasPrefix(table, []byte("copy 1 ")) {
		t.Errorf("there was no copy to read: %q, %v", table, err)
	}
	r, err = stateOf(o.StateDir, o.Dir).read()
	check(t, err)
	if r.Restarts != kills() {
		t.Errorf("%d restarts for %d kills", r.Restarts, kills())
	}
}

func kernelAtLeast(u unix.Utsname, major, minor int) bool {
	var a, b int
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	return err == nil && (a > major || a == major && b >= minor)
}

func TestServerThatAlwaysCrashesEndsTheMount(t *testing.T) {
	needsMount(t)
	o := testOptions(t, hostile(t))
	mnt := mount(t, o)
	pid := serverOf(t, o, 0)
	deaths := 0
	for live := true; live; deaths++ { // on a machine so slow that one is forgotten before the third, the fourth is the third
		check(t, syscall.Kill(pid, syscall.SIGKILL))
		dead := pid
		waitFor(t, func() bool {
			r, err := stateOf(o.StateDir, o.Dir).read()
			pid, live = r.Server, stateOf(o.StateDir, o.Dir).held()
			return !live || err == nil && pid != dead
		})
	}
	if deaths < maxCrashes {
		t.Errorf("the mount ends when its server has crashed %d times", deaths)
	}
	check(t, stateOf(o.StateDir, o.Dir).waitEnd(context.Background(), patience))
	if _, still, _ := mountAt(mnt); still {
		t.Error("the mount is still there")
	}
	log, _ := os.ReadFile(stateOf(o.StateDir, o.Dir).path("log"))
	if !strings.Contains(string(log), "the mount ends") {
		t.Errorf("the log does not say why:\n%s", log)
	}
}

func TestDeadMountIsCleared(t *testing.T) {
	needsMount(t)
	tree := hostile(t)
	for _, clear := range []string{"mount", "umount"} {
		t.Run(clear, func(t *testing.T) {
			o := testOptions(t, tree)
			mnt := mount(t, o)
			r, err := stateOf(o.StateDir, o.Dir).read()
			check(t, err)
			check(t, syscall.Kill(r.Supervisor, syscall.SIGKILL))
			for end := time.Now().Add(patience); answer(mnt) != StateDead; pause(context.Background(), 10*time.Millisecond) {
				if time.Now().After(end) {
					t.Fatal("the server outlives its supervisor")
				}
			}
			if clear == "umount" {
				busy, err := Unmount(context.Background(), o.StateDir, mnt)
				if err != nil || len(busy) > 0 {
					t.Fatal(busy, err)
				}
				if _, still, _ := mountAt(mnt); still {
					t.Error("the mount is still there")
				}
				return
			}
			mount(t, o)
			same(t, tree, mnt)
		})
	}
}

func TestUnmountNamesWhoUsesIt(t *testing.T) {
	needsMount(t)
	o := testOptions(t, hostile(t))
	mnt := mount(t, o)
	cwd := exec.Command("sleep", "1000")
	cwd.Dir = mnt
	open := exec.Command("sh", "-c", "exec 3<plain.txt; cd /; exec sleep 1000 <&3")
	open.Dir = mnt
	for _, cmd := range []*exec.Cmd{cwd, open} {
		check(t, cmd.Start())
		defer cmd.Wait()         //nolint:errcheck // killed
		defer cmd.Process.Kill() //nolint:errcheck
	}
	waitFor(t, func() bool { m, _, _ := mountAt(mnt); return len(holders(m)) == 2 })
	busy, err := Unmount(context.Background(), o.StateDir, mnt)
	if err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprint(busy)
	for _, want := range []string{
		fmt.Sprintf("sleep (pid %d, working directory)", cwd.Process.Pid), fmt.Sprintf("(pid %d, open file)", open.Process.Pid)} {
		if !strings.Contains(text, want) {
			t.Errorf("%s does not name %s", text, want)
		}
	}
	if _, still, _ := mountAt(mnt); still {
		t.Error("the mount point is not free")
	}
	if !stateOf(o.StateDir, o.Dir).held() {
		t.Error("the server left those who still use it")
	}
	for _, cmd := range []*exec.Cmd{cwd, open} {
		check(t, cmd.Process.Kill())
	}
	check(t, stateOf(o.StateDir, o.Dir).waitEnd(context.Background(), patience))
	if stateOf(o.StateDir, o.Dir).held() {
		t.Error("the server outlives the last of them")
	}
}

func waitFor(t testing.TB, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); pause(context.Background(), 10*time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited %v in vain", patience)
		}
	}
}

func TestUnmountWithAClonedNamespaceReturns(t *testing.T) {
	needsMount(t, "unshare")
	require.Root(t)
	o := testOptions(t, hostile(t))
	mnt := mount(t, o)
	clone := exec.Command("unshare", "-m", "sleep", "1000")
	check(t, clone.Start())
	defer clone.Wait()         //nolint:errcheck // killed
	defer clone.Process.Kill() //nolint:errcheck
	waitFor(t, func() bool {
		table, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", clone.Process.Pid))
		own, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", clone.Process.Pid))
		mine, _ := os.Readlink("/proc/self/ns/mnt")
		return own != mine && strings.Contains(string(table), mnt)
	})
	start := time.Now()
	if _, err := Unmount(context.Background(), o.StateDir, mnt); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("took %v", took)
	}
	if _, still, _ := mountAt(mnt); still {
		t.Error("the mount is still there")
	}
}

func TestHangupStartsTheNextServer(t *testing.T) {
	needsMount(t)
	tree := hostile(t)
	check(t, os.Chmod(filepath.Join(tree, "locked"), 0o400))
	o := testOptions(t, tree)
	mnt := mount(t, o)
	stop := startReaders(t, 2, tree, mnt)
	pid := serverOf(t, o, 0)
	r, err := stateOf(o.StateDir, o.Dir).read()
	check(t, err)
	check(t, syscall.Kill(r.Supervisor, syscall.SIGHUP))
	serverOf(t, o, pid)
	stop()
}

func TestTerminatedSupervisorUnmounts(t *testing.T) {
	needsMount(t)
	o := testOptions(t, hostile(t))
	mnt := mount(t, o)
	r, err := stateOf(o.StateDir, o.Dir).read()
	check(t, err)
	check(t, syscall.Kill(r.Supervisor, syscall.SIGTERM))
	check(t, stateOf(o.StateDir, o.Dir).waitEnd(context.Background(), patience))
	if _, still, _ := mountAt(mnt); still {
		t.Error("the mount is still there")
	}
}
