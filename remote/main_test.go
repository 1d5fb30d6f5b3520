package remote_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate/remote/remotetest"
)

var (
	source string // the root of the source tree
	binary string // the command, built from it
)

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "replicate-remote-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	here, err := os.Getwd()
	if err != nil {
		panic(err)
	}
	source, binary = filepath.Dir(here), filepath.Join(dir, "replicate")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "./cmd/replicate")
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the command: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

// A desk is a person's machine: a project, a home, and the command, with the hosts of a laboratory in reach.
type desk struct {
	t    testing.TB
	lab  *remotetest.Lab
	dir  string // the project
	home string
	env  []string
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	return newDeskIn(t, remotetest.Options{})
}

// newDeskIn is newDesk in a laboratory of its own kind.
func newDeskIn(t testing.TB, options remotetest.Options) *desk {
	t.Helper()
	lab := remotetest.Start(t, options)
	d := &desk{t: t, lab: lab, dir: filepath.Join(t.TempDir(), "project"), home: t.TempDir()}
	d.must(os.MkdirAll(d.dir, 0o755))
	d.env = []string{
		"HOME=" + d.home, "XDG_CACHE_HOME=" + filepath.Join(d.home, "cache"), "PATH=" + lab.Bin + ":" + filepath.Dir(binary) + ":" + os.Getenv("PATH"),
		"LC_ALL=C.UTF-8", "USER=ann", "REPLICATE_USER=ann", "PYTHONPATH=" + filepath.Join(source, "python"), "REPLICATE_BINARY=" + binary,
		"PYTHONDONTWRITEBYTECODE=1",
	}
	d.write("replicate.yaml", "image: "+remotetest.Image+"\n")
	return d
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *desk) setenv(name, value string) { d.env = append(d.env, name+"="+value) }

func (d *desk) write(name, content string) {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	d.must(os.MkdirAll(filepath.Dir(path), 0o755))
	d.must(os.WriteFile(path, []byte(content), 0o644))
}

func (d *desk) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Dir, cmd.Env = d.dir, d.env
	return cmd
}

// An outcome is how a command ended.
type outcome struct {
	stdout, stderr string
	code           int
	memory         int64 // bytes, at its most
}

// try runs a command to its end.
func (d *desk) try(args ...string) outcome {
	d.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := d.command(args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	stuck := time.AfterFunc(3*time.Minute, func() { cmd.Process.Kill() })
	defer stuck.Stop()
	_ = cmd.Wait()
	d.t.Logf("%s: %d after %v\n%s", strings.Join(args, " "), cmd.ProcessState.ExitCode(), time.Since(start).Round(time.Millisecond), stderr.String())
	used := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), used.Maxrss << 10}
}

// replicate runs a command that must succeed, and returns its stdout.
func (d *desk) replicate(args ...string) string {
	d.t.Helper()
	o := d.try(args...)
	if o.code != 0 {
		d.t.Fatalf("replicate %s: exit code %d\n%s%s", strings.Join(args, " "), o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// within fails the test unless something becomes true.
func (d *desk) within(limit time.Duration, what string, ok func() bool) {
	d.t.Helper()
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if ok() {
			return
		}
	}
	d.t.Fatalf("not within %v: %s", limit, what)
}
