package remote_test

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/replicate/replicate/remote/remotetest"
)

// holdCommands lets commands that ssh executes for dev on a host wait until what it returns is called.
func holdCommands(t *testing.T, host *remotetest.Host) (release func()) {
	t.Helper()
	const script = "until [ -e /run/released ]; do sleep 0.02; done"
	host.Run(t, "sh", "-c", "echo '"+script+"' >/home/dev/.bashrc")
	t.Cleanup(func() { host.Run(t, "rm", "-f", "/home/dev/.bashrc", "/run/released") })
	return func() { host.Run(t, "touch", "/run/released") }
}

// TestStartDoesNotWaitForGPUsThatAreKnown starts a job on a host that does not get to say what GPUs it has. When it does, the memory that others use is told.
func TestStartDoesNotWaitForGPUsThatAreKnown(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	host.GPUs(t, 2)
	if o := d.try("run", "-H", "rh1", "true"); o.code != 0 || strings.Contains(o.stderr, "uses memory") {
		t.Fatalf("exit code %d", o.code)
	}
	host.SetGPUs(t, 3, 40000)
	d.write("hold.py", holding)
	release := holdCommands(t, host)
	run := d.begin("run", "-H", "rh1", "hold.py")
	id := run.id()
	run.prints("has None\n")
	if strings.Contains(run.err(), "uses memory") || !strings.Contains(run.err(), "Found CUDA driver on remote host: "+remotetest.Driver) {
		t.Error("that is not known yet")
	}
	release()
	run.says("somebody who has leased nothing uses memory on remote host: 42 GB of GPU 1 (" + remotetest.GPU(1) + ")")
	d.inside(host, id, "touch", "go")
	if code := run.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestMemoryOfLeasedGPUsIsNoStrangers has a run use the memory of what it has leased.
func TestMemoryOfLeasedGPUsIsNoStrangers(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	host.GPUs(t, 2)
	d.write("hold.py", holding)
	first := d.begin("run", "-H", "rh1", "--gpus", "1", "hold.py")
	first.prints("has " + remotetest.GPU(0) + "\n")
	host.SetGPUs(t, 40000, 30000)
	second := d.begin("run", "-H", "rh1", "--gpus", "1", "hold.py")
	second.says("31 GB of GPU 1")
	second.prints("has " + remotetest.GPU(1) + "\n")
	if strings.Contains(second.err(), remotetest.GPU(0)) {
		t.Error("the other run is taken for a stranger")
	}
	d.inside(host, first.id(), "touch", "go")
	d.inside(host, second.id(), "touch", "go")
	if a, b := first.wait(), second.wait(); a != 0 || b != 0 {
		t.Errorf("exit codes %d and %d", a, b)
	}
}

// TestGPUsThatAreGone starts jobs on a host that is remembered to have other GPUs than it has.
func TestGPUsThatAreGone(t *testing.T) {
	for _, tt := range []struct {
		name   string
		gpus   string // the flag
		now    []int  // nil: it has no driver any more
		code   int
		stdout string
		says   string
	}{
		{"OneOfTwo", "1", []int{remotetest.Gone, 3}, 0, remotetest.GPU(1) + "\n", "finished"},
		{"TheNamedOne", remotetest.GPU(0), []int{remotetest.Gone, 3}, 125, "", `this machine has no GPU "` + remotetest.GPU(0)},
		{"Driver", "", nil, 0, "\n", "No CUDA driver found on remote host"},
		{"DriverAndAskedFor", "1", nil, 125, "", "find GPUs on rh1: it has no NVIDIA driver"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			host := d.lab.Hosts[0]
			t.Run("Before", func(t *testing.T) {
				host.GPUs(t, 2)
				d.replicate("run", "-H", "rh1", "true")
			})
			if tt.now != nil {
				host.GPUs(t, 2)
				host.SetGPUs(t, tt.now...)
			}
			release := holdCommands(t, host)
			args := []string{"run", "-H", "rh1"}
			if tt.gpus != "" {
				args = append(args, "--gpus", tt.gpus)
			}
			run := d.begin(append(args, "sh", "-c", "echo $CUDA_VISIBLE_DEVICES")...)
			run.says("Found CUDA driver on remote host")
			release()
			if code := run.wait(); code != tt.code || run.out() != tt.stdout {
				t.Errorf("exit code %d, want %d; stdout %q", code, tt.code, run.out())
			}
			if !strings.Contains(run.err(), tt.says) {
				t.Errorf("nothing says %q", tt.says)
			}
			if known := d.read(filepath.Join(d.home, "cache/replicate/remote.json")); strings.Contains(known, remotetest.GPU(0)) {
				t.Errorf("what is gone is remembered: %s", known)
			}
		})
	}
}
