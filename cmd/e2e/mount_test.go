package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// servers returns the process that serves a mount, by what the supervisor of the mount has written down.
func (l *lab) server(mnt string) int {
	l.t.Helper()
	files, err := filepath.Glob(filepath.Join(l.home, "cache", "replicate", "mounts", "*", "state.json"))
	l.must(err)
	for _, file := range files {
		var state struct {
			Dir    string
			Server int
		}
		text, err := os.ReadFile(file)
		l.must(err)
		l.must(json.Unmarshal(text, &state))
		if state.Dir == mnt {
			return state.Server
		}
	}
	l.t.Fatalf("no state of %s in %q", mnt, files)
	return 0
}

// TestTortureMount kills the servers of mounts while programs read in them. None of them notices.
func TestTortureMount(t *testing.T) {
	const mounts, killsAtOnce = 3, 2 // a third death within ten seconds ends a mount
	chance := seeded(t)
	l := newLab(t)
	tr := hostileTree(t, l.path("tree"))
	l.must(os.Remove(tr.path("sizes/sparse")))
	tr.setTimes()
	ids, _ := l.commits("3")
	var dirs []string
	var readers []*reading
	for range mounts {
		mnt := l.mount()
		dirs = append(dirs, mnt)
		there := filepath.Join(mnt, "commits", ids[1][:7], "tree")
		readers = append(readers,
			l.reads(l.path("tree"), there, `diff -r --no-dereference "$1" "$2"`),
			l.reads(l.path("tree"), there, `test "$(cd "$1" && find . | sort | sha256sum)" = "$(cd "$2" && find . | sort | sha256sum)"`),
			l.reads(l.path("tree"), there, `cd "$2" && for i in 1 2 3 4 5 6 7 8 9; do cmp "$1/sizes/8" sizes/8 && head -c 100 "$2/../../../README.txt" >/dev/null || exit; done`))
	}
	for left := (rounds(t) + 1) / 2; left > 0; {
		for range killsAtOnce {
			for _, mnt := range dirs {
				time.Sleep(time.Duration(chance.IntN(300)) * time.Millisecond)
				pid := l.server(mnt)
				l.must(syscall.Kill(pid, syscall.SIGKILL))
				l.within(time.Minute, "another server of "+mnt, func() bool { return l.server(mnt) != pid })
				left--
			}
		}
		if left > 0 {
			time.Sleep(11 * time.Second) // until the deaths are forgotten
		}
	}
	for _, r := range readers {
		r.stop(t)
	}
	for _, mnt := range dirs {
		sameTrees(t, "mount", l.path("tree"), filepath.Join(mnt, "commits", ids[2][:7], "tree"))
	}
}

// A reading is a shell that runs a program on two trees over and over.
type reading struct {
	what  string
	cmd   *exec.Cmd
	stdin *os.File
	out   bytes.Buffer
}

func (l *lab) reads(want, got, program string) *reading {
	l.t.Helper()
	theirs, ours, err := os.Pipe()
	l.must(err)
	r := &reading{what: program, stdin: ours}
	r.cmd = l.command("bash", "-c", `n=0; while ! read -t 0; do ( `+program+` ) || exit 1; n=$((n+1)); done; echo "$n times"`, "bash", want, got)
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = theirs, &r.out, &r.out
	l.must(r.cmd.Start())
	theirs.Close()
	l.t.Cleanup(func() { r.cmd.Process.Kill(); ours.Close() })
	return r
}

// stop ends a reading, which must have met no error.
func (r *reading) stop(t *testing.T) {
	t.Helper()
	_, _ = r.stdin.WriteString("\n")
	if err := r.cmd.Wait(); err != nil || !strings.HasSuffix(r.out.String(), " times\n") || r.out.String() == "0 times\n" {
		t.Errorf("%s: %v\n%.3000s", r.what, err, r.out.String())
	}
}

// TestNoHalfCommitIsMounted looks at a mount while a training commits and is killed: whatever is there is whole, also of the last moment. It is there
// soon, the fastest of some times, as others want the machine too.
func TestNoHalfCommitIsMounted(t *testing.T) {
	l := newLab(t)
	l.commits("1")
	mnt := l.mount()
	for took := []time.Duration{l.killedInMount(mnt)}; slices.Min(took) > 5*time.Second; took = append(took, l.killedInMount(mnt)) {
		if len(took) > 5 {
			t.Fatalf("the mount had everything of trainings that were killed after %v", took)
		}
	}
}

// killedInMount kills a training, and returns how long it takes until a mount has its end and all of its commits.
func (l *lab) killedInMount(mnt string) time.Duration {
	l.t.Helper()
	tr := l.train("1000000")
	l.awaits(tr, 3)
	l.must(tr.cmd.Process.Kill())
	killed := time.Now()
	_, _ = tr.wait()
	short := tr.id[:7]
	status := func() string {
		text, err := os.ReadFile(filepath.Join(mnt, "experiments", short, "experiment.json"))
		l.must(err)
		return string(text)
	}
	l.within(time.Minute, "the mount shows the end", func() bool { return strings.Contains(status(), `"crashed"`) })
	commits := l.show(tr.id).Commits
	var dirs []string
	for _, c := range commits {
		dirs = append(dirs, filepath.Join(mnt, "experiments", short, "commits", fmt.Sprintf("%08d-%s", c.Step, c.ID[:7])))
	}
	l.within(time.Minute, "the mount has all commits", func() bool {
		list, err := os.ReadDir(filepath.Join(mnt, "experiments", short, "commits"))
		return err == nil && len(list) == len(commits)
	})
	took := time.Since(killed)
	for i, hash := range l.hashes(dirs...) {
		if hash != tr.tries[commits[i].Step] {
			l.t.Errorf("in the mount commit %s is not what was there", commits[i].ID)
		}
	}
	return took
}

// TestDamageInMount damages a pack: its files cannot be read, and everything else can.
func TestDamageInMount(t *testing.T) {
	l := newLab(t)
	tr := &tree{t: t, dir: l.path("tree")}
	tr.folder("", 0o755)
	l.write("tree/good", strings.Repeat("good", 100_000))
	good, _ := l.commits("1")
	packs, err := filepath.Glob(filepath.Join(l.storage(), "pack", "*", "*"))
	l.must(err)
	l.write("tree/bad", "bad"+strings.Repeat("x", 100_000))
	bad, _ := l.commits("1")
	all, err := filepath.Glob(filepath.Join(l.storage(), "pack", "*", "*"))
	l.must(err)
	for _, pack := range all {
		if strings.Contains(strings.Join(packs, " "), pack) {
			continue
		}
		l.must(os.Chmod(pack, 0o600))
		f, err := os.OpenFile(pack, os.O_WRONLY, 0)
		l.must(err)
		_, err = f.WriteAt([]byte("damage"), 40)
		l.must(err)
		l.must(f.Close())
	}
	mnt := l.mount()
	read := func(commit, name string) error {
		_, err := os.ReadFile(filepath.Join(mnt, "commits", commit[:7], "tree", name))
		return err
	}
	if err := read(bad[0], "bad"); err == nil || !strings.Contains(err.Error(), syscall.EIO.Error()) {
		t.Errorf("a damaged file: %v", err)
	}
	for _, commit := range []string{good[0], bad[0]} {
		if err := read(commit, "good"); err != nil {
			t.Error(err)
		}
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"cat", bad[0] + ":tree/bad"}, "tree/bad"},
		{[]string{"checkout", "-f", "-o", filepath.Join(l.home, "out"), bad[0]}, "tree/bad"},
		{[]string{"check", "--read-data"}, "tree/bad"},
	} {
		out, stderr, code := l.try(binary, tt.args...)
		if code != 1 || !strings.Contains(out+stderr, tt.want) || strings.Contains(stderr, "tree/good") {
			t.Errorf("%q: exit code %d\n%s%s", tt.args, code, out, stderr)
		}
	}
	if got, err := os.ReadFile(filepath.Join(l.home, "out", "tree", "good")); err != nil || len(got) != 400_000 {
		t.Errorf("a checkout with one damaged file did not bring the others: %d bytes, %v", len(got), err)
	}
	if _, err := os.Stat(filepath.Join(l.home, "out", "tree", "bad")); err == nil {
		t.Error("a damaged file was checked out")
	}
}

// TestMountRefuses mounts where and how it cannot be.
func TestMountRefuses(t *testing.T) {
	l := newLab(t)
	l.commits("1")
	mnt := l.mount()
	refused := func(hint string, code int, name string, args ...string) {
		t.Helper()
		out, stderr, got := l.try(name, args...)
		if got != code || out != "" || !strings.HasPrefix(stderr, "replicate: error: ") || !strings.Contains(stderr, "replicate: hint: "+hint) {
			t.Errorf("%s: exit code %d\n%s%s", args, got, out, stderr)
		}
	}
	if out := l.replicate("mount", mnt); out != mnt+"\n" {
		t.Errorf("what is mounted already: %q", out)
	}
	other := newLab(t)
	other.commits("1")
	refused("replicate umount "+mnt, 1, binary, "mount", "-S", other.storage(), mnt)
	refused("replicate mount --status", 3, binary, "umount", l.home)

	require.Root(t)
	require.Program(t, "unshare")
	empty := t.TempDir()
	l.must(os.Chmod(filepath.Dir(empty), 0o755))
	inNamespace := func(script string) []string {
		return []string{"-m", "sh", "-c", script + ` "$1" mount "$2"`, "sh", binary, empty}
	}
	refused("modprobe fuse", 1, "unshare", inNamespace("mount -t tmpfs none /dev &&")...)
	l.asNobody()
	l.user = nil
	l.must(os.Chown(empty, 65534, 65534))
	refused("apt install fuse3", 1, "unshare", inNamespace(
		"for f in fusermount3 fusermount; do if test -e /usr/bin/$f; then mount --bind /dev/null /usr/bin/$f || exit; fi; done; exec setpriv --reuid 65534 --regid 65534 --clear-groups")...)
}

// TestHostileTreeOfAnOrdinaryUser mounts a tree of everything by fusermount3, as somebody whom permissions stop, and compares as the same:
// nobody else can enter. A mount namespace has a /dev/fuse for everybody.
func TestHostileTreeOfAnOrdinaryUser(t *testing.T) {
	require.Root(t)
	require.Fuse(t)
	for _, program := range []string{"fusermount3", "unshare", "setpriv", "rsync", "tar"} {
		require.Program(t, program)
	}
	l := newLab(t)
	tr := hostileTree(t, l.path("tree"))
	l.must(os.Remove(tr.path("sizes/sparse")))
	mnt, dev := filepath.Join(l.home, "mnt"), t.TempDir()
	l.must(os.Mkdir(mnt, 0o755))
	l.asNobody()
	tr.setTimes()
	ids, _ := l.commits("2")
	l.user = nil
	const asRoot = `mount -t tmpfs none "$1" && mknod -m 0666 "$1/fuse" c 10 229 && mount --bind "$1/fuse" /dev/fuse &&
		exec setpriv --reuid 65534 --regid 65534 --clear-groups bash -e -o pipefail -c "$2" bash "$3" "$4"`
	const asNobody = `
		replicate mount "$1" && trap 'replicate umount "$1"' EXIT
		there=$1/commits/$2/tree
		hash() { tar --sort=name --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime --owner=0 --group=0 --hard-dereference -C "$1" -cf - . | sha256sum; }
		same() {
			diff -r --no-dereference tree "$1"
			rsync -nrlptc --delete --itemize-changes tree/ "$1/"
			test "$(hash tree)" = "$(hash "$1")" || echo "another hash of tar: $1"
		}
		same "$there"
		cp -a "$there" "$HOME/copy"
		same "$HOME/copy"
		touch "$there/modes/0644" 2>/dev/null && echo "$there is writable"
		grep -q "^[^ ]* $1 fuse.replicate .*user_id=65534" /proc/mounts && echo compared`
	out, stderr, code := l.try("unshare", "-m", "sh", "-c", asRoot, "sh", dev, asNobody, mnt, ids[1][:7])
	if code != 0 || out != mnt+"\ncompared\n" {
		t.Errorf("exit code %d\n%.3000s\n%.3000s", code, out, stderr)
	}
}
