package docker_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/remotetest"
)

func TestBindsMustExist(t *testing.T) {
	e := engine(t)
	c := named(t, "cat /data/f && ! touch /data/g 2>/dev/null && touch /out/g")
	c.Binds = []docker.Bind{{Source: "/no/such/dir", Target: "/data"}}
	_, err := e.Create(t.Context(), c)
	wants(t, err, replicate.NotFound, "/no/such/dir does not exist on the host")

	in, out := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(in+"/f", []byte("hello"), 0o644))
	c.Binds = []docker.Bind{{Source: in, Target: "/data"}, {Source: out, Target: "/out", Writable: true}}
	run(t, e, c)
	if code, err := e.Wait(t.Context(), c.Name); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if _, err := os.Stat(out + "/g"); err != nil {
		t.Error(err)
	}
}

func TestSettingsReachTheContainer(t *testing.T) {
	e := engine(t)
	c := named(t, `id -u; ulimit -l; ulimit -s; df --output=size -B1M /dev/shm | tail -1; stat -f -c %T /scratch; pwd; echo $A; echo "$PATH"`)
	c.ShmSize, c.Tmpfs, c.Dir, c.Env = 123<<20, []string{"/scratch"}, "/usr", []string{"A=b"}
	run(t, e, c)
	_, err := e.Wait(t.Context(), c.Name)
	must(t, err)
	tail, err := e.Tail(t.Context(), c.Name, 20)
	must(t, err)
	lines := strings.Fields(tail)
	if len(lines) != 8 || lines[0] != "0" || lines[3] != "123" || lines[4] != "tmpfs" || lines[5] != "/usr" || lines[6] != "b" || !strings.Contains(lines[7], "/usr/bin") {
		t.Errorf("printed %q", lines)
	}
	inspect := host(t).Docker(t, "inspect", "-f",
		"{{.HostConfig.LogConfig}} {{.HostConfig.Privileged}} {{.Config.OpenStdin}} {{.Config.StdinOnce}} {{.Config.Tty}} {{.Config.Healthcheck.Test}}", c.Name)
	if want := "{json-file map[max-file:1 max-size:1m]} false true false false [NONE]\n"; inspect != want {
		t.Errorf("inspect says %q, want %q", inspect, want)
	}
}

func TestPortsArePublishedOnLoopbackOnly(t *testing.T) {
	e := engine(t)
	c := named(t, "exec python3 -m http.server 8000")
	c.Network, c.Ports = "", []uint16{8000}
	run(t, e, c)
	state, err := e.Inspect(t.Context(), c.Name)
	must(t, err)
	port := state.Ports[8000]
	if port == 0 {
		t.Fatalf("%+v", state)
	}
	published := host(t).Docker(t, "port", c.Name)
	if want := fmt.Sprintf("8000/tcp -> 127.0.0.1:%d\n", port); published != want {
		t.Errorf("published %q, want %q", published, want)
	}
}

func TestGPUs(t *testing.T) {
	h := host(t)
	e := engine(t)
	c := named(t, "echo $NVIDIA_VISIBLE_DEVICES")
	c.GPUs = docker.GPUs{All: true}
	create(t, e, c)
	_, err := e.Start(t.Context(), c)
	wants(t, err, replicate.NotFound, "Docker on the host has no driver for GPUs")
	if !strings.Contains(replicate.HintOf(err), "nvidia-container-toolkit") {
		t.Errorf("hint: %q", replicate.HintOf(err))
	}
	must(t, e.Remove(t.Context(), c.Name))

	h.GPUs(t, 2)
	for want, gpus := range map[string]docker.GPUs{"all": {All: true}, remotetest.GPU(1): {IDs: []string{remotetest.GPU(1)}}, "": {}} {
		c.GPUs = gpus
		_, err := e.Create(t.Context(), c)
		must(t, err)
		start(t, e, c)
		_, err = e.Wait(t.Context(), c.Name)
		must(t, err)
		if tail, err := e.Tail(t.Context(), c.Name, 1); err != nil || strings.TrimSpace(tail) != want {
			t.Errorf("asked for %q, got %q, %v", want, tail, err)
		}
		must(t, e.Remove(t.Context(), c.Name))
	}
}
