package remote_test

import (
	"strings"
	"testing"
	"time"
)

// TestEngineFaults restarts Docker, or kills supervisors, in the middle of runs. What was killed is told, what is to be tried again is, and what was left alone
// goes on.
func TestEngineFaults(t *testing.T) {
	for _, tt := range []struct {
		name   string
		args   []string // of dockerd
		run    []string
		kill   bool // the supervisor, instead of restarting Docker
		status string
		says   string
	}{
		{"Restart", nil, nil, false, "terminated", "told to end from outside"},
		{"LiveRestore", []string{"--live-restore"}, nil, false, "finished", "finished after"},
		{"Kill", nil, nil, true, "crashed", "killed: the container was stopped from outside, or Docker restarted"},
		{"KillAndRetry", nil, []string{"--retries", "2"}, true, "finished", "finished after"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			host := d.lab.Hosts[0]
			if tt.args != nil {
				host.RestartDocker(t, tt.args...)
				t.Cleanup(func() { host.RestartDocker(t) })
			}
			d.write("count.py", counting)
			run := d.begin(append(append([]string{"run", "-H", "rh1"}, tt.run...), "count.py")...)
			id := run.id()
			run.prints("\n20\n")
			if tt.kill {
				host.Run(t, "kill", "-9", strings.TrimSpace(host.Docker(t, "inspect", "-f", "{{.State.Pid}}", "replicate-run-"+id)))
			} else {
				host.RestartDocker(t, tt.args...)
			}
			if tt.status == "finished" {
				shown := len(run.out())
				d.within(time.Minute, "it goes on", func() bool { return len(run.out()) > shown+100 })
				d.inside(host, id, "touch", "enough")
			}
			code := run.wait()
			if (code == 0) != (tt.status == "finished") {
				t.Errorf("exit code %d", code)
			}
			if !strings.Contains(run.err(), tt.says) {
				t.Errorf("nothing says %q", tt.says)
			}
			if e := d.only(); e.Status != tt.status {
				t.Errorf("ls says %+v, want %s", e, tt.status)
			}
			if tt.args != nil {
				d.counted(run.stdout)
			}
		})
	}
}

const greedy = `import time
print("ready", flush=True)
time.sleep(0.5)
while True:
    try:
        open("go").close()
        break
    except FileNotFoundError:
        time.sleep(0.01)
held = []
while True:
    held.append(bytearray(b"x" * (8 << 20)))
`

func TestJobWithoutMemoryLeft(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	d.write("greedy.py", greedy)
	run := d.begin("run", "-H", "rh1", "greedy.py")
	id := run.id()
	run.prints("ready")
	host.Docker(t, "update", "--memory", "200m", "--memory-swap", "200m", "replicate-run-"+id)
	d.inside(host, id, "touch", "go")
	if code := run.wait(); code != 137 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(run.err(), "out of memory") {
		t.Error("nothing says that the memory is out")
	}
	if e := d.only(); e.Status != "crashed" {
		t.Errorf("ls says %+v", e)
	}
}
