package remote_test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate/remote/remotetest"
)

// holding shows which GPU it has, and waits for the file "go".
const holding = `import os, time
print("has", os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
`

// TestGPUIsLeasedToOne lets two runs want the only GPU. The second waits and says for whom, and gets it when the first is killed.
func TestGPUIsLeasedToOne(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	host.GPUs(t, 1)
	d.write("hold.py", holding)
	first := d.begin("run", "-H", "rh1", "--gpus", "1", "hold.py")
	holder := first.id()
	first.prints("has " + remotetest.GPU(0) + "\n")
	second := d.begin("run", "-H", "rh1", "--gpus", "1", "hold.py")
	waiter := second.id()
	second.says(holder[:7])
	d.within(time.Minute, "ps says that it waits", func() bool { return strings.Contains(d.replicate("ps"), "waiting") })
	if out := second.out(); out != "" {
		t.Errorf("the one that waits prints %q", out)
	}
	host.Run(t, "kill", "-9", strings.TrimSpace(host.Docker(t, "inspect", "-f", "{{.State.Pid}}", "replicate-run-"+holder)))
	second.prints(fmt.Sprintf("has %s\n", remotetest.GPU(0)))
	d.inside(host, waiter, "touch", "go")
	if code := second.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if code := first.wait(); code != 137 {
		t.Errorf("exit code of the killed one: %d", code)
	}
}

// at is a command of this desk that somebody types at a host.
func (d *desk) at(h *remotetest.Host, args ...string) *exec.Cmd {
	cmd := h.Command(append([]string{"env", "-C", d.dir, "PATH=/run/lab/bin:" + filepath.Dir(binary) + ":/usr/bin:/bin", binary}, args...)...)
	cmd.Env = d.env
	return cmd
}

// TestGPUIsSharedWithJobsInPlace lets two runs on one machine want its only GPU, of which one at least is not in Docker. One waits for the other.
func TestGPUIsSharedWithJobsInPlace(t *testing.T) {
	for _, tt := range []struct {
		name          string
		first, second []string
	}{
		{"DockerFirst", []string{"-H", "rh1"}, []string{"--no-docker"}},
		{"DockerSecond", []string{"--no-docker"}, []string{"-H", "rh1"}},
		{"NoDocker", []string{"--no-docker"}, []string{"--no-docker"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			host := d.lab.Hosts[0]
			host.GPUs(t, 1)
			start := func(where []string, file string) *running {
				script := "echo has $CUDA_VISIBLE_DEVICES; until [ -e " + file + " ]; do sleep 0.1; done"
				args := append(append([]string{"run", "--gpus", "1"}, where...), "sh", "-c", script)
				if where[0] == "-H" {
					return d.begin(args...)
				}
				return d.beginCommand(d.at(host, args...))
			}
			first := start(tt.first, "one")
			holder := first.id()
			first.prints("has " + remotetest.GPU(0) + "\n")
			second := start(tt.second, "two")
			second.says("held by " + holder[:7])
			if out := second.out(); out != "" {
				t.Errorf("the one that waits prints %q", out)
			}
			d.write("two", "") // where that runs in place
			if tt.first[0] == "-H" {
				d.inside(host, holder, "touch", "one")
			} else {
				d.write("one", "")
			}
			second.prints("has " + remotetest.GPU(0) + "\n")
			if tt.second[0] == "-H" {
				d.inside(host, second.id(), "touch", "two")
			}
			if a, b := first.wait(), second.wait(); a != 0 || b != 0 {
				t.Errorf("exit codes %d and %d", a, b)
			}
		})
	}
}
