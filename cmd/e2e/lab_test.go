package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest/require"
)

var (
	source  string // the root of the source tree
	binary  string // the command, built from it
	scripts string // testdata
)

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "replicate-e2e-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // some tests run as another user
		panic(err)
	}
	if scripts, err = filepath.Abs("testdata"); err != nil {
		panic(err)
	}
	source = filepath.Dir(filepath.Dir(filepath.Dir(scripts)))
	binary = filepath.Join(dir, "replicate")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./cmd/replicate")
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the command: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// A lab is a project directory and the environment that commands and trainings run in. Its errors end the test.
type lab struct {
	t    testing.TB
	dir  string // the project
	home string
	env  []string

	user    *syscall.Credential // nil: whoever runs the test
	scripts string              // testdata, as the user sees it
	served  bool                // the project is on a file system that this process serves
	seen    []time.Duration     // how long after trainings were killed their ends were there
}

func newLab(t testing.TB) *lab {
	t.Helper()
	return labIn(t, filepath.Join(t.TempDir(), "project"))
}

// labIn makes a lab of a directory, which is made.
func labIn(t testing.TB, dir string) *lab {
	t.Helper()
	l := &lab{t: t, dir: dir, home: t.TempDir(), scripts: scripts}
	l.must(os.MkdirAll(dir, 0o755))
	t.Cleanup(l.logs)
	l.setenv("HOME", l.home)
	l.setenv("XDG_CACHE_HOME", filepath.Join(l.home, "cache"))
	l.setenv("PATH", filepath.Dir(binary)+":"+os.Getenv("PATH"))
	l.setenv("PYTHONPATH", filepath.Join(source, "python"))
	l.setenv("PYTHONDONTWRITEBYTECODE", "1")
	l.setenv("REPLICATE_BINARY", binary)
	l.setenv("LC_ALL", "C.UTF-8")
	return l
}

// logs says what recorders and uploaders left behind when they died, if the test failed.
func (l *lab) logs() {
	for _, pattern := range []string{"recorder.log", "spool/*/log", "spool/*/status"} {
		files, _ := filepath.Glob(l.path(".replicate", pattern))
		for _, file := range files {
			if text, err := os.ReadFile(file); l.t.Failed() && len(text) > 0 {
				l.t.Logf("%s: %s %v", file, text, err)
			}
		}
	}
}

// asNobody makes everything in the lab nobody's, and runs it as nobody, whom permissions stop; not if the test itself is run by somebody like
// that.
func (l *lab) asNobody() {
	l.t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	const nobody = 65534
	l.user = &syscall.Credential{Uid: nobody, Gid: nobody}
	l.must(os.CopyFS(filepath.Join(l.home, "python"), os.DirFS(filepath.Join(source, "python")))) // the source may be closed to nobody
	l.must(os.CopyFS(filepath.Join(l.home, "scripts"), os.DirFS(scripts)))
	l.setenv("PYTHONPATH", filepath.Join(l.home, "python"))
	l.scripts = filepath.Join(l.home, "scripts")
	for _, dir := range []string{l.dir, l.home} {
		l.must(os.Chmod(filepath.Dir(dir), 0o755))
		l.must(filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, nobody, nobody)
		}))
	}
}

// script is the path of a program in testdata.
func (l *lab) script(name string) string { return filepath.Join(l.scripts, name) }

func (l *lab) setenv(name, value string) { l.env = append(l.env, name+"="+value) }

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) path(names ...string) string {
	return filepath.Join(append([]string{l.dir}, names...)...)
}

func (l *lab) storage() string { return l.path(".replicate", "storage") }

func (l *lab) write(name, content string) {
	l.t.Helper()
	l.must(os.MkdirAll(filepath.Dir(l.path(name)), 0o755))
	l.must(os.WriteFile(l.path(name), []byte(content), 0o644))
}

// command is a program that runs in the project.
func (l *lab) command(name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(l.t.Context(), name, args...)
	if l.served { // a process that is starting holds up this one, which would have to let it into the directory
		cmd = exec.CommandContext(l.t.Context(), "env", append([]string{"-C", l.dir, name}, args...)...)
	} else {
		cmd.Dir = l.dir
	}
	cmd.Env = l.env
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: l.user}
	return cmd
}

// try runs a program and returns what it printed and its exit code.
func (l *lab) try(name string, args ...string) (stdout, stderr string, code int) {
	l.t.Helper()
	cmd := l.command(name, args...)
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			l.t.Fatal(err)
		}
		code = exit.ExitCode()
	}
	return out.String(), complaints.String(), code
}

// run runs a program that must succeed and returns what it printed.
func (l *lab) run(name string, args ...string) string {
	l.t.Helper()
	out, complaints, code := l.try(name, args...)
	if code != 0 {
		l.t.Fatalf("%s %s: exit code %d\n%s%s", name, strings.Join(args, " "), code, out, complaints)
	}
	return out
}

func (l *lab) replicate(args ...string) string {
	l.t.Helper()
	return l.run(binary, args...)
}

// python returns Debian's interpreter, which has the packages that Debian's packages bring, else any.
func python(t testing.TB) string {
	t.Helper()
	if _, err := os.Stat("/usr/bin/python3"); err == nil {
		return "/usr/bin/python3"
	}
	return require.Program(t, "python3")
}

// An experiment is one as ls --json shows it; only what the tests look at.
type experiment struct {
	ID         string
	Status     string
	Params     map[string]any
	NumCommits int      `json:"num_commits"`
	Commits    []commit // by show only
}

type commit struct {
	ID   string
	Step int
}

func (l *lab) list() (list []experiment) {
	l.t.Helper()
	l.must(json.Unmarshal([]byte(l.replicate("ls", "--json")), &list))
	return list
}

func (l *lab) show(id string) (e experiment) {
	l.t.Helper()
	l.must(json.Unmarshal([]byte(l.replicate("show", "--json", id)), &e))
	return e
}

// checkout copies a commit into a new directory.
func (l *lab) checkout(id string) string {
	l.t.Helper()
	to := filepath.Join(l.home, "checkout", id)
	l.replicate("checkout", "-f", "-o", to, id)
	l.must(os.RemoveAll(filepath.Join(to, ".replicate"))) // the note of which commit it is
	return to
}

// mount mounts the repository until the test ends.
func (l *lab) mount() string {
	l.t.Helper()
	require.Fuse(l.t)
	require.Program(l.t, "fusermount3")
	dir := l.t.TempDir()
	l.replicate("mount", dir)
	l.t.Cleanup(func() { // the context of the test has ended
		cmd := exec.Command(binary, "umount", dir)
		cmd.Env = l.env
		if out, err := cmd.CombinedOutput(); err != nil {
			l.t.Errorf("umount: %v\n%s", err, out)
		}
	})
	return dir
}

// check asks whether a storage is sound, every byte of it.
func (l *lab) check(storage string) {
	l.t.Helper()
	if out, stderr, code := l.try(binary, "check", "--read-data", "-S", storage); code != 0 {
		l.t.Errorf("check of %s: exit code %d\n%s%s", storage, code, out, stderr)
	}
}

// size is how many bytes are in the files below a directory, 0 if there is none.
func (l *lab) size(dir string) (total int64) {
	l.t.Helper()
	l.must(filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	}))
	return total
}

// within waits until something is so.
func (l *lab) within(limit time.Duration, what string, so func() bool) {
	l.t.Helper()
	for start := time.Now(); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Since(start) > limit {
			l.t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// children returns the processes that a process started and that live.
func children(pid int) (pids []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task) // the thread may be gone
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids
}
