package fs

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// serveHere serves a view from this process, so that its requests can be counted. Only other processes may touch the mount.
func serveHere(t testing.TB, v View, pinned bool) (mnt string, s *server) {
	t.Helper()
	s = newServer(v, pinned, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	return serveIt(t, s), s
}

func serveIt(t testing.TB, s *server) (mnt string) {
	t.Helper()
	require.Root(t)
	mnt = tempDir(t)
	f, err := attach(mnt, "test")
	check(t, err)
	k, err := connect(s, int(f.Fd()))
	check(t, err)
	served := make(chan struct{})
	go func() { k.Serve(); close(served) }()
	t.Cleanup(func() {
		check(t, umount(mnt, unix.MNT_DETACH))
		f.Close()
		<-served
	})
	return mnt
}

// counted returns how many requests of some kinds a program makes.
func (s *server) counted(t testing.TB, do func(), ops ...int) (n int64) {
	t.Helper()
	for _, op := range ops {
		n -= s.counts[op].Load()
	}
	do()
	for _, op := range ops {
		n += s.counts[op].Load()
	}
	return n
}

func TestRequestCounts(t *testing.T) {
	needsMount(t, "find", "python3")
	tree := tempDir(t)
	for i := range 1000 {
		check(t, os.MkdirAll(filepath.Join(tree, "d", fmt.Sprint(i%10)), 0o755))
		check(t, os.WriteFile(filepath.Join(tree, "d", fmt.Sprint(i%10), fmt.Sprintf("f%d", i)), []byte("x"), 0o644))
	}
	check(t, os.Symlink("d", filepath.Join(tree, "link")))
	opened, err := openMirror(context.Background(), Options{Storage: "mirror://" + tree})
	check(t, err)
	opened.(*mirror).forever = true
	mnt, s := serveHere(t, opened, false)

	find := func() { must(t, mnt, "find", ".", "-ls") }
	if n := s.counted(t, find, opLookup, opGetattr, opGetxattr); n > 20 {
		t.Errorf("the first find -ls makes %d lookups and stats of 1,012 names", n)
	}
	if n := s.counted(t, find, opLookup, opGetattr, opGetxattr, opReaddir, opReadlink); n != 0 {
		t.Errorf("the second find -ls makes %d requests", n)
	}
	if n := s.counted(t, func() { must(t, mnt, "ls", "-l", "d/1", "d/2") }, opGetxattr); n > 1 {
		t.Errorf("ls -l asks for attributes %d times", n)
	}
	misses := func() {
		must(t, mnt, "python3", "-c", "import os\nfor i in range(2000): os.path.exists('d/none%d' % (i % 20)) or os.path.exists('.git')")
	}
	if n := s.counted(t, misses, opLookup); n > 30 {
		t.Errorf("2,000 misses of 20 names are %d lookups", n)
	}
	read := func() { must(t, mnt, "cat", "d/1/f1") }
	read()
	if n := s.counted(t, read, opRead, opLookup); n != 0 {
		t.Errorf("the second cat makes %d requests beside OPEN", n)
	}
}

func TestPinnedMountOpensWithoutAsking(t *testing.T) {
	needsMount(t, "python3")
	tree := hostile(t)
	v, err := openMirror(context.Background(), Options{Storage: "mirror://" + tree})
	check(t, err)
	v.(*mirror).forever = true
	mnt, s := serveHere(t, v, true)
	reads := func() {
		must(t, mnt, "python3", "-c", "import os\nfor _ in range(100): open('plain.txt').read(); os.listdir('sub')")
	}
	reads()
	if n := s.counted(t, reads, opOpen, opOpendir, opRead, opLookup); n != 0 {
		t.Errorf("200 opens make %d requests", n)
	}
	same(t, tree, mnt)
}

func TestDiffOfCommitsReadsOnlyWhatDiffers(t *testing.T) {
	needsMount(t, "diff")
	root := tempDir(t)
	p := newProject(t, root)
	for i := range 20 {
		check(t, os.WriteFile(filepath.Join(root, fmt.Sprintf("data%d", i)), bytes.Repeat([]byte{byte(i)}, 100_000), 0o644))
	}
	w, _ := p.begin()
	a := p.commit(w, 0)
	check(t, os.WriteFile(filepath.Join(root, "data7"), bytes.Repeat([]byte{99}, 100_000), 0o644))
	b := p.commit(w, 1)
	p.end(w)
	o := p.options()
	v, err := openHere(t.Context(), o)
	check(t, err)
	defer v.Close()
	_, err = v.Refresh(t.Context())
	check(t, err)
	mnt, s := serveHere(t, v, false)
	var out string
	n := s.counted(t, func() { out, _ = run(t, mnt, "diff", "-rq", "commits/"+a.Short(), "commits/"+b.Short()) }, opRead)
	if strings.Count(out, "\n") != 1 || !strings.Contains(out, "data7 differ") {
		t.Errorf("diff says:\n%s", out)
	}
	if n > 4 {
		t.Errorf("%d READs for two commits that differ in one file of 100 kB", n)
	}
}
