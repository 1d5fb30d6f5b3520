package remotetest_test

import (
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate/remote/remotetest"
)

func lab(t *testing.T) *remotetest.Lab {
	t.Helper()
	return remotetest.Start(t, remotetest.Options{})
}

// ssh runs a command on a host as users do.
func ssh(t *testing.T, l *remotetest.Lab, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), filepath.Join(l.Bin, "ssh"), append([]string{"-o", "BatchMode=yes"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func TestHostsAreReachedAndRunContainers(t *testing.T) {
	l := lab(t)
	for _, h := range l.Hosts {
		if got := ssh(t, l, h.Name, "hostname; id -un"); got != h.Name+"\ndev" {
			t.Errorf("%s says %q", h.Name, got)
		}
		if got := ssh(t, l, h.Name, "docker", "run", "--rm", remotetest.Image, "python", "-c", "'print(6*7)'"); got != "42" {
			t.Errorf("a container on %s says %q", h.Name, got)
		}
		if got := h.Docker(t, "ps", "-aq"); got != "" {
			t.Errorf("%s has containers: %s", h.Name, got)
		}
	}
}

func TestHostsHaveEnginesOfTheirOwn(t *testing.T) {
	l := lab(t)
	one, two := l.Hosts[0], l.Hosts[1]
	one.Docker(t, "volume", "create", "only-here")
	t.Cleanup(func() { one.Docker(t, "volume", "rm", "only-here") })
	if list := two.Docker(t, "volume", "ls", "-q"); strings.Contains(list, "only-here") {
		t.Errorf("a volume of %s is on %s", one.Name, two.Name)
	}
	if one.Docker(t, "info", "-f", "{{.Name}}") == two.Docker(t, "info", "-f", "{{.Name}}") {
		t.Error("both hosts have the same name")
	}
}

func TestAliceMayNotUseDocker(t *testing.T) {
	l := lab(t)
	out := ssh(t, l, "alice@"+l.Hosts[0].Name, "docker ps 2>&1 || true")
	if !strings.Contains(out, "permission denied") {
		t.Errorf("docker ps says %q", out)
	}
}

func TestConnectionsAreCounted(t *testing.T) {
	l := lab(t)
	h := l.Hosts[0]
	before := h.Connections(t)
	ssh(t, l, h.Name, "true")
	ssh(t, l, h.Name, "true")
	if got := h.Connections(t) - before; got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
}

func TestSSHDTakesOptionsForATest(t *testing.T) {
	l := lab(t)
	h := l.Hosts[0]
	t.Run("forced", func(t *testing.T) {
		h.SSHD(t, "ForceCommand echo forced")
		if got := ssh(t, l, h.Name, "hostname"); got != "forced" {
			t.Errorf("says %q", got)
		}
	})
	if got := ssh(t, l, h.Name, "hostname"); got != h.Name {
		t.Errorf("says %q afterwards", got)
	}
}

func TestContainersSurviveALiveRestore(t *testing.T) {
	l := lab(t)
	h := l.Hosts[1]
	h.RestartDocker(t, "--live-restore")
	t.Cleanup(func() { h.RestartDocker(t) })
	id := strings.TrimSpace(h.Docker(t, "run", "-d", "--network", "none", remotetest.Image, "sleep", "1000"))
	t.Cleanup(func() { h.Docker(t, "rm", "-f", id) })
	h.RestartDocker(t, "--live-restore")
	if got := strings.TrimSpace(h.Docker(t, "inspect", "-f", "{{.State.Running}}", id)); got != "true" {
		t.Errorf("running: %s", got)
	}
}

func TestFrozenHostIsSilent(t *testing.T) {
	l := lab(t)
	h := l.Hosts[0]
	t.Run("frozen", func(t *testing.T) {
		h.Freeze(t)
		out, err := exec.CommandContext(t.Context(), filepath.Join(l.Bin, "ssh"), "-o", "ConnectTimeout=1", h.Name, "true").CombinedOutput()
		if err == nil || !strings.Contains(string(out), "timed out") && !strings.Contains(string(out), "No route to host") {
			t.Errorf("ssh: %v, %s", err, out)
		}
	})
	if got := ssh(t, l, h.Name, "hostname"); got != h.Name {
		t.Errorf("says %q afterwards", got)
	}
}

func TestDiskCanBeFilled(t *testing.T) {
	h := remotetest.Start(t, remotetest.Options{Disk: 800 << 20}).Hosts[0]
	empty := h.FillDisk(t, 1<<20)
	script := "head -c 10000000 /dev/zero > /big"
	if out, err := h.Command("docker", "run", "--rm", "--network", "none", remotetest.Image, "sh", "-c", script).CombinedOutput(); err == nil {
		t.Errorf("10 MB fit: %s", out)
	} else if !strings.Contains(string(out), "No space left") && !strings.Contains(string(out), "no space left") {
		t.Errorf("docker run: %v, %s", err, out)
	}
	empty()
	h.Docker(t, "run", "--rm", "--network", "none", remotetest.Image, "sh", "-c", script)
}

func TestDialReachesTheEngine(t *testing.T) {
	conn, err := lab(t).Hosts[1].Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestLinkToAHostHasAName(t *testing.T) {
	l := lab(t)
	h := l.Hosts[0]
	link := h.Link(t, remotetest.Quality{Latency: 5 * time.Millisecond})
	if got := ssh(t, l, link.Name, "hostname"); got != h.Name || link.Connections() != 1 {
		t.Errorf("%q after %d connections", got, link.Connections())
	}
}

func TestFakeGPUs(t *testing.T) {
	l := lab(t)
	h := l.Hosts[0]
	h.GPUs(t, 3)
	query := "nvidia-smi --query-gpu=uuid,memory.total --format=csv,noheader,nounits"
	want := remotetest.GPU(0) + ", 81559\n" + remotetest.GPU(1) + ", 81559\n" + remotetest.GPU(2) + ", 81559"
	if got := ssh(t, l, h.Name, query); got != want {
		t.Errorf("on the host nvidia-smi says\n%s\nwant\n%s", got, want)
	}
	if got := ssh(t, l, h.Name, "cat /proc/driver/nvidia/version"); !strings.Contains(got, remotetest.Driver) {
		t.Errorf("the driver says %q", got)
	}
	got := h.Docker(t, "run", "--rm", "--network", "none", "--gpus", `"device=`+remotetest.GPU(1)+`"`, remotetest.Image, "nvidia-smi", "-L")
	if want := "GPU 1: Fake H100 (UUID: " + remotetest.GPU(1) + ")\n"; got != want {
		t.Errorf("in a container nvidia-smi says %q, want %q", got, want)
	}
}
