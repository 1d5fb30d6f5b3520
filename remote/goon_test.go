package remote_test

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate/remote/remotetest"
)

// killedBuild kills a command that starts a run while a step of its environment is built, and returns the experiment.
func (d *desk) killedBuild(target string, args ...string) string {
	d.t.Helper()
	d.write("replicate.yaml", "image: python:3.11-slim\ninstall:\n  - sleep 10 && echo made >/made-for-"+rand.Text()+"\n")
	run := d.begin(append([]string{"run", "-H", target}, args...)...)
	run.says("Building Docker image...")
	d.within(time.Minute, "the start is noted", func() bool { return strings.Contains(d.notes(), "argv") })
	run.kill()
	e := d.only()
	if e.Status != "building" {
		d.t.Errorf("ls says %+v", e)
	}
	return e.ID
}

// notes is what this machine remembers of runs.
func (d *desk) notes() string {
	d.t.Helper()
	paths, err := filepath.Glob(filepath.Join(d.dir, ".replicate", "runs", "*.json"))
	d.must(err)
	text := ""
	for _, path := range paths {
		info, err := os.Stat(path)
		d.must(err)
		if info.Mode() != 0o600 {
			d.t.Errorf("%s has mode %v", path, info.Mode())
		}
		text += d.read(path)
	}
	return text
}

// nothingOf fails the test if something of a run is left on a host or remembered.
func (d *desk) nothingOf(host *remotetest.Host, id string) {
	d.t.Helper()
	if left := host.Docker(d.t, "ps", "-aq", "--filter", "name="+id) + host.Docker(d.t, "volume", "ls", "-q", "--filter", "name="+id) + d.notes(); left != "" {
		d.t.Errorf("of %s is left: %s", id, left)
	}
}

// TestAttachGoesOnWithAKilledStart kills a command whose environment is being built, and goes on with it: as it was asked for, in the same experiment.
func TestAttachGoesOnWithAKilledStart(t *testing.T) {
	for name, target := range map[string]func(*remotetest.Host) string{
		"There": func(*remotetest.Host) string { return "rh1" },
		"Here":  func(h *remotetest.Host) string { return "unix://" + h.Socket() },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			d.goesOn(d.lab.Hosts[0], target(d.lab.Hosts[0]))
		})
	}
}

func (d *desk) goesOn(host *remotetest.Host, target string) {
	t := d.t
	t.Helper()
	before := len(d.containers(host))
	id := d.killedBuild(target, "--env", "TOKEN=hush-hush-hush", "--shm-size", "64MiB", "--commit", "--gpus", "none", "-m", "/srv:/data", "sh", "-c",
		`echo $TOKEN $(ls /made-for-* | wc -l) $(df -m --output=size /dev/shm | tail -1) $(test -d /data && echo data); exit 3`)
	if strings.Contains(d.notes(), "hush") {
		t.Error("the value of a variable is in a note")
	}
	says := "the command that started it was killed before the job began; replicate attach " + id[:7] + " goes on, replicate stop " + id[:7] + " ends it"
	if o := d.try("ls"); !strings.Contains(o.stderr, id[:7]+": "+says) {
		t.Errorf("ls says %s", o.stderr)
	}
	if o := d.try("ps"); !strings.Contains(o.stderr, says) || !strings.Contains(o.stdout, "building") {
		t.Errorf("ps says %s%s", o.stdout, o.stderr)
	}
	if got := d.replicate("show", id); !strings.Contains(got, "building: "+says) {
		t.Errorf("show says %s", got)
	}
	if o := d.try("pull"); o.code != 0 || !strings.Contains(o.stderr, says) {
		t.Errorf("pull says %s", o.stderr)
	}
	if o := d.try("attach", id); o.code != 2 || !strings.Contains(o.stderr, "hint: TOKEN=… replicate attach "+id[:7]) {
		t.Errorf("without the variable: exit code %d\n%s", o.code, o.stderr)
	}
	d.setenv("TOKEN", "hush-hush-hush")
	if o := d.try("attach", id); o.code != 3 || o.stdout != "hush-hush-hush 1 64 data\n" || !strings.Contains(o.stderr, "Sent ") {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	if e := d.only(); e.ID != id || e.Status != "failed" || e.NumCommits != 1 {
		t.Errorf("ls says %+v", e)
	}
	if containers := d.containers(host); len(containers) != before+1 || containers[id] == "" || d.notes() != "" {
		t.Errorf("there are containers %v, and notes %s", containers, d.notes())
	}
	if o := d.try("attach", id); o.code != 3 || o.stdout != "hush-hush-hush 1 64 data\n" {
		t.Errorf("once more: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}

// TestAttachGoesOnWithTheSameCodeOnly changes the working directory between a start that is killed and attach.
func TestAttachGoesOnWithTheSameCodeOnly(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	d.write("train.py", "print('as it was')\n")
	id := d.killedBuild("unix://"+host.Socket(), "train.py")
	before := d.notes()
	d.write("train.py", "print('otherwise')\n")
	o := d.try("attach", id)
	if o.code != 125 || !strings.Contains(o.stderr, "not as it was when "+id[:7]+" was started: train.py changed") ||
		!strings.Contains(o.stderr, "replicate checkout "+id[:7]) {
		t.Errorf("exit code %d\n%s", o.code, o.stderr)
	}
	if e := d.only(); e.Status != "building" || d.notes() != before || d.containers(host)[id] != "" {
		t.Errorf("ls says %+v", e)
	}
	d.replicate("checkout", "-f", id)
	if o := d.try("attach", id); o.code != 0 || o.stdout != "as it was\n" {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}

// TestStopEndsAKilledStart kills a command after it has started the container of its run, and before that has its job.
func TestStopEndsAKilledStart(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	d.write("big.bin", strings.Repeat("x", 3<<20))
	a := newAssassin(t, host.Socket())
	id := ""
	for n := 1; id == ""; n++ {
		if !a.kills(n, d.command("run", "-H", "unix://"+a.socket, "echo", "hello")) {
			t.Fatal("no container was without a job")
		}
		for _, e := range d.list("--filter", "status = building") {
			if d.containers(host)[e.ID] != "" {
				id = e.ID
			}
		}
	}
	o := d.try("stop", id)
	if o.code != 0 || !strings.Contains(o.stderr, "had no job yet, and has ended") {
		t.Errorf("exit code %d\n%s", o.code, o.stderr)
	}
	for _, e := range d.list("--filter", "status = building") {
		d.replicate("stop", e.ID)
	}
	if list := d.list("--filter", "status = interrupted"); len(list) == 0 || list[len(list)-1].ID != id {
		t.Errorf("interrupted are %+v", list)
	}
	d.replicate("pull")
	d.nothingOf(host, id)
}

// TestKilledStartsAreEnded ends starts that were killed: one by time, one as its experiment was deleted.
func TestKilledStartsAreEnded(t *testing.T) {
	for name, tt := range map[string]struct {
		end  func(d *desk, id string)
		want string // its status
	}{
		"Late": {func(d *desk, id string) {
			path := filepath.Join(d.dir, ".replicate", "runs", id+".json")
			var note map[string]any
			d.must(json.Unmarshal([]byte(d.read(path)), &note))
			note["start"].(map[string]any)["since"] = time.Now().Add(-25 * time.Hour)
			text, err := json.Marshal(note)
			d.must(err)
			d.must(os.WriteFile(path, text, 0o600))
			if o := d.try("ls"); strings.Contains(o.stderr, "goes on") {
				d.t.Errorf("ls says %s", o.stderr)
			}
		}, "crashed"},
		"Deleted": {func(d *desk, id string) { d.replicate("rm", "-f", id) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDesk(t)
			host := d.lab.Hosts[0]
			id := d.killedBuild("unix://"+host.Socket(), "true")
			tt.end(d, id)
			d.replicate("ps")
			status := ""
			for _, e := range d.list() {
				status = e.Status
			}
			if status != tt.want {
				t.Errorf("it is %q", status)
			}
			d.nothingOf(host, id)
			if o := d.try("attach", id); o.code == 0 {
				t.Error("attach goes on")
			}
		})
	}
}

// TestSecretArgumentsAreNotKept kills the start of a job that has a secret among its arguments: nobody goes on with it.
func TestSecretArgumentsAreNotKept(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	d.write("replicate.yaml", "image: python:3.11-slim\ninstall:\n  - sleep 10 && echo "+rand.Text()+"\n")
	run := d.begin("run", "-H", "rh1", "sh", "-c", "exit 0", "--api-key=hush-hush-hush")
	run.says("Building Docker image...")
	d.within(time.Minute, "the experiment is recorded", func() bool { return len(d.list()) == 1 })
	run.kill()
	if strings.Contains(d.notes(), "hush") {
		t.Error("it is in a note")
	}
	id := d.only().ID
	if o := d.try("attach", id); o.code != 125 || !strings.Contains(o.stderr, "has crashed") {
		t.Errorf("exit code %d\n%s", o.code, o.stderr)
	}
	d.nothingOf(host, id)
}

// TestLostLineLeavesAStart cuts the line while an environment is built. The start goes on from there.
func TestLostLineLeavesAStart(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	link := host.Link(t, remotetest.Quality{})
	d.write("replicate.yaml", "image: python:3.11-slim\ninstall:\n  - sleep 10 && echo "+rand.Text()+"\n")
	run := d.begin("run", "-H", link.Name, "echo", "hello")
	run.says("Building Docker image...")
	d.within(time.Minute, "the start is noted", func() bool { return strings.Contains(d.notes(), "argv") })
	link.Cut()
	if code := run.wait(); code != 255 || !strings.Contains(run.err(), "hint: replicate attach ") {
		t.Errorf("exit code %d\n%s", code, run.err())
	}
	id := d.only().ID
	if o := d.try("attach", id); o.code != 0 || o.stdout != "hello\n" {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	if e := d.only(); e.Status != "finished" {
		t.Errorf("ls says %+v", e)
	}
}
