package code

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/storage/storagetest/require"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// random returns n bytes that depend on the seed alone.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	rng.Read(b)
	return b
}

func write(t testing.TB, path string, content []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, content, 0o644))
}

// hostile makes a tree with everything that a tree may hold.
func hostile(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	for name, content := range map[string][]byte{
		"train.py":                               []byte("print(1)\n"),
		"a b/ümlaut é":                           []byte("x"),
		"new\nline\n/in\nit":                     []byte("y"),
		"not\xff\xfeutf8/\x01":                   []byte("z"),
		"-rf":                                    []byte("dash"),
		"empty.txt":                              nil,
		"deep/" + strings.Repeat("d/", 60) + "f": []byte("deep"),
		strings.Repeat("n", 255):                 []byte("long name"),
		strings.Repeat("p", 200) + "/" + strings.Repeat("q", 200) + "/file.bin": random(7, 100_000),
		"a-b":           []byte("sorts behind a b/"),
		"large.bin":     random(1, 9<<20),
		"twin.bin":      random(1, 9<<20),
		"zeros.bin":     make([]byte, 10<<20),
		"run.sh":        []byte("#!/bin/sh\n"),
		"setuid":        []byte("s"),
		"readonly/in":   []byte("r"),
		"code.manifest": []byte("not the manifest"),
		"trailing.":     []byte("dot"), "trailing ": []byte("space"), "back\\slash": []byte("b"), "C:": []byte("c"),
	} {
		write(t, filepath.Join(root, name), content)
	}
	must(t, os.MkdirAll(filepath.Join(root, "empty/dirs/below"), 0o755))
	for name, target := range map[string]string{
		"link": "train.py", "dangling": "nowhere", "loop": "loop", "up": "../outside", "abs": "/etc/hostname", "dirlink": "a b", "self": ".",
		"odd": "new\nline\n/\xff",
	} {
		must(t, os.Symlink(target, filepath.Join(root, name)))
	}
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o600))
	must(t, os.Chmod(filepath.Join(root, "run.sh"), 0o755))
	must(t, os.Chmod(filepath.Join(root, "setuid"), 0o755|os.ModeSetuid))
	for i, name := range []string{"train.py", "empty.txt", "a b/ümlaut é", "empty/dirs", "empty"} {
		when := time.Unix(int64(i-2)*100_000_000, 123_456_789+int64(i)) // some before 1970
		must(t, os.Chtimes(filepath.Join(root, name), when, when))
	}
	must(t, unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(root, "link"), []unix.Timespec{{Sec: 5, Nsec: 6}, {Sec: 7, Nsec: 8}}, unix.AT_SYMLINK_NOFOLLOW))
	must(t, os.Chmod(filepath.Join(root, "readonly"), 0o555))
	t.Cleanup(func() { os.Chmod(filepath.Join(root, "readonly"), 0o755) })
	return root
}

// same compares two trees: content and kinds, and by rsync modes and times of links too. What no tree holds must be gone from a before.
func same(t testing.TB, a, b string) {
	t.Helper()
	if err := os.Remove(filepath.Join(a, "fifo")); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	out, err := exec.Command(require.Program(t, "diff"), "-r", "--no-dereference", a, b).CombinedOutput()
	if err != nil {
		t.Fatalf("diff: %v\n%s", err, out)
	}
	rsync := exec.Command(require.Program(t, "rsync"), "-nrlptc", "--delete", "--omit-dir-times", "--itemize-changes", a+"/", b+"/")
	if out, err = rsync.CombinedOutput(); err != nil || len(bytes.TrimSpace(out)) > 0 && !bytes.Equal(bytes.TrimSpace(out), []byte(".d...p..... ./")) {
		t.Fatalf("rsync: %v\n%s", err, out)
	}
	sameTimes(t, a, b)
}

// sameTimes compares mtimes to the nanosecond, directories and links included.
func sameTimes(t testing.TB, a, b string) {
	t.Helper()
	must(t, filepath.WalkDir(a, func(path string, e os.DirEntry, err error) error {
		if err != nil || path == a {
			return err
		}
		rel, _ := filepath.Rel(a, path)
		x, err := os.Lstat(path)
		must(t, err)
		y, err := os.Lstat(filepath.Join(b, rel))
		must(t, err)
		if rel != "." && !x.ModTime().Equal(y.ModTime()) {
			t.Errorf("%q: %v instead of %v", rel, y.ModTime(), x.ModTime())
		}
		return nil
	}))
}

func scan(t testing.TB, o Options) *Tree {
	t.Helper()
	tree, err := Scan(t.Context(), o)
	must(t, err)
	return tree
}

func TestScanReportsWhatIsLeftOutAndLeadsOut(t *testing.T) {
	root := hostile(t)
	write(t, filepath.Join(root, ".env"), []byte("TOKEN=1"))
	write(t, filepath.Join(root, "data/big"), make([]byte, 5000))
	write(t, filepath.Join(root, "more/big"), make([]byte, 700))
	write(t, filepath.Join(root, ".gitignore"), []byte("/data\n"))
	write(t, filepath.Join(root, "storage/pack"), make([]byte, 100))
	tree := scan(t, Options{Root: root, Ignore: []string{"more/"}, Skip: []string{filepath.Join(root, "storage"), filepath.Join(root, "not there")}})
	var got []string
	for _, l := range tree.LeftOut {
		got = append(got, l.Path+" "+l.Why)
	}
	want := ".env secret,data/ .gitignore:1,fifo fifo,more/ replicate.yaml: more/"
	if strings.Join(got, ",") != want {
		t.Errorf("left out %q, want %q", strings.Join(got, ","), want)
	}
	if tree.LeftOut[1].Bytes != 5000 {
		t.Errorf("data/ has %d bytes", tree.LeftOut[1].Bytes)
	}
	if got := strings.Join(tree.Outside, ","); got != "abs,up" {
		t.Errorf("outside: %q", got)
	}
	for _, s := range tree.sights {
		if strings.HasPrefix(s.Path, "storage") {
			t.Errorf("%s is in the tree", s.Path)
		}
	}
}

// flip changes one bit of a file.
func flip(path string, at int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	var b [1]byte
	_, err = f.ReadAt(b[:], at)
	b[0] ^= 1
	_, werr := f.WriteAt(b[:], at)
	return errors.Join(err, werr, f.Close())
}

// TestSendSurvivesFilesThatChange changes files between the look at the tree and their turn.
func TestSendSurvivesFilesThatChange(t *testing.T) {
	root, target := t.TempDir(), t.TempDir()
	for _, name := range []string{"gone", "grows", "shrinks", "stays", "unlike"} {
		write(t, filepath.Join(root, name), random(1, 5000))
	}
	tree := scan(t, Options{Root: root})
	must(t, os.Remove(filepath.Join(root, "gone")))
	must(t, os.WriteFile(filepath.Join(root, "grows"), random(2, 9000), 0o644))
	must(t, os.Truncate(filepath.Join(root, "shrinks"), 100))
	must(t, os.Remove(filepath.Join(root, "unlike")))
	must(t, os.Mkdir(filepath.Join(root, "unlike"), 0o755))
	report := transfer(t, tree, ReceiveOptions{Chunks: t.TempDir(), Target: target})
	for name, want := range map[string][]byte{"grows": random(2, 9000), "shrinks": random(1, 100), "stays": random(1, 5000)} {
		if got, err := os.ReadFile(filepath.Join(target, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	var why []string
	for _, l := range report.LeftOut {
		why = append(why, l.Path+": "+l.Why)
	}
	if got := strings.Join(why, ", "); got != "gone: not there, unlike: changed while it was read" {
		t.Errorf("left out %s", got)
	}
}

// ends runs both ends of a transfer over one connection.
func ends(ctx context.Context, tree *Tree, here, there net.Conn, o ReceiveOptions) (Report, error, error) {
	received := make(chan error, 1)
	go func() {
		err := Receive(ctx, there, o)
		there.Close()
		received <- err
	}()
	report, err := tree.Send(ctx, here, SendOptions{})
	here.Close()
	return report, err, <-received
}

// transfer sends a tree and wants it to arrive.
func transfer(t testing.TB, tree *Tree, o ReceiveOptions) Report {
	t.Helper()
	here, there := net.Pipe()
	report, sent, received := ends(t.Context(), tree, here, there, o)
	must(t, sent)
	must(t, received)
	return report
}

func TestSendKeepsAHostileTree(t *testing.T) {
	root := hostile(t)
	tree := scan(t, Options{Root: root})
	dir := t.TempDir()
	target := filepath.Join(dir, "code")
	report := transfer(t, tree, ReceiveOptions{Chunks: filepath.Join(dir, "chunks"), Target: target})
	if report.Files != tree.Files || report.Bytes != tree.Bytes {
		t.Errorf("sent %d files of %d bytes of %d and %d", report.Files, report.Bytes, tree.Files, tree.Bytes)
	}
	t.Cleanup(func() { os.Chmod(target+"/readonly", 0o755) })
	same(t, root, target)
	var st unix.Stat_t
	must(t, unix.Stat(target+"/zeros.bin", &st))
	if st.Blocks*512 > 1<<20 {
		t.Errorf("zeros take %d bytes", st.Blocks*512)
	}
}

func TestSecondSendSendsNothing(t *testing.T) {
	root := hostile(t)
	chunks := t.TempDir()
	transfer(t, scan(t, Options{Root: root}), ReceiveOptions{Chunks: chunks, Target: t.TempDir()})
	report := transfer(t, scan(t, Options{Root: root}), ReceiveOptions{Chunks: chunks, Target: t.TempDir()})
	if report.Sent != 0 || report.Wire > 10_000 {
		t.Errorf("%d bytes in %d", report.Sent, report.Wire)
	}
}

// A recorded connection keeps what was written to it.
type recorded struct {
	net.Conn
	said bytes.Buffer
}

func (r *recorded) Write(p []byte) (int, error) {
	r.said.Write(p)
	return r.Conn.Write(p)
}

func TestNothingIsReadBehindATree(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(root, "f"), []byte("content"), 0o644))
	one, two := net.Pipe()
	here, there := &recorded{Conn: one}, &recorded{Conn: two}
	_, sent, received := ends(t.Context(), scan(t, Options{Root: root}), here, there, ReceiveOptions{Chunks: dir + "/one", Target: dir + "/code"})
	must(t, sent)
	must(t, received)

	const behind = "what somebody else says"
	said := bytes.NewReader(append(here.said.Bytes(), behind...))
	must(t, Receive(t.Context(), script{said, io.Discard}, ReceiveOptions{Chunks: dir + "/two", Target: dir + "/again"}))
	if rest, _ := io.ReadAll(said); string(rest) != behind {
		t.Errorf("Receive left %q", rest)
	}
	said = bytes.NewReader(append(there.said.Bytes(), behind...))
	_, err := scan(t, Options{Root: root}).Send(t.Context(), closing{script{said, io.Discard}}, SendOptions{})
	must(t, err)
	if rest, _ := io.ReadAll(said); string(rest) != behind {
		t.Errorf("Send left %q", rest)
	}
}
