package remote_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// train commits three times.
const train = `import replicate, sys
experiment = replicate.init(learning_rate=0.1)
for epoch in range(3):
    print("epoch", epoch, flush=True)
    open("model.txt", "w").write(f"weights {epoch}\n")
    experiment.commit(step=epoch, loss=1 / (epoch + 1))
print("done", file=sys.stderr)
`

// slow trains until somebody removes the file "go-on" beside it, or stops it.
const slow = `import replicate, time
experiment = replicate.init()
for step in range(100000):
    experiment.commit(step=step)
    print("step", step, flush=True)
    time.sleep(0.2)
`

// A listed is an experiment as ls --json has it.
type listed struct {
	ID, Status, Host, User string
	NumCommits             int  `json:"num_commits"`
	ExitCode               *int `json:"exit_code"`
	Params                 map[string]any
}

func (d *desk) list(args ...string) []listed {
	d.t.Helper()
	var list []listed
	d.must(json.Unmarshal([]byte(d.replicate(append([]string{"ls", "--json"}, args...)...)), &list))
	return list
}

// only returns the one experiment there is.
func (d *desk) only() listed {
	d.t.Helper()
	list := d.list()
	if len(list) != 1 {
		d.t.Fatalf("there are %d experiments: %+v", len(list), list)
	}
	return list[0]
}

func TestRunOnAnotherMachine(t *testing.T) {
	for _, host := range []string{"rh1", "rh2"} { // rh2 is behind rh1
		t.Run(host, func(t *testing.T) {
			d := newDesk(t)
			d.write("train.py", train)
			o := d.try("run", "-H", host, "train.py")
			if o.code != 0 || o.stdout != "epoch 0\nepoch 1\nepoch 2\n" || !strings.Contains(o.stderr, "done\n") {
				t.Fatalf("exit code %d\n%s\n%s", o.code, o.stdout, o.stderr)
			}
			e := d.only()
			if e.Status != "finished" || e.NumCommits != 3 || e.Host != host || e.User != "ann" || e.Params["learning_rate"] != 0.1 {
				t.Errorf("ls says %+v", e)
			}
			if got := d.replicate("cat", e.ID[:7]+"@2:model.txt"); got != "weights 2\n" {
				t.Errorf("the file is %q", got)
			}
			if got := d.replicate("logs", e.ID[:7]); !strings.Contains(got, "epoch 1\n") || !strings.Contains(got, "done\n") {
				t.Errorf("the output is %q", got)
			}
			if o := d.try("pull"); !strings.Contains(o.stderr, "nothing to pull") {
				t.Errorf("pull says %s", o.stderr)
			}
		})
	}
}

func TestRunInPlace(t *testing.T) {
	d := newDesk(t)
	d.write("train.py", train)
	o := d.try("run", "--no-docker", "python3", "-u", "train.py")
	if o.code != 0 || o.stdout != "epoch 0\nepoch 1\nepoch 2\n" {
		t.Fatalf("exit code %d\n%s\n%s", o.code, o.stdout, o.stderr)
	}
	e := d.only()
	if e.Status != "finished" || e.NumCommits != 3 {
		t.Errorf("ls says %+v", e)
	}
	if got := d.replicate("logs", e.ID[:7]); !strings.Contains(got, "epoch 1\n") {
		t.Errorf("the output is %q", got)
	}
}

func TestExitCodesComeBack(t *testing.T) {
	for command, want := range map[string]struct {
		code   int
		status string
	}{
		"exit 0":     {0, "finished"},
		"exit 3":     {3, "failed"},
		"kill -9 $$": {137, "crashed"},
		"kill $$":    {143, "terminated"},
	} {
		t.Run(command, func(t *testing.T) {
			d := newDesk(t)
			if o := d.try("run", "-H", "rh1", "sh", "-c", command); o.code != want.code {
				t.Errorf("exit code %d, want %d\n%s", o.code, want.code, o.stderr)
			}
			if e := d.only(); e.Status != want.status || e.ExitCode == nil || *e.ExitCode != want.code {
				t.Errorf("ls says %+v, want %s", e, want.status)
			}
		})
	}
}

// TestLaptopIsAway starts a run and leaves: it goes on, and everything comes home later.
func TestLaptopIsAway(t *testing.T) {
	d := newDesk(t)
	d.write("train.py", train)
	id := strings.TrimSpace(d.replicate("run", "-d", "-H", "rh1", "train.py"))
	if e := d.only(); e.Status != "detached" || e.ID != id {
		t.Errorf("ls says %+v", e)
	}
	if o := d.try("ls"); !strings.Contains(o.stderr, "1 run on rh1 may have commits that are not here") {
		t.Errorf("ls says nothing of what is due: %s", o.stderr)
	}
	d.within(time.Minute, "the job ends", func() bool {
		return strings.Contains(d.lab.Hosts[0].Docker(t, "ps", "-a", "--filter", "name=replicate-run-"+id, "--format", "{{.Status}}"), "Exited (0)")
	})
	if o := d.try("pull"); o.code != 0 {
		t.Fatal(o.stderr)
	}
	if e := d.only(); e.Status != "finished" || e.NumCommits != 3 {
		t.Errorf("ls says %+v", e)
	}
	if got := d.replicate("logs", id[:7]); !strings.Contains(got, "epoch 2\n") {
		t.Errorf("the output is %q", got)
	}
}

func TestAttachAndStop(t *testing.T) {
	d := newDesk(t)
	d.write("train.py", slow)
	id := strings.TrimSpace(d.replicate("run", "-d", "-H", "rh1", "train.py"))
	if got := d.replicate("ps", "-q"); got != id+"\n" {
		t.Errorf("ps says %q", got)
	}
	attached := d.command("attach", id[:7])
	out, err := os.Create(filepath.Join(d.home, "out"))
	d.must(err)
	attached.Stdout, attached.Stderr = out, out
	d.must(attached.Start())
	d.within(time.Minute, "attach shows steps", func() bool { return strings.Contains(d.read(out.Name()), "step 3\n") })
	d.replicate("stop", id[:7])
	_ = attached.Wait()
	if code := attached.ProcessState.ExitCode(); code != 143 {
		t.Errorf("attach exits with %d:\n%s", code, d.read(out.Name()))
	}
	text := d.read(out.Name())
	for i := range 4 {
		if n := strings.Count(text, fmt.Sprintf("step %d\n", i)); n != 1 {
			t.Errorf("step %d was shown %d times", i, n)
		}
	}
	if e := d.only(); e.Status != "terminated" || e.NumCommits < 3 {
		t.Log(text)
		t.Errorf("ls says %+v", e)
	}
}

func (d *desk) read(path string) string {
	d.t.Helper()
	text, err := os.ReadFile(path)
	d.must(err)
	return string(text)
}

// TestUnknownHosts prints what to do.
func TestUnknownHosts(t *testing.T) {
	d := newDesk(t)
	d.write("replicate.yaml", "image: nothing/like-this\n")
	for _, tt := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"NoCommand", []string{"run"}, 2, "run wants a command"},
		{"BadHost", []string{"run", "-H", "slurm://x", "true"}, 2, "slurm:// is not known"},
		{"NoHost", []string{"run", "-H", "10.255.255.254:1", "true"}, 255, "hint"},
		{"NotStarted", []string{"attach", "abcdef0"}, 3, "abcdef0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if o := d.try(tt.args...); o.code != tt.code || !strings.Contains(o.stderr, tt.want) {
				t.Errorf("exit code %d\n%s", o.code, o.stderr)
			}
		})
	}
}

// TestPruneTakesDeletedRuns removes a run from its host once its experiment is deleted, and no other.
func TestPruneTakesDeletedRuns(t *testing.T) {
	d := newDesk(t)
	for range 2 {
		d.replicate("run", "-H", "rh1", "true")
	}
	list := d.list()
	gone, kept := list[0].ID, list[1].ID
	d.replicate("rm", "-f", gone[:7])
	if o := d.try("prune", "-H", "rh1", "--dry-run"); !strings.Contains(o.stderr, "would remove run "+gone[:7]) {
		t.Errorf("a dry run says %s", o.stderr)
	}
	d.replicate("prune", "-H", "rh1")
	there := d.lab.Hosts[0].Docker(t, "ps", "-a", "--format", "{{.Names}}") + d.lab.Hosts[0].Docker(t, "volume", "ls", "-q")
	if strings.Contains(there, gone) || strings.Count(there, kept) != 2 {
		t.Errorf("there are %s", there)
	}
}

func TestSecretArgumentIsWarnedOf(t *testing.T) {
	d := newDesk(t)
	o := d.try("run", "--no-docker", "sh", "-c", "exit 0", "--api-key=hush-hush-hush")
	if o.code != 0 || !strings.Contains(o.stderr, "argument 3 of the command looks like a secret") || strings.Contains(o.stderr, "hush-hush") {
		t.Errorf("exit code %d\n%s", o.code, o.stderr)
	}
}
