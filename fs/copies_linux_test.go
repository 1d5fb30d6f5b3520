package fs

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/fs/view"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// weightsTree is a folder with files that are large enough for copies, the last page of which is not whole.
func weightsTree(t testing.TB, names ...string) (dir string) {
	t.Helper()
	dir = tempDir(t)
	for i, name := range names {
		data := make([]byte, leastCopy+1234)
		_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(data)
		check(t, os.WriteFile(filepath.Join(dir, name), data, 0o644))
	}
	return dir
}

// serveCopies serves a mirror of a tree with copies, to which prepare is done before.
func serveCopies(t testing.TB, tree string, prepare func(*copies)) (mnt string, s *server) {
	t.Helper()
	needsPassthrough(t)
	o := testOptions(t, tree)
	v, err := openMirror(t.Context(), o)
	check(t, err)
	v.(*mirror).forever = true
	_, err = stateOf(o.StateDir, o.Dir).tryHold()
	check(t, err)
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s = newServer(v, false, log)
	s.copies = openCopies(order{Options: o}, log)
	prepare(s.copies)
	return serveIt(t, s), s
}

func needsPassthrough(t testing.TB) {
	t.Helper()
	needsMount(t, "cat", "cmp", "stat", "python3")
	require.Root(t)
	var uname unix.Utsname
	check(t, unix.Uname(&uname))
	if !kernelAtLeast(uname, 6, 9) {
		require.Missing(t, "Linux 6.9, which reads copies itself")
	}
}

// count returns how many copies there are.
func (c *copies) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.now)
}

func TestKernelReadsWhatWasReadCompletely(t *testing.T) {
	tree := weightsTree(t, "weights")
	mnt, s := serveCopies(t, tree, func(*copies) {})
	original := filepath.Join(tree, "weights")
	number := must(t, mnt, "stat", "-c", "%i %s", "weights")
	script := `exec 3<weights
		cmp weights "$0" || exit 1
		cmp weights "$0" || exit 2
		cmp /proc/self/fd/3 "$0" || exit 3
		cmp - "$0" <&3 || exit 4`
	must(t, mnt, "sh", "-c", script, original) // the first one opens it before there is a copy and reads it afterwards
	if n := s.copies.count(); n != 1 {
		t.Fatalf("%d copies of a file that was read completely", n)
	}
	must(t, mnt, "cmp", "weights", original)
	read := func() {
		must(t, mnt, "cmp", "weights", original)
		must(t, mnt, "python3", "-c", `import mmap, sys
a, b = (open(p, "rb") for p in ("weights", sys.argv[1]))
assert mmap.mmap(a.fileno(), 0, prot=mmap.PROT_READ)[:] == b.read()
assert a.read() == open("/proc/self/fd/%d" % a.fileno(), "rb").read()`, original)
	}
	if n := s.counted(t, read, opRead); n != 0 { // its node is new: nothing of it can be in the page cache
		t.Errorf("%d READs of a file that has a copy", n)
	}
	if got := must(t, mnt, "stat", "-c", "%i %s", "weights"); got != number {
		t.Errorf("inode number and size are %s, were %s", got, number)
	}
}

// TestCopyOfAFileOfACommit reads one whose chunks are stored as they are and, behind these, compressed.
func TestCopyOfAFileOfACommit(t *testing.T) {
	needsPassthrough(t)
	tree := weightsTree(t, "weights")
	original := filepath.Join(tree, "weights")
	f, err := os.OpenFile(original, os.O_WRONLY|os.O_APPEND, 0)
	check(t, err)
	_, err = f.WriteString(strings.Repeat("a line that is found again and again\n", 100_000))
	check(t, err)
	check(t, f.Close())
	p := newProject(t, tree)
	w, _ := p.begin()
	commit := p.commit(w, 1)
	p.end(w)
	o := p.options()
	dir := filepath.Join(mount(t, o), "commits", commit.Short())
	for range 2 {
		must(t, dir, "cmp", "weights", original)
		table, err := os.ReadFile(stateOf(o.StateDir, o.Dir).path("copies"))
		check(t, err)
		if lines := bytes.Count(table, []byte("\n")); lines != 1 {
			t.Errorf("the table of copies is %q", table)
		}
	}
}

func TestPartOfAFileMakesNoCopy(t *testing.T) {
	tree := weightsTree(t, "weights")
	mnt, s := serveCopies(t, tree, func(*copies) {})
	must(t, mnt, "sh", "-c", "head -c 9000000 weights >/dev/null; tail -c 4000000 weights >/dev/null")
	if n := s.copies.count(); n != 0 {
		t.Fatalf("%d copies of a file of which a part was read", n)
	}
	must(t, mnt, "cmp", "weights", filepath.Join(tree, "weights"))
	if n := s.copies.count(); n != 1 {
		t.Errorf("%d copies after the rest was read too", n)
	}
}

func TestCopyThatRestsMakesRoom(t *testing.T) {
	tree := weightsTree(t, "a", "b", "c")
	mnt, s := serveCopies(t, tree, func(c *copies) {
		later := time.Now()
		c.limit, c.clock = leastCopy*3/2, func() time.Time { later = later.Add(2 * copyRest); return later }
	})
	c := s.copies
	same := func(name string) {
		t.Helper()
		must(t, mnt, "cmp", name, filepath.Join(tree, name))
	}
	copied := func() string {
		c.mu.Lock()
		defer c.mu.Unlock()
		var names []string
		for id := range c.now {
			names = append(names, s.view.(*mirror).nodes[id-1].path)
		}
		return strings.Join(names, " ")
	}
	same("a")
	release := openElsewhere(t, filepath.Join(mnt, "a"))
	same("b")
	if got := copied(); got != "a" {
		t.Errorf("the copies are of %q, but a is open", got)
	}
	release()
	waitUntil(t, func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.handles) == 0 })
	same("c")
	if got := copied(); got != "c" {
		t.Errorf("the copies are of %q after c was read", got)
	}
	for _, name := range []string{"a", "b", "c"} {
		same(name)
	}
}

func TestCopiesOutliveTheServer(t *testing.T) {
	needsPassthrough(t)
	tree := weightsTree(t, "weights")
	o := testOptions(t, tree)
	mnt := mount(t, o)
	original := filepath.Join(tree, "weights")
	must(t, mnt, "cmp", "weights", original)
	table := stateOf(o.StateDir, o.Dir).path("copies")
	data, err := os.ReadFile(table)
	check(t, err)
	if !strings.HasPrefix(string(data), "copy 1 ") {
		t.Fatalf("the table of copies is %q", data)
	}
	pid := serverOf(t, o, 0)
	script := `import sys
weights, original = open("weights", "rb"), open(sys.argv[1], "rb").read()
for _ in sys.stdin:
    for f in weights, open("weights", "rb"), open("/proc/self/fd/%d" % weights.fileno(), "rb"):
        f.seek(0)
        assert f.read() == original
    print("read", flush=True)`
	cmd := exec.Command("python3", "-c", script, original)
	cmd.Dir, cmd.Stderr = mnt, os.Stderr
	stdin, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	lines := bufio.NewReader(out)
	for i := range maxCrashes {
		_, err := io.WriteString(stdin, "go\n")
		check(t, err)
		if line, err := lines.ReadString('\n'); err != nil || line != "read\n" {
			t.Fatalf("%q, %v", line, err)
		}
		if i < maxCrashes-1 {
			check(t, syscall.Kill(pid, syscall.SIGKILL))
			pid = serverOf(t, o, pid)
		}
	}
	stdin.Close()
	check(t, cmd.Wait())
	again, err := os.ReadFile(table)
	check(t, err)
	if string(again) != string(data) {
		t.Errorf("the table of copies is %q after a restart, was %q", again, data)
	}
}

func FuzzCopyTable(f *testing.F) {
	f.Add([]byte("copy 1 77 3 20000000\ncopy 2 9223372036854775807 4 16777216\nclosed 1\n"))
	f.Add([]byte("closed 1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parseCopies(data)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), "table")
		table, _, err := openCopyTable(path, false)
		check(t, err)
		defer table.Close()
		for i, k := range all {
			check(t, writeCopied(table, i+1, k))
			if k.closed {
				check(t, writeClosed(table, i+1))
			}
		}
		_, err = table.WriteString("copy 99 1") // torn
		check(t, err)
		again, got, err := openCopyTable(path, true)
		check(t, err)
		defer again.Close()
		if len(got) != len(all) {
			t.Fatalf("%d copies became %d", len(all), len(got))
		}
		for i := range got {
			if *got[i] != *all[i] {
				t.Errorf("%+v became %+v", *all[i], *got[i])
			}
		}
	})
}

func waitUntil(t testing.TB, true func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !true(); pause(context.Background(), time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come true")
		}
	}
}

// openElsewhere has another process hold a file open until the returned function is called.
func openElsewhere(t testing.TB, path string) (release func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `exec 3<"$0" && echo open && read line`, path)
	stdin, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "open\n" {
		t.Fatalf("open %s: %v", path, err)
	}
	return func() { stdin.Close(); _ = cmd.Wait() }
}

func TestNameOfAFileWithACopyIsForgottenOnceItIsClosed(t *testing.T) {
	c := &copies{now: map[view.ID]int{}, names: map[view.ID]view.Change{}}
	at := view.Change{Dir: 5, Name: "weights"}
	c.named(7, at)
	if _, forget := c.release(7, 0); forget {
		t.Error("forgotten before there is a copy")
	}
	c.now[7] = 1
	if name, forget := c.release(7, 0); !forget || name != at {
		t.Errorf("%+v, %v when it was closed", name, forget)
	}
	if _, forget := c.release(7, 0); forget {
		t.Error("forgotten again")
	}
}
