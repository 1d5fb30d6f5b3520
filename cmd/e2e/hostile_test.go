package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// leftOut begins the names of what no commit has.
const leftOut = "left-out-"

// commits runs testdata/commits.py and returns the commits that it made and what it said.
func (l *lab) commits(args ...string) (ids []string, stderr string) {
	l.t.Helper()
	out, stderr, code := l.try(python(l.t), append([]string{l.script("commits.py")}, args...)...)
	if code != 0 {
		l.t.Fatalf("the training ended with %d:\n%s", code, stderr)
	}
	return strings.Fields(out), stderr
}

// A tree is made below a directory. Its errors end the test.
type tree struct {
	t      testing.TB
	dir    string
	random *rand.ChaCha8
}

func (tr *tree) must(err error) {
	tr.t.Helper()
	if err != nil {
		tr.t.Fatal(err)
	}
}

func (tr *tree) path(name string) string { return filepath.Join(tr.dir, name) }

func (tr *tree) folder(name string, mode uint32) {
	tr.t.Helper()
	tr.must(os.MkdirAll(tr.path(name), 0o755))
	tr.must(unix.Chmod(tr.path(name), mode))
}

func (tr *tree) file(name string, size int, mode uint32) {
	tr.t.Helper()
	content := make([]byte, size)
	_, _ = tr.random.Read(content)
	tr.must(os.WriteFile(tr.path(name), content, 0o600))
	tr.must(unix.Chmod(tr.path(name), mode))
}

// sparse makes a file of holes with data here and there, also at its end.
func (tr *tree) sparse(name string, size int64, pieces int) {
	tr.t.Helper()
	f, err := os.Create(tr.path(name))
	tr.must(err)
	defer f.Close()
	tr.must(f.Truncate(size))
	piece := make([]byte, 1<<20)
	for i := range pieces {
		_, _ = tr.random.Read(piece)
		_, err := f.WriteAt(piece, (size-int64(len(piece)))*int64(i)/int64(max(1, pieces-1)))
		tr.must(err)
	}
}

// names are those that have broken tools.
var names = []string{
	" ", " leading", "trailing ", "two  spaces", "new\nline", "\n", "tab\t", "quote'", `double"quote`, `back\slash`, "`tick`", "$HOME", "$(true)", "*", "?", "[a]",
	"-rf", "--", "~", "#hash#", "!bang", "a;b", "a|b", "a&b", "<a>", "%41", "%2F", "...", "..a", "ünïcode", "u\u0308", "日本語", "\u202egnp", "\x01\x02\x7f", "\xff\xfe\x80",
	"\xc3", strings.Repeat("x", 255), strings.Repeat("\xfe", 255), strings.Repeat("ä", 127), "nul", "con.txt", "a:b", "README.txt", "latest", "best", "commits", "replicate.yaml.txt",
}

// hostileTree makes a tree of everything that a file system has. It needs no rights.
func hostileTree(t testing.TB, dir string) *tree {
	t.Helper()
	tr := &tree{t: t, dir: dir, random: rand.NewChaCha8([32]byte{7})}
	tr.folder("", 0o755)
	for _, name := range []string{"empty", "empty/nested/deep", "names", "modes", "times", "links", "sizes"} {
		tr.folder(name, 0o755)
	}
	for i, name := range names {
		tr.file("names/"+name, i, 0o644)
		tr.folder("names/dir "+name[:min(len(name), 250)], 0o755)
		tr.file("names/dir "+name[:min(len(name), 250)]+"/"+name, 10, 0o644)
	}
	for _, mode := range []uint32{0o400, 0o444, 0o500, 0o600, 0o640, 0o666, 0o700, 0o755, 0o777, 0o4755, 0o2755, 0o1644, 0o6711} {
		tr.file(fmt.Sprintf("modes/%04o", mode), 100, mode)
	}
	for _, mode := range []uint32{0o500, 0o700, 0o777, 0o1777, 0o2775} {
		name := fmt.Sprintf("modes/dir%04o", mode)
		tr.folder(name, 0o755)
		tr.file(name+"/file", 10, 0o644)
		tr.folder(name, mode)
	}
	for i, size := range []int{0, 1, 4095, 64 << 10, 64<<10 + 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, 9<<20 + 5} {
		tr.file(fmt.Sprintf("sizes/%d", i), size, 0o644)
	}
	tr.sparse("sizes/sparse", 300<<20, 20)
	tr.sparse("sizes/hole", 5<<20, 0)
	for name, target := range map[string]string{
		"file": "../sizes/1", "dir": "../modes", "nothing": "no such file", "outside": "/etc/passwd", "above": "../../../..", "self": "self", "dot": ".", "space": " a\nb ",
		"bytes": "\xff", "long": strings.Repeat("y", 4000),
	} {
		tr.must(os.Symlink(target, tr.path("links/"+name)))
	}
	tr.file("links/hard", 2<<20, 0o644)
	tr.must(os.Link(tr.path("links/hard"), tr.path("links/hard2")))
	tr.must(os.Link(tr.path("links/hard"), tr.path("empty/hard3")))
	return tr
}

// smallFiles adds n files of up to 2 kB.
func (tr *tree) smallFiles(n int) {
	tr.t.Helper()
	for i := range n {
		folder := fmt.Sprintf("many/%d", i%200)
		if i < 200 {
			tr.folder(folder, 0o755)
		}
		tr.file(fmt.Sprintf("%s/%d", folder, i), i*7%2000, 0o644)
	}
}

// setTimes gives everything an mtime of its own, to the nanosecond. What changes the tree afterwards changes the times of folders.
func (tr *tree) setTimes() {
	tr.t.Helper()
	for i, at := range []time.Time{
		time.Unix(0, 0), time.Unix(0, 1), time.Unix(-1, 999_999_999), time.Unix(-86400*365*30, 5), time.Unix(1<<32, 7), time.Unix(4102444800, 123456789), time.Unix(1600000000, 1),
	} {
		name := fmt.Sprintf("times/%d", i)
		tr.file(name, 10, 0o644)
		tr.setTime(name, at)
		tr.folder(name+"d", 0o755)
		tr.setTime(name+"d", at)
	}
	tr.setTime("links/nothing", time.Unix(1234567890, 987654321))
	tr.setTime("times", time.Unix(1500000000, 111222333))
	tr.setTime("empty", time.Unix(1500000001, 1))
	tr.setTime("", time.Unix(1500000002, 2))
}

func (tr *tree) setTime(name string, at time.Time) {
	tr.t.Helper()
	ts := unix.NsecToTimespec(at.UnixNano())
	tr.must(unix.UtimesNanoAt(unix.AT_FDCWD, tr.path(name), []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW))
}

// specials adds what must be left out, and returns the names.
func (tr *tree) specials() (names []string) {
	tr.t.Helper()
	add := func(name string) string {
		names = append(names, name)
		return tr.path(name)
	}
	tr.must(unix.Mkfifo(add(leftOut+"fifo"), 0o666))
	tr.must(unix.Mkfifo(add("empty/"+leftOut+"fifo"), 0o666))
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: add(leftOut + "socket")})
	tr.must(err)
	listener.SetUnlinkOnClose(false)
	tr.t.Cleanup(func() { listener.Close() })
	if os.Geteuid() == 0 {
		tr.must(unix.Mknod(add(leftOut+"null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
		tr.must(unix.Mknod(add(leftOut+"disk"), unix.S_IFBLK|0o600, int(unix.Mkdev(254, 250))))
	}
	return names
}

// sameTrees compares two trees by tools that are not ours.
func sameTrees(t testing.TB, what, want, got string) {
	t.Helper()
	start := time.Now()
	silent := func(name string, args ...string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), require.Program(t, name), args...).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("%s: %s: %v\n%.3000s", what, name, err, out)
		}
	}
	silent("diff", "-r", "--no-dereference", "-x", leftOut+"*", want, got)
	silent("rsync", "-nrlptc", "--delete", "--itemize-changes", "--exclude", leftOut+"*", want+"/", got+"/")
	if a, b := tarHash(t, want), tarHash(t, got); a != b {
		t.Errorf("%s: the hashes of tar are %s and %s", what, a, b)
	}
	t.Logf("%s: compared in %v", what, time.Since(start).Round(time.Millisecond))
}

func tarHash(t testing.TB, dir string) string {
	t.Helper()
	require.Program(t, "tar")
	cmd := exec.CommandContext(t.Context(), "bash", "-o", "pipefail", "-c", `tar --sort=name --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
		--owner=0 --group=0 --numeric-owner --hard-dereference --exclude="$2*" -C "$1" -cf - . | sha256sum`, "bash", dir, leftOut)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("tar of %s: %v\n%s", dir, err, stderr.String())
	}
	return string(out)
}

// TestHostileTree commits a tree of everything, and compares the working directory, the commit in the mount, a copy of that, and a checkout.
func TestHostileTree(t *testing.T) {
	l := newLab(t)
	tr := hostileTree(t, l.path("tree"))
	tr.file("modes/0000", 100, 0)
	tr.folder("modes/dir0000", 0)
	if os.Geteuid() != 0 {
		tr.must(os.Rename(tr.path("modes/0000"), tr.path("modes/"+leftOut+"0000")))
		tr.must(os.Rename(tr.path("modes/dir0000"), tr.path("modes/"+leftOut+"dir0000")))
	}
	tr.smallFiles(20_000)
	special := tr.specials()
	tr.setTimes()
	open := l.waitsForReader(tr.path(leftOut + "fifo"))

	ids, stderr := l.commits("2")
	for _, name := range special {
		if !strings.Contains(stderr, "tree/"+name) {
			t.Errorf("%s is left out without a word", name)
		}
	}
	if open() {
		t.Error("the FIFO was opened")
	}
	t.Log(stderr)

	l.checksOut(ids[0], "tree")
	l.mountShows(ids[0], "tree")
	l.check(l.storage())
	packs := l.size(filepath.Join(l.storage(), "pack"))
	if files := l.size(l.path("tree")); packs > files/2 {
		t.Errorf("%d bytes are stored of %d, of which most are holes", packs, files)
	}
}

// TestUnreadableFilesAreLeftOut commits a tree of which some is closed to its owner.
func TestUnreadableFilesAreLeftOut(t *testing.T) {
	l := newLab(t)
	tr := hostileTree(t, l.path("tree"))
	closed := map[string]uint32{}
	for name, mode := range map[string]uint32{"none": 0, "write": 0o200, "execute": 0o111} {
		file, folder := "empty/"+leftOut+name, leftOut+"dir-"+name
		closed[file], closed[folder] = mode, mode
		tr.file(file, 10, 0o600)
		tr.folder(folder, 0o755)
		tr.file(folder+"/file", 10, 0o644)
	}
	l.asNobody()
	for name, mode := range closed {
		tr.must(unix.Chmod(tr.path(name), mode))
	}
	tr.setTimes()
	ids, stderr := l.commits("2")
	for name := range closed {
		if !strings.Contains(stderr, "tree/"+name) {
			t.Errorf("%s is left out without a word", name)
		}
	}
	l.checksOut(ids[1], "tree")
	if t.Failed() {
		t.Log(stderr)
	}
	l.check(l.storage())
}

// TestFilesThatChange commits over and over while files are replaced, grow, shrink, vanish and become something else.
func TestFilesThatChange(t *testing.T) {
	l := newLab(t)
	tr := &tree{t: t, dir: l.path("tree"), random: rand.NewChaCha8([32]byte{8})}
	tr.folder("still", 0o755)
	tr.folder("vanish", 0o755)
	tr.file("still/large", 3<<20, 0o644)
	tr.file("still/small", 10, 0o600)
	tr.setTime("still", time.Unix(1500000000, 5))
	one, two := bytes.Repeat([]byte("one "), 1<<20), bytes.Repeat([]byte("two "), 3<<18)
	tr.must(os.WriteFile(tr.path("replaced"), one, 0o644))
	for _, name := range []string{"grows", "shrinks", "becomes"} {
		tr.must(os.WriteFile(tr.path(name), nil, 0o644))
	}
	line := func(n int) string { return fmt.Sprintf("line %d\n", n) }

	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			content := [][]byte{one, two}[n%2]
			_ = os.WriteFile(l.path("next"), content, 0o644)
			_ = os.Rename(l.path("next"), tr.path("replaced"))
			if f, err := os.OpenFile(tr.path("grows"), os.O_APPEND|os.O_WRONLY, 0); err == nil {
				for i := range 100 {
					_, _ = f.WriteString(line(n*100 + i))
				}
				f.Close()
			}
			_ = os.WriteFile(tr.path("shrinks"), one[:(n*7919)%len(one)], 0o644)
			vanishing := tr.path(fmt.Sprintf("vanish/%d", n%5))
			if os.Remove(vanishing) != nil {
				_ = os.WriteFile(vanishing, one, 0o644)
			}
			_ = os.Remove(tr.path("becomes"))
			switch n % 5 {
			case 0:
				_ = unix.Mkfifo(tr.path("becomes"), 0o644)
			case 1:
				_ = os.Mkdir(tr.path("becomes"), 0o755)
			case 2:
				_ = os.Symlink("still", tr.path("becomes"))
			case 3:
				_ = os.WriteFile(tr.path("becomes"), one, 0o644)
			}
		}
	}()
	ids, stderr := l.commits("12")
	for range 20 { // until it was seen: where others want the machine too, who changes files may have no turn while they are read
		if strings.Contains(stderr, "tree/replaced changed while it was read") {
			break
		}
		more, said := l.commits("12")
		ids, stderr = append(ids, more...), stderr+said
	}
	close(stop)
	<-stopped
	if len(ids) == 0 || len(ids)%12 > 0 {
		t.Fatalf("%d commits:\n%s", len(ids), stderr)
	}
	for _, id := range ids {
		out := filepath.Join(l.checkout(id), "tree")
		sameTrees(t, "still", tr.path("still"), filepath.Join(out, "still"))
		if got, err := os.ReadFile(filepath.Join(out, "replaced")); err == nil && !bytes.Equal(got, one) && !bytes.Equal(got, two) {
			t.Errorf("what was replaced whole is a mixture of %d bytes", len(got))
		}
		got, err := os.ReadFile(filepath.Join(out, "grows"))
		l.must(err)
		for n := 0; len(got) > 0; n++ {
			want := line(n)
			if have := got[:min(len(want), len(got))]; !strings.HasPrefix(want, string(have)) {
				t.Fatalf("line %d of what only grows is %q", n, have)
			}
			got = got[min(len(want), len(got)):]
		}
		for _, name := range []string{"shrinks", "becomes", "vanish/0", "vanish/1"} {
			if got, err := os.ReadFile(filepath.Join(out, name)); err == nil && !bytes.HasPrefix(one, got) && len(got) > 0 {
				t.Errorf("%s of %d bytes never was like that", name, len(got))
			}
		}
	}
	l.check(l.storage())
	if strings.Contains(stderr, "replaced is not saved") || !strings.Contains(stderr, "tree/replaced changed while it was read") {
		t.Errorf("notes:\n%s", stderr)
	}
}

// checksOut compares a folder of the project with what a checkout makes of it.
func (l *lab) checksOut(commit, name string) {
	l.t.Helper()
	out := l.checkout(commit)
	sameTrees(l.t, "checkout", l.path(name), filepath.Join(out, name))
	l.must(os.RemoveAll(out))
}

// mountShows compares a folder of the project with the commit in the mount, and with what cp -a makes of that.
func (l *lab) mountShows(commit, name string) {
	l.t.Helper()
	there := filepath.Join(l.mount(), "commits", commit[:7], name)
	sameTrees(l.t, "mount", l.path(name), there)
	copied := filepath.Join(l.t.TempDir(), "copy")
	l.run("cp", "-a", there, copied)
	sameTrees(l.t, "cp -a", l.path(name), copied)
}

// waitsForReader opens a FIFO for writing, which waits for somebody who opens it for reading. The function returned tells whether somebody did,
// and ends the wait.
func (l *lab) waitsForReader(fifo string) (opened func() bool) {
	l.t.Helper()
	done := make(chan error, 1)
	go func() {
		f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		done <- err
	}()
	return func() bool {
		select {
		case <-done:
			return true
		default:
		}
		f, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		l.must(err)
		defer f.Close()
		l.must(<-done)
		return false
	}
}

// TestTortureLargeFile commits a large file without holes, of 3 GB under torture, changes a little of it, and reads both.
func TestTortureLargeFile(t *testing.T) {
	pieces := 100
	if os.Getenv("REPLICATE_TORTURE") != "" {
		pieces = 3 << 10
	}
	l := newLab(t)
	tr := &tree{t: t, dir: l.path("tree"), random: rand.NewChaCha8([32]byte{9})}
	tr.folder("", 0o755)
	tr.sparse("large", int64(pieces)<<20, pieces)
	first, _ := l.commits("1")
	l.checksOut(first[0], "tree")
	l.mountShows(first[0], "tree")
	before := l.size(l.storage())
	f, err := os.OpenFile(l.path("tree/large"), os.O_WRONLY, 0)
	l.must(err)
	_, err = f.WriteAt([]byte("changed"), int64(pieces)<<19)
	l.must(err)
	l.must(f.Close())
	second, _ := l.commits("1")
	l.checksOut(second[0], "tree")
	if grown := l.size(l.storage()) - before; grown > 20<<20 {
		t.Errorf("7 changed bytes took %d", grown)
	}
	l.check(l.storage())
}
