package remotetest_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestProcessToBeKilled is a process with a laboratory, for the test below.
func TestProcessToBeKilled(t *testing.T) {
	if os.Getenv("REMOTETEST_WAIT") == "" {
		return
	}
	l := lab(t)
	fmt.Print("container ", l.Hosts[0].Docker(t, "run", "-d", "python:3.11-slim", "sleep", "1000"))
	fmt.Println("host", strings.TrimSuffix(l.Hosts[0].Socket(), "/root/run/docker.sock"))
	fmt.Println("key", l.Key())
	select {}
}

func TestLaboratoryEndsWithItsProcess(t *testing.T) {
	lab(t) // on a machine that can have one
	child := exec.Command(os.Args[0], "-test.run=^TestProcessToBeKilled$")
	child.Env = append(os.Environ(), "REMOTETEST_WAIT=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	said := map[string]string{}
	for lines := bufio.NewScanner(out); said["key"] == "" && lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		said[name] = value
	}
	key, err := os.ReadFile(said["key"]) // the next laboratory in its place has another
	child.Process.Kill()
	child.Wait()
	if err != nil {
		t.Fatalf("the process started no laboratory: %v", err)
	}
	until(t, "its files are there", func() bool {
		now, _ := os.ReadFile(said["key"])
		return string(now) != string(key)
	})
	until(t, "its processes live", func() bool {
		_, err := os.Stat(said["host"])
		return os.IsNotExist(err)
	})
	for _, pattern := range []string{"/sys/fs/cgroup/replicate-lab-*/", "/sys/fs/cgroup/*/replicate-lab-*/"} {
		if left, _ := filepath.Glob(pattern + said["container"]); len(left) > 0 {
			t.Errorf("the container's cgroup is left: %v", left)
		}
	}
}

// until waits for something, and ends the test if that does not come.
func until(t *testing.T, otherwise string, come func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); !come(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("after a minute %s", otherwise)
		}
	}
}
