package repository

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// randomBytes returns n bytes that cannot be compressed, the same for the same seed.
func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// hostileTree makes every kind of thing that a directory can hold.
func hostileTree(t *testing.T, root string) {
	t.Helper()
	long := strings.Repeat("n", 255)
	writeFiles(t, root,
		"empty", "", "empty dir/", "", "dir/nested/deep/", "",
		"with space", "1", "with\nnewline", "2", "quote\"'`\\", "3", "caf\xe9 is not UTF-8", "4", "é", "5", long, "6", "-rf", "7", "dir/.hidden", "8",
		"a/9", "9", "a-b", "10", "a.d/x", "11", "same 1", strings.Repeat("same", 1000), "same 2", strings.Repeat("same", 1000))
	for name, size := range map[string]int{
		"64K": smallFile, "64K+1": smallFile + 1, "1M-1": minChunked - 1, "1M": minChunked, "3M": 3 << 20, "20M": 20 << 20, "exact group": groupSize,
	} {
		must(t, os.WriteFile(root+"/"+name, randomBytes(uint64(size), size), 0o644))
	}
	must(t, os.WriteFile(root+"/20M copy", randomBytes(uint64(20<<20), 20<<20), 0o600))
	for i := range 300 {
		writeFiles(t, root, fmt.Sprintf("many/%d/%d", i%7, i), strings.Repeat(fmt.Sprint(i, " "), i))
	}
	sparse, err := os.Create(root + "/sparse")
	must(t, err)
	must(t, sparse.Truncate(100<<20))
	_, err = sparse.WriteAt([]byte("in the middle"), 50<<20)
	must(t, err)
	must(t, sparse.Close())
	for name, target := range map[string]string{
		"link to file": "empty", "link to dir": "dir", "link to nothing": "no such file", "link out": "/etc/passwd", "dir/link up": "../empty",
		"link with \xff": "bad \xff name", "link to fifo": "fifo",
	} {
		must(t, os.Symlink(target, root+"/"+name))
	}
	must(t, os.Link(root+"/3M", root+"/hard link"))
	for i, mode := range []os.FileMode{0o755, 0o400, 0o777, 0o111 | 0o400, 0o644 | os.ModeSetuid, 0o755 | os.ModeSticky, 0o444} {
		name := fmt.Sprintf("%s/mode %d", root, i)
		writeFiles(t, root, fmt.Sprintf("mode %d", i), fmt.Sprint(i))
		must(t, os.Chmod(name, mode))
		must(t, os.Chtimes(name, time.Time{}, time.Unix(1_500_000_000+int64(i), int64(i)*111_111_111)))
	}
	must(t, os.Chtimes(root+"/empty", time.Time{}, time.Unix(-5, 7)))
	must(t, os.Chmod(root+"/dir/nested", 0o700))
	must(t, os.Chtimes(root+"/empty dir", time.Time{}, time.Unix(1_000_000_000, 123_456_789)))
	must(t, unix.Mkfifo(root+"/fifo", 0o600))
	socket, err := net.Listen("unix", root+"/s") // paths of sockets are short
	must(t, err)
	t.Cleanup(func() { socket.Close() })
}

func TestHostileTree(t *testing.T) {
	for _, program := range []string{"diff", "rsync", "tar"} {
		require.Program(t, program)
	}
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, store)
			root, err := os.MkdirTemp("", "h") // a short path, for the socket
			must(t, err)
			t.Cleanup(func() { os.RemoveAll(root) })
			l.root = root
			hostileTree(t, l.root)
			w, snap := l.begin(WriterOptions{})
			var left []string
			for _, o := range snap.LeftOut {
				left = append(left, o.Path+" ("+o.Why+")")
			}
			equalTexts(t, "left out", left, []string{"fifo (fifo)", "s (socket)"})
			row, _ := l.commit(w, CommitRequest{})
			dir := l.checkout(row.Row)
			must(t, w.End(t.Context(), replicate.Finished, nil))
			compareTrees(t, l.root, dir)
		})
	}
}

// compareTrees compares with programs that are not ours. FIFOs and sockets are left out of a, and so is .replicate.
func compareTrees(t *testing.T, a, b string) {
	t.Helper()
	run := func(name string, args ...string) {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		text := strings.TrimSpace(strings.TrimSuffix(string(out), " ./\n")) // the root itself is in no tree
		if text != "" && !strings.HasPrefix(text, ".d") {
			t.Errorf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	run("rsync", "-nrlptcHD", "--no-H", "--delete", "--itemize-changes", "--exclude=/.replicate", "--exclude=/fifo", "--exclude=/s", a+"/", b+"/")
	run("diff", "-r", "--no-dereference", "-x", ".replicate", "-x", "fifo", "-x", "s", a, b)
	// mtimes to the nanosecond, which rsync and diff do not show
	list := func(dir string) []string {
		c := exec.Command("find", ".", "-mindepth", "1", "-path", "./.replicate", "-prune", "-o", "!", "-type", "p", "!", "-type", "s",
			"-printf", `%P|%y|%m|%T@|%l\0`)
		c.Dir = dir
		out, err := c.Output()
		must(t, err)
		lines := strings.Split(string(bytes.TrimSuffix(out, []byte{0})), "\x00")
		slices.Sort(lines)
		return lines
	}
	x, y := list(a), list(b)
	for i := range max(len(x), len(y)) {
		switch {
		case i >= len(x) || i >= len(y):
			t.Fatalf("%d paths became %d", len(x), len(y))
		case x[i] != y[i]:
			t.Errorf("%q became %q", x[i], y[i])
		}
	}
}
