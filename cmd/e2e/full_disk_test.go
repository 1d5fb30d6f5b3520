package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// smallDisk mounts a file system of so many bytes until the test ends.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	require.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("replicate-test", dir, "tmpfs", 0, "mode=0755,size="+size); err != nil {
		require.Missing(t, "the right to mount a tmpfs: "+err.Error())
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// remount changes how a file system is mounted. A recorder that has answered its last request holds its log open until its process is gone, a
// moment later: until then "read-only" is refused.
func (l *lab) remount(dir, options string) {
	l.t.Helper()
	var out []byte
	var err error
	for start := time.Now(); time.Since(start) < time.Minute; time.Sleep(5 * time.Millisecond) {
		if out, err = exec.CommandContext(l.t.Context(), require.Program(l.t, "mount"), "-o", "remount,"+options, dir).CombinedOutput(); err == nil {
			return
		}
	}
	l.t.Fatalf("remount: %v\n%sheld open: %q", err, out, holders(dir))
}

// holders returns which processes have files below a directory open, and which files.
func holders(dir string) (held []string) {
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		if path, _ := os.Readlink(fd); strings.HasPrefix(path, dir+"/") { // the process may be gone
			name, _ := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(fd)), "cmdline"))
			held = append(held, fmt.Sprintf("%s (%s): %s", strings.Split(fd, "/")[2], bytes.ReplaceAll(name, []byte{0}, []byte(" ")), path))
		}
	}
	return held
}

// failed returns how many commits of a training were tried and not acknowledged.
func (tr *training) failed() int {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return len(tr.tries) - len(tr.acks)
}

// troubled waits until some commits have failed, ends the trouble, waits until some succeed again, and ends the training.
func (l *lab) troubled(tr *training, end func()) (stderr string) {
	l.t.Helper()
	l.within(time.Minute, "five commits that fail", func() bool { return tr.failed() >= 5 || gone(tr.cmd.Process.Pid) })
	end()
	_, before := tr.progress()
	l.awaits(tr, before+3)
	tr.stdin.Close()
	stderr, err := tr.wait()
	if err != nil || !tr.done {
		l.t.Fatalf("the training did not end well: %v\n%s", err, stderr)
	}
	return stderr
}

func TestFullDisk(t *testing.T) {
	disk := smallDisk(t, "24m")
	l := newLab(t)
	storage := filepath.Join(disk, "storage")
	l.write("replicate.yaml", "storage: "+storage+"\n")
	tr := l.train("1000000")
	stderr := l.troubled(tr, func() {
		if got := l.list(); len(got) != 1 || got[0].Status != "running" {
			t.Errorf("on a full disk ls lists %+v", got)
		}
		l.remount(disk, "size=2g")
	})
	if n := strings.Count(stderr, "warning: commit: "); n != 1 || !strings.Contains(stderr, "no space left on device") || !strings.Contains(stderr, "hint: free some space") {
		t.Errorf("a full disk was not said once with what to do:\n%s", stderr)
	}
	l.verify(tr, "recorder", time.Now())
	l.nothingLeft(storage)
	l.check(storage)
}

// TestFullDiskAndKilled kills everything on a full disk. The next command finds room, and all that was acknowledged.
func TestFullDiskAndKilled(t *testing.T) {
	disk := smallDisk(t, "24m")
	l := newLab(t)
	storage := filepath.Join(disk, "storage")
	l.write("replicate.yaml", "storage: "+storage+"\n")
	tr := l.train("1000000")
	l.within(time.Minute, "five commits that fail", func() bool { return tr.failed() >= 5 || gone(tr.cmd.Process.Pid) })
	recorder := tr.recorder()
	l.must(unix.Kill(recorder, unix.SIGKILL))
	l.must(tr.cmd.Process.Kill())
	_, _ = tr.wait()
	l.within(time.Minute, "the recorder is gone", func() bool { return gone(recorder) })
	if out, stderr, code := l.try(binary, "ls", "--json"); code != 0 || !strings.Contains(out, tr.id) {
		t.Errorf("ls on a full disk: exit code %d\n%s%s", code, out, stderr)
	}
	l.remount(disk, "size=2g")
	l.verify(tr, "both", time.Now())
	l.nothingLeft(storage)
	l.check(storage)
}

// nothingLeft checks that a storage holds nothing of writers that have ended.
func (l *lab) nothingLeft(storage string) {
	l.t.Helper()
	l.must(filepath.WalkDir(filepath.Join(storage, "tmp"), func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Name() != "tmp" && d.Name() != "w" && d.Name() != "lock" {
			l.t.Errorf("left: %s", path)
		}
		return err
	}))
}

// TestStorageThatCannotBeWritten takes the right to write from a training, and gives it back.
func TestStorageThatCannotBeWritten(t *testing.T) {
	l := newLab(t)
	l.asNobody()
	tr := l.train("1000000")
	l.awaits(tr, 3)
	storage := l.path(".replicate", "storage")
	mode := func(mode os.FileMode) {
		l.must(filepath.WalkDir(storage, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.IsDir() {
				return nil // what goes away meanwhile needs no mode
			}
			_ = os.Chmod(path, mode)
			return nil
		}))
	}
	mode(0o500)
	stderr := l.troubled(tr, func() { mode(0o700) })
	if n := strings.Count(stderr, "warning: commit: "); n != 1 || !strings.Contains(stderr, "permission denied") || !strings.Contains(stderr, "hint: ") {
		t.Errorf("that nothing can be written was not said once with what to do:\n%s", stderr)
	}
	l.verify(tr, "recorder", time.Now())
	l.nothingLeft(storage)
	l.check(storage)
}

// TestReadOnlyStorage reads a storage that nobody can write to, and tries to record there.
func TestReadOnlyStorage(t *testing.T) {
	disk := smallDisk(t, "200m")
	l := labIn(t, filepath.Join(disk, "project"))
	l.write("code/train.py", "print()\n")
	ids, _ := l.commits("3")
	l.remount(disk, "ro")
	if got := l.list(); len(got) != 1 || got[0].Status != "finished" || got[0].NumCommits != 3 {
		t.Errorf("listed: %+v", got)
	}
	l.replicate("show", ids[0])
	l.replicate("diff", ids[0], ids[1])
	sameTrees(t, "checkout", l.path("code"), filepath.Join(l.checkout(ids[2]), "code"))
	sameTrees(t, "mount", l.path("code"), filepath.Join(l.mount(), "commits", ids[2][:7], "code"))

	_, stderr, code := l.try(python(t), l.script("commits.py"), "1")
	if code == 0 || !strings.Contains(stderr, "read-only file system") || !strings.Contains(stderr, "hint: ") {
		t.Errorf("a training there: exit code %d\n%s", code, stderr)
	}
	_, stderr, code = l.try(binary, "checkout", "-f", ids[0])
	if code != 1 || !strings.Contains(stderr, "replicate: error: ") || !strings.Contains(stderr, "read-only file system") {
		t.Errorf("a checkout there: exit code %d\n%s", code, stderr)
	}
	l.check(l.storage())
}
