package fs

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/repository"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// A project is a folder with a repository on disk, recorded in by the real writer.
type project struct {
	t     testing.TB
	root  string
	store *disk.Store
	spool *repository.Spool
}

func newProject(t testing.TB, root string) *project {
	t.Helper()
	p := &project{t: t, root: root}
	var err error
	p.store, err = disk.New(filepath.Join(tempDir(t), "storage"))
	check(t, err)
	r, err := repository.Create(t.Context(), p.store)
	check(t, err)
	p.spool = repository.OpenSpool(r, "")
	return p
}

func (p *project) options() Options {
	o := testOptions(p.t, "")
	o.Storage = p.store.URL()
	return o
}

func (p *project) begin() (*repository.Writer, replicate.ID) {
	p.t.Helper()
	id, err := replicate.NewID(rand.Reader)
	check(p.t, err)
	w, _, err := p.spool.Begin(p.t.Context(), replicate.Experiment{ID: id, Created: time.Now()}, repository.WriterOptions{Root: p.root})
	check(p.t, err)
	return w, id
}

func (p *project) commit(w *repository.Writer, step int) replicate.ID {
	p.t.Helper()
	row, _, err := w.Commit(p.t.Context(), repository.CommitRequest{Step: replicate.Step(step), Time: time.Now(),
		Metrics: replicate.Values{{Name: "loss", Value: replicate.Float(1 / float64(step+1))}}})
	check(p.t, err)
	return row.ID
}

func (p *project) end(w *repository.Writer) {
	p.t.Helper()
	check(p.t, w.End(p.t.Context(), replicate.Finished, nil))
}

// TestMountedCommitIsTheDirectory compares the working directory at the time of a commit with the commit in a mount, by tools that
// are not ours: below commits/, below experiments/, mounted alone, and copied out.
func TestMountedCommitIsTheDirectory(t *testing.T) {
	needsMount(t, "rsync", "tar", "diff")
	tree := hostile(t)
	check(t, os.Remove(filepath.Join(tree, "sub/.git"))) // never saved
	big := make([]byte, 9<<20)
	_, err := rand.Read(big)
	check(t, err)
	check(t, os.WriteFile(filepath.Join(tree, "big.bin"), big, 0o644))
	must(t, tree, "touch", "-d", "2011-01-01 01:01:01.000000001", "empty dir", "sub", ".")
	p := newProject(t, tree)
	w, id := p.begin()
	commit := p.commit(w, 7)
	p.end(w)
	check(t, os.RemoveAll(filepath.Join(tree, ".replicate")))

	mnt := mount(t, p.options())
	for _, path := range []string{"commits/" + commit.Short(), "latest/latest/", "experiments/" + id.Short() + "/commits/00000007-" + commit.Short()} {
		got := filepath.Join(mnt, path)
		must(t, "/", "diff", "-r", "--no-dereference", tree+"/", got+"/")
		if out := must(t, "/", "rsync", "-nrlpci", "--delete", tree+"/", got+"/"); out != "" {
			t.Errorf("rsync would change %s:\n%s", path, out)
		}
	}
	check(t, os.Chtimes(tree, time.Time{}, rootTime(t, filepath.Join(mnt, "commits", commit.Short()))))
	same(t, tree, filepath.Join(mnt, "commits", commit.Short()))
	copied := filepath.Join(tempDir(t), "copy")
	must(t, "/", "cp", "-a", filepath.Join(mnt, "commits", commit.Short()), copied)
	same(t, tree, copied)

	pinned := p.options()
	pinned.Commit = string(commit)
	same(t, tree, mount(t, pinned))
}

// rootTime is the time of a directory, by another process: the mount is served by a child, but rules are rules.
func rootTime(t *testing.T, dir string) time.Time {
	t.Helper()
	var sec, nsec int64
	_, err := fmt.Sscanf(strings.Replace(must(t, "/", "stat", "-c", "%.9Y", dir), ".", " ", 1), "%d %d", &sec, &nsec)
	check(t, err)
	return time.Unix(sec, nsec)
}

// patience is how long a test waits for what a quiet machine shows within a second.
const patience = time.Minute

// TestNewThingsAppear commits and looks, with names that were missing before remembered by the kernel as missing.
func TestNewThingsAppear(t *testing.T) {
	needsMount(t)
	p := newProject(t, hostile(t))
	w, id := p.begin()
	mnt := mount(t, p.options())
	within := func(what string, limit time.Duration, seen func() bool) {
		t.Helper()
		start := time.Now()
		for !seen() {
			if time.Since(start) > limit {
				t.Fatalf("%s is not there after %v", what, limit)
			}
			pause(context.Background(), 10*time.Millisecond)
		}
	}
	exists := func(path string) func() bool {
		return func() bool { _, err := run(t, mnt, "ls", path); return err == nil }
	}
	within("the experiment", patience, exists("experiments/"+id.Short()+"/commits"))
	if exists("experiments/" + id.Short() + "/latest")() {
		t.Fatal("latest is there before any commit")
	}
	for step := range 5 {
		commit := p.commit(w, step)
		name := fmt.Sprintf("experiments/%s/commits/%08d-%s", id.Short(), step, commit.Short())
		within("commit "+name, patience, exists(name+"/plain.txt"))
		within("commits/", patience, exists("commits/"+commit.Short()))
		within("latest", patience, func() bool {
			out, _ := run(t, mnt, "readlink", "latest/latest")
			return strings.Contains(out, commit.Short())
		})
		within("the listing", patience, func() bool {
			out, _ := run(t, mnt, "ls", "latest/commits")
			return strings.Count(out, "\n") == step+1
		})
		within("experiments.csv", patience, func() bool {
			out, _ := run(t, mnt, "cat", "experiments.csv")
			return strings.Contains(out, fmt.Sprintf(",%d,", step+1))
		})
	}
	check(t, w.Output([]byte("one line\n")))
	within("output.log", patience, func() bool { out, _ := run(t, mnt, "cat", "latest/output.log"); return out == "one line\n" })
	other, otherID := p.begin()
	within("another experiment as latest", patience, func() bool {
		out, _ := run(t, mnt, "readlink", "latest")
		return strings.Contains(out, otherID.Short())
	})
	p.end(other)
	p.end(w)
	within("the end", patience, func() bool {
		out, _ := run(t, mnt, "cat", "experiments/"+id.Short()+"/experiment.json")
		return strings.Contains(out, `"finished"`)
	})
}

// TestTailOfGrowingFiles follows metrics.csv and output.log in every way while they grow: no NUL, no half line, nothing lost, the
// last byte within a second, on a machine that does not do something else just then.
func TestTailOfGrowingFiles(t *testing.T) {
	needsMount(t, "tail", "python3")
	p := newProject(t, hostile(t))
	w, id := p.begin()
	log := func(i int) {
		check(t, w.Log(repository.Point{Step: replicate.Step(i), Time: time.Now(), Metrics: replicate.Values{{Name: "loss", Value: replicate.Int(int64(i))}}}))
		check(t, w.Output(fmt.Appendf(nil, "line %d\n", i)))
	}
	log(0)
	check(t, w.Flush(t.Context()))
	mnt := mount(t, p.options())
	dir := filepath.Join(mnt, "experiments", id.Short())
	waitFor(t, func() bool { _, err := run(t, "/", "ls", dir+"/output.log"); return err == nil })

	const appends = 3000
	followers := map[string]*exec.Cmd{
		"tail -f output":  exec.Command("tail", "-n", "+1", "-f", dir+"/output.log"),
		"tail -F output":  exec.Command("tail", "-n", "+1", "-F", dir+"/output.log"),
		"tail -f metrics": exec.Command("tail", "-n", "+2", "-f", dir+"/metrics.csv"),
		"tail -F metrics": exec.Command("tail", "-n", "+2", "-F", dir+"/metrics.csv"),
		"kept descriptor": exec.Command("python3", "-u", "-c", keptDescriptor, dir+"/metrics.csv"),
	}
	out := map[string]*lockedBuffer{}
	for name, cmd := range followers {
		out[name] = new(lockedBuffer)
		cmd.Stdout = out[name]
		check(t, cmd.Start())
		defer cmd.Wait()         //nolint:errcheck // killed
		defer cmd.Process.Kill() //nolint:errcheck
	}
	for _, b := range out {
		waitFor(t, func() bool { return b.String() != "" })
	}
	reopened := exec.Command("python3", "-u", "-c", reopens, dir+"/metrics.csv", dir+"/output.log")
	var complaints bytes.Buffer
	reopened.Stdout = &complaints
	check(t, reopened.Start())
	for i := 1; i < appends; i++ {
		log(i)
		switch i % 500 {
		case 100:
			p.commit(w, i)
		case 300:
			check(t, w.Flush(t.Context()))
		}
	}
	all := appends
	for took := []time.Duration{followed(t, out, all)}; slices.Min(took) > 2500*time.Millisecond; all++ { // tail itself looks once a second
		if len(took) > 10 {
			t.Fatalf("the last line is there after %v", took)
		}
		log(all)
		took = append(took, followed(t, out, all+1))
	}
	for name, b := range out {
		checkFollowed(t, name, b.String(), all)
	}
	check(t, reopened.Process.Signal(syscall.SIGTERM))
	if err := reopened.Wait(); err == nil || complaints.Len() > 0 {
		t.Errorf("who opens it again and again: %s", complaints.String())
	}
	p.end(w)
}

// followed returns how long it takes until all followers have the last line of so many.
func followed(t *testing.T, out map[string]*lockedBuffer, lines int) time.Duration {
	t.Helper()
	start := time.Now()
	for name, b := range out {
		last := fmt.Sprintf("line %d\n", lines-1)
		if strings.HasSuffix(name, "metrics") || name == "kept descriptor" {
			last = fmt.Sprintf("Z,%d\n", lines-1)
		}
		for !strings.HasSuffix(b.String(), last) {
			if time.Since(start) > patience {
				text := b.String()
				t.Fatalf("%s: does not end with %q but with %q", name, last, text[max(0, len(text)-80):])
			}
			pause(context.Background(), 10*time.Millisecond)
		}
	}
	return time.Since(start)
}

// keptDescriptor reads on through one descriptor, skipping the header.
const keptDescriptor = `
import os, sys, time
f = os.open(sys.argv[1], os.O_RDONLY)
rest = b""
first = True
while True:
    size = os.fstat(f).st_size
    data = os.read(f, 1 << 20)
    if not data:
        time.sleep(0.005)
        continue
    if not data.endswith(b"\n"): print("half a line")
    if first: data = data.split(b"\n", 1)[1]
    first = False
    sys.stdout.buffer.write(data)
    sys.stdout.flush()
`

// reopens opens files again and again and says what is wrong with them.
const reopens = `
import sys
sizes = {}
while True:
    for path in sys.argv[1:]:
        data = open(path, "rb").read()
        if b"\0" in data: print(path, "has a NUL")
        if len(data) < sizes.get(path, 0): print(path, "shrank")
        if path.endswith(".csv") and not data.endswith(b"\n"): print(path, "ends within a line")
        sizes[path] = len(data)
`

func checkFollowed(t *testing.T, name, text string, appends int) {
	t.Helper()
	if strings.Contains(text, "\x00") {
		t.Errorf("%s: has a NUL", name)
	}
	next := 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "tail: ") || !strings.HasSuffix(line, fmt.Sprintf("Z,%d\n", next)) && line != fmt.Sprintf("line %d\n", next) {
			if strings.Count(line, ",") == 3 && !strings.Contains(line, ",,") { // the point of a commit
				continue
			}
			t.Fatalf("%s: line %d is %q", name, next, line)
		}
		next++
	}
	if next != appends {
		t.Errorf("%s: %d lines instead of %d", name, next, appends)
	}
}

// A lockedBuffer is a bytes.Buffer for a process that writes and a test that looks.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer // guarded by mu
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func TestMissingPackIsAnErrorOfItsFilesAlone(t *testing.T) {
	needsMount(t)
	root := tempDir(t)
	p := newProject(t, root)
	big := make([]byte, 3<<20)
	_, err := rand.Read(big)
	check(t, err)
	w, _ := p.begin()
	check(t, os.WriteFile(root+"/model", big, 0o644))
	broken := p.commit(w, 0)
	packs := must(t, "/", "find", p.store.Dir()+"/pack", "-size", "+1000k", "-type", "f")
	check(t, os.WriteFile(root+"/model", []byte("small"), 0o644))
	fine := p.commit(w, 1)
	p.end(w)
	for path := range strings.Lines(packs) {
		check(t, os.Remove(strings.TrimSpace(path)))
	}
	o := p.options()
	mnt := mount(t, o)
	if out, err := run(t, mnt, "cat", "commits/"+broken.Short()+"/model"); err == nil || !strings.Contains(out, "Input/output error") {
		t.Errorf("the broken file: %v, %.100s", err, out)
	}
	if out := must(t, mnt, "cat", "commits/"+fine.Short()+"/model"); out != "small" {
		t.Errorf("another commit reads %q", out)
	}
	log, _ := os.ReadFile(stateOf(o.StateDir, o.Dir).path("log"))
	if !strings.Contains(string(log), broken.Short()) {
		t.Errorf("the log does not name the commit:\n%s", log)
	}
}

// TestOrdinaryUser does everything as somebody who is not root, through fusermount3.
func TestOrdinaryUser(t *testing.T) {
	needsMount(t, "fusermount3", "useradd", "setpriv", "rsync", "tar")
	require.Root(t)
	const user = "replicate-test"
	if _, err := run(t, "/", "id", user); err != nil {
		must(t, "/", "useradd", "--no-create-home", user)
		t.Cleanup(func() { // who is still a process of theirs, on its way out, is in the way
			waitFor(t, func() bool { _, err := run(t, "/", "userdel", user); return err == nil })
		})
	}
	info, err := os.Stat(fuseDevice)
	check(t, err)
	check(t, os.Chmod(fuseDevice, 0o666))
	t.Cleanup(func() { check(t, os.Chmod(fuseDevice, info.Mode().Perm())) })

	p := newProject(t, hostile(t))
	w, _ := p.begin()
	commit := p.commit(w, 0)
	p.end(w)
	o := p.options()
	base, storage := filepath.Dir(o.Dir), filepath.Dir(p.store.Dir())
	exe := filepath.Join(base, "mounter")
	must(t, "/", "cp", o.Self[0], exe)
	must(t, "/", "chown", "-R", user, base, storage)
	must(t, "/", "chmod", "0755", base, storage)
	as := func(program string, args ...string) (string, error) {
		return run(t, "/", "setpriv", append([]string{"--reuid", user, "--regid", user, "--clear-groups", program}, args...)...)
	}
	t.Cleanup(func() { _, _ = run(t, "/", "umount", "-l", o.Dir) })
	if out, err := as(exe, "mount", o.Storage, o.Dir, base); err != nil {
		t.Fatal(out, err)
	}
	byUser, _, _ := mountAt(o.Dir)
	if !byUser.ours() || byUser.source != o.Storage {
		t.Errorf("the mount table says %+v", byUser)
	}
	if out, err := run(t, "/", "ls", o.Dir); err == nil {
		t.Errorf("root may enter: %s", out)
	}
	dir := o.Dir + "/commits/" + commit.Short()
	for command, want := range map[string]string{
		"stat -c %a,%U locked; cat locked": "0," + user + "\nno mode\n", // nobody may read it, but who mounted it
		"./script.sh":                      "ran\n",
		"touch plain.txt 2>&1 | grep -o 'Read-only file system'": "Read-only file system\n",
		"rm -f plain.txt 2>&1 | grep -o 'Read-only file system'": "Read-only file system\n",
		"find . | wc -l": must(t, p.root, "sh", "-c", "find . -not -name .git -not -path './.replicate*' | wc -l"),
	} {
		if out, err := as("sh", "-c", "cd "+dir+" && "+command); err != nil || out != want {
			t.Errorf("%s: %q, %v", command, out, err)
		}
	}
	if out, err := as(exe, "umount", o.Storage, o.Dir, base); err != nil {
		t.Error(out, err)
	}
	if _, still, _ := mountAt(o.Dir); still {
		t.Error("the mount is still there")
	}
}

// asUser mounts or unmounts in the process of another user.
func asUser(verb, storage, dir, base string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	o := Options{Dir: dir, Storage: storage, StateDir: base + "/state", CacheDir: base + "/cache", IndexDir: base + "/index",
		Self: []string{exe, "mount-process"}}
	if verb == "umount" {
		_, err := Unmount(context.Background(), o.StateDir, dir)
		return err
	}
	return Mount(context.Background(), o, nil, func(string) {})
}

// TestNewIndexIsAnotherMount loses the index under a server: nodes mean something else then, so the kernel must forget all of them.
func TestNewIndexIsAnotherMount(t *testing.T) {
	needsMount(t)
	p := newProject(t, hostile(t))
	w, _ := p.begin()
	commit := p.commit(w, 0)
	p.end(w)
	o := p.options()
	mnt := mount(t, o)
	read := func() string { out, _ := run(t, "/", "cat", mnt+"/commits/"+commit.Short()+"/plain.txt"); return out }
	waitFor(t, func() bool { return read() == "hello\n" })
	check(t, os.RemoveAll(o.IndexDir))
	check(t, syscall.Kill(serverOf(t, o, 0), syscall.SIGKILL))
	waitFor(t, func() bool { r, _ := stateOf(o.StateDir, mnt).read(); return r.Restarts == 2 })
	waitFor(t, func() bool { return read() == "hello\n" })
}
