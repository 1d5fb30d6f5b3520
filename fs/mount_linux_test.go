package fs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/repository"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// TestMain also is the mount processes of the tests: Options.Self names this binary.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "mount-process" {
		if err := Process(context.Background(), os.Args[2], openAny); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 4 && os.Args[1] == "reader" {
		if err := reader(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 2 && os.Args[1] == "aged" {
		fmt.Print(freshPages())
		os.Exit(0)
	}
	if len(os.Args) == 5 && strings.HasSuffix(os.Args[0], "/mounter") {
		if err := asUser(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func openAny(ctx context.Context, o Options) (View, error) {
	if strings.HasPrefix(o.Storage, "file:") {
		return openHere(ctx, o)
	}
	return openMirror(ctx, o)
}

// openHere opens the view of the repository at a URL.
func openHere(ctx context.Context, o Options) (View, error) {
	store, err := storage.Open(ctx, o.Storage)
	if err != nil {
		return nil, err
	}
	r, err := repository.Open(ctx, store)
	if err != nil {
		return nil, err
	}
	return Open(ctx, r, o)
}

// needsMount ends a test on a machine that cannot mount, or lacks a program.
func needsMount(t testing.TB, programs ...string) {
	t.Helper()
	require.Fuse(t)
	for _, p := range programs {
		require.Program(t, p)
	}
}

func testOptions(t testing.TB, dir string) Options {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	base := tempDir(t)
	o := Options{
		Dir: filepath.Join(base, "mnt"), Storage: "mirror://" + dir,
		StateDir: filepath.Join(base, "state"), CacheDir: filepath.Join(base, "cache"), IndexDir: filepath.Join(base, "index"),
		Self: []string{exe, "mount-process"},
	}
	if err := os.Mkdir(o.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return o
}

// tempDir is t.TempDir without the test's name, which may hold commas, and resolved.
func tempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("", "fs")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = exec.Command("chmod", "-R", "u+rwX", dir).Run()
		os.RemoveAll(dir)
	})
	return resolve(dir)
}

// mount mounts for a test and returns the mount point.
func mount(t testing.TB, o Options) string {
	t.Helper()
	t.Cleanup(func() {
		if _, ok, _ := mountAt(o.Dir); ok {
			if err := ForceUnmount(context.Background(), o.StateDir, o.Dir); err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			log, _ := os.ReadFile(stateOf(o.StateDir, o.Dir).path("log"))
			t.Logf("log of the mount:\n%s", log)
		}
	})
	if err := Mount(context.Background(), o, nil, func(string) {}); err != nil {
		t.Fatal(err)
	}
	return o.Dir
}

// run runs a program in dir and returns its output. The test process itself never touches a mount that it serves, and neither must
// what forks from it before it is another program: it waits for that.
func run(t testing.TB, dir, program string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("env", append([]string{"-C", dir, program}, args...)...)
	cmd.Dir = "/"
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// must is run for a program that succeeds.
func must(t testing.TB, dir, program string, args ...string) string {
	t.Helper()
	out, err := run(t, dir, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

// hostile makes a tree of everything that file systems allow.
func hostile(t testing.TB) string {
	dir := filepath.Join(tempDir(t), "tree")
	files := map[string]struct {
		content string
		mode    os.FileMode
	}{
		"plain.txt": {"hello\n", 0o644}, "empty": {"", 0o600}, "script.sh": {"#!/bin/sh\necho ran\n", 0o755}, "locked": {"no mode\n", 0},
		"sub/deeper/x": {strings.Repeat("0123456789", 20_000), 0o640}, "sub/\xff\xfe bytes": {"not UTF-8", 0o644},
		"new\nline 'quote\" $HOME": {"q", 0o644}, strings.Repeat("n", 255): {"long name", 0o644}, "-rf": {"dash", 0o644},
		".config": {"h", 0o644}, "sub/.hidden": {"h", 0o644}, "sticky": {"s", 0o4755}, " space ": {"s", 0o444}, "sub/.git": {"never noise below a commit", 0o644},
	}
	for name, f := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(f.content), 0o644); err != nil {
			t.Fatal(err)
		}
		check(t, os.Chmod(path, fileMode(f.mode)))
	}
	check(t, os.MkdirAll(filepath.Join(dir, "empty dir", "another"), 0o700))
	for name, target := range map[string]string{"link": "plain.txt", "dirlink": "sub", "dangling": "no/where", "outside": "/etc/hostname"} {
		check(t, os.Symlink(target, filepath.Join(dir, name)))
	}
	check(t, os.Link(filepath.Join(dir, "plain.txt"), filepath.Join(dir, "hard")))
	must(t, dir, "touch", "-d", "2001-02-03 04:05:06.123456789", "plain.txt", "sub/deeper/x")
	must(t, dir, "touch", "-d", "1960-01-01 00:00:00.5", "empty")
	must(t, dir, "touch", "-h", "-d", "2002-02-03 04:05:06.987654321", "dangling")
	must(t, dir, "touch", "-d", "2011-01-01 01:01:01.000000001", "empty dir", "sub", ".")
	return dir
}

func fileMode(m os.FileMode) os.FileMode {
	if m&0o4000 != 0 {
		return m&0o777 | os.ModeSetuid
	}
	return m
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// same fails unless two trees are the same to tools that are not ours.
func same(t *testing.T, want, got string) {
	t.Helper()
	must(t, "/", "diff", "-r", "--no-dereference", want, got)
	if out := must(t, "/", "rsync", "-nrlptci", "--delete", want+"/", got+"/"); out != "" {
		t.Errorf("rsync would change %s:\n%s", got, out)
	}
	tar := `tar --hard-dereference --numeric-owner --owner=0 --group=0 --sort=name --format=posix --pax-option=delete=atime,delete=ctime -cf - . | sha256sum`
	if w, g := must(t, want, "sh", "-c", tar), must(t, got, "sh", "-c", tar); w != g {
		t.Errorf("tar of %s and %s differ", want, got)
	}
}

func TestMountShowsTheTreeAsItIs(t *testing.T) {
	needsMount(t, "rsync", "tar", "diff")
	tree := hostile(t)
	mnt := mount(t, testOptions(t, tree))
	same(t, tree, mnt)
	same(t, tree, mnt) // from the kernel's caches
	copied := filepath.Join(tempDir(t), "copy")
	must(t, "/", "cp", "-a", mnt, copied)
	same(t, tree, copied)
	if out := must(t, mnt, "./script.sh"); out != "ran\n" {
		t.Errorf("a script from the mount says %q", out)
	}
	if w, g := must(t, tree, "find", ".", "-printf", "%p %y %m %s %T@ %l\n"), must(t, mnt, "find", ".", "-printf", "%p %y %m %s %T@ %l\n"); lines(w) != lines(g) {
		t.Errorf("find:\n%s\nwant\n%s", g, w)
	}
}

// lines sorts the lines of a text, and takes away the sizes of directories, which are the file system's own affair.
func lines(text string) string {
	l := strings.Split(text, "\n")
	for i, line := range l {
		if before, after, ok := strings.Cut(line, " d "); ok {
			f := strings.Fields(after)
			f[1] = "-"
			l[i] = before + " d " + strings.Join(f, " ")
		}
	}
	slices.Sort(l)
	return strings.Join(l, "\n")
}

func TestEveryWriteIsRefused(t *testing.T) {
	needsMount(t, "python3")
	mnt := mount(t, testOptions(t, hostile(t)))
	out := must(t, mnt, "python3", "-c", `
import os, errno, sys
calls = {
  "write": lambda: os.open("plain.txt", os.O_WRONLY), "rdwr": lambda: os.open("plain.txt", os.O_RDWR),
  "append": lambda: os.open("plain.txt", os.O_WRONLY|os.O_APPEND), "trunc": lambda: os.open("plain.txt", os.O_RDONLY|os.O_TRUNC),
  "create": lambda: os.open("new", os.O_CREAT|os.O_WRONLY), "tmpfile": lambda: os.open(".", os.O_TMPFILE|os.O_RDWR),
  "mkdir": lambda: os.mkdir("new"), "unlink": lambda: os.unlink("plain.txt"), "rmdir": lambda: os.rmdir("empty dir/another"),
  "rename": lambda: os.rename("plain.txt", "other"), "chmod": lambda: os.chmod("plain.txt", 0o600), "chown": lambda: os.chown("plain.txt", 1, 1),
  "utime": lambda: os.utime("plain.txt"), "truncate": lambda: os.truncate("plain.txt", 0), "link": lambda: os.link("plain.txt", "new"),
  "symlink": lambda: os.symlink("x", "new"), "mknod": lambda: os.mknod("new"), "mkfifo": lambda: os.mkfifo("new"),
  "setxattr": lambda: os.setxattr("plain.txt", "user.x", b"1"), "removexattr": lambda: os.removexattr("plain.txt", "user.x"),
  "access": lambda: None if not os.access("plain.txt", os.W_OK) else print("access W_OK is true"),
}
for name, call in calls.items():
    try:
        call()
        if name != "access": print(name, "succeeded")
    except OSError as e:
        if e.errno != errno.EROFS: print(name, errno.errorcode[e.errno])
for get in (lambda: os.getxattr("plain.txt", "user.x"), lambda: os.listxattr("plain.txt")):
    try: print("xattr", get())
    except OSError as e:
        if e.errno != errno.ENOTSUP: print("xattr", errno.errorcode[e.errno])
`)
	if out != "" {
		t.Error(out)
	}
}

func TestErrorsReachOnlyTheFileTheyConcern(t *testing.T) {
	needsMount(t)
	tree := hostile(t)
	check(t, os.WriteFile(filepath.Join(tree, "damaged"), []byte("x"), 0o644))
	o := testOptions(t, tree)
	mnt := mount(t, o)
	if out, err := run(t, mnt, "cat", "damaged"); err == nil || !strings.Contains(out, "Input/output error") {
		t.Errorf("cat of a damaged file: %v, %s", err, out)
	}
	run(t, mnt, "cat", "damaged")
	if out := must(t, mnt, "cat", "plain.txt"); out != "hello\n" {
		t.Errorf("another file reads %q", out)
	}
	log, _ := os.ReadFile(stateOf(o.StateDir, o.Dir).path("log"))
	if n := strings.Count(string(log), "damaged is damaged"); n != 1 {
		t.Errorf("the log names the damage %d times, want once:\n%s", n, log)
	}
}

func TestMountRefuses(t *testing.T) {
	needsMount(t)
	tree := hostile(t)
	file := filepath.Join(tempDir(t), "file")
	check(t, os.WriteFile(file, nil, 0o644))
	tests := []struct {
		name   string
		change func(*Options)
		avoid  []string
		kind   replicate.Kind
		text   string
	}{
		{"a file", func(o *Options) { o.Dir = file }, nil, replicate.Usage, "not a directory"},
		{"nothing there", func(o *Options) { o.Dir += "/no" }, nil, replicate.Usage, "no such directory"},
		{"not empty", func(o *Options) { o.Dir = tree }, nil, replicate.Usage, "not empty"},
		{"inside the storage", func(o *Options) { o.Dir = tree + "/empty dir" }, []string{tree}, replicate.Usage, "read itself"},
		{"above the cache", func(o *Options) { o.CacheDir = o.Dir + "/cache" }, nil, replicate.Usage, "read itself"},
		{"no repository", func(o *Options) { o.Storage = "none://x" }, nil, replicate.NotFound, "no repository at none://x"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := testOptions(t, tree)
			tt.change(&o)
			err := Mount(context.Background(), o, tt.avoid, func(string) { t.Error("said it was ready") })
			if replicate.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v (%s), want %s: %s", err, replicate.KindOf(err), tt.kind, tt.text)
			}
			if replicate.HintOf(err) == "" && tt.name != "a file" {
				t.Errorf("%v has no hint", err)
			}
			if _, mounted, _ := mountAt(o.Dir); mounted {
				t.Error("left a mount behind")
			}
		})
	}
}

func TestMountTwice(t *testing.T) {
	needsMount(t)
	o := testOptions(t, hostile(t))
	mnt := mount(t, o)
	if err := Mount(context.Background(), o, nil, func(string) {}); err != nil {
		t.Errorf("the same again: %v", err)
	}
	o.Storage = "mirror:///"
	if err := Mount(context.Background(), o, nil, func(string) {}); replicate.KindOf(err) != replicate.Conflict {
		t.Errorf("another storage: %v", err)
	}
	mounts, err := Status(o.StateDir)
	check(t, err)
	i := slices.IndexFunc(mounts, func(m Mounted) bool { return m.Dir == mnt })
	if i < 0 || mounts[i].State != StateOK || mounts[i].PID == 0 {
		t.Errorf("status: %+v", mounts)
	}
	busy, err := Unmount(context.Background(), o.StateDir, mnt)
	if err != nil || len(busy) > 0 {
		t.Errorf("unmount: %v, %v", busy, err)
	}
	if _, err := Unmount(context.Background(), o.StateDir, mnt); replicate.KindOf(err) != replicate.NotFound {
		t.Errorf("unmount again: %v", err)
	}
	if stateOf(o.StateDir, o.Dir).held() {
		t.Error("the supervisor lives on")
	}
	if _, err := os.Stat(stateOf(o.StateDir, o.Dir).dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("the state folder is still there")
	}
}
