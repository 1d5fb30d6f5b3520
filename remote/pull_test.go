package remote_test

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// heavy commits files that nothing compresses.
const heavy = `import os, replicate
experiment = replicate.init()
for step in range(6):
    open("weights.bin", "wb").write(os.urandom(2 << 20))
    experiment.commit(step=step)
print("done", flush=True)
`

// left starts a run, leaves it, and waits for its end. It returns the experiment.
func (d *desk) left(script string) string {
	d.t.Helper()
	id := strings.TrimSpace(d.replicate("run", "-d", "-H", "rh1", script))
	d.within(time.Minute, "the job ends", func() bool { return strings.HasPrefix(d.containers(d.lab.Hosts[0])[id], "Exited") })
	return id
}

func (d *desk) commits(id string) int {
	d.t.Helper()
	for _, e := range d.list() {
		if e.ID == id {
			return e.NumCommits
		}
	}
	d.t.Fatalf("ls has no %s", id)
	return 0
}

// TestPullIsKilledAndRepeated fetches what a run left, by commands that are killed at moments of all kinds, and by two at once.
func TestPullIsKilledAndRepeated(t *testing.T) {
	d := newDesk(t)
	d.write("train.py", heavy)
	id := d.left("train.py")
	for range 8 {
		pull := d.begin("pull", id)
		select {
		case <-pull.ended:
		case <-time.After(rand.N(1500 * time.Millisecond)):
			pull.kill()
		}
		d.replicate("check")
	}
	one, two := d.begin("pull", id), d.begin("pull", id)
	if a, b := one.wait(), two.wait(); a != 0 || b != 0 {
		t.Errorf("exit codes %d and %d", a, b)
	}
	if n := d.commits(id); n != 6 {
		t.Errorf("%d commits are here", n)
	}
	d.replicate("check")
	if got := d.replicate("logs", id); strings.Count(got, "done\n") != 1 {
		t.Errorf("the output is %q", got)
	}
	if e := d.only(); e.Status != "finished" {
		t.Errorf("ls says %+v", e)
	}
}

// TestContainerThatSomebodyRemoved ends the experiment, and leaves what there may still be of its commits alone.
func TestContainerThatSomebodyRemoved(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	d.write("train.py", heavy)
	id := d.left("train.py")
	host.Docker(t, "rm", "replicate-run-"+id)
	if o := d.ps(); !strings.Contains(o.stderr, "may be in the volume replicate-run-"+id) {
		t.Error("nothing tells where the commits may be")
	}
	if e := d.only(); e.Status != "crashed" {
		t.Errorf("ls says %+v", e)
	}
	if got := host.Docker(t, "volume", "ls", "-q", "--filter", "name=replicate-run-"+id); got == "" {
		t.Error("its volume was removed")
	}
}

// TestTamperedRunsAreRefused changes what a run left, as its job could have done. What is not right does not get into the storage of the project.
func TestTamperedRunsAreRefused(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	d.write("train.py", heavy)
	id, other := d.left("train.py"), d.left("train.py")
	storage := func(id string) string { return "/run/lab/data/volumes/replicate-run-" + id + "/_data/storage" }
	host.Run(t, "sh", "-c", `cp -a $1/pack /run/lab/kept && for pack in $(find $1/pack -type f -size +1M | head -3); do head -c 3000000 /dev/urandom >$pack; done
		cp -a $2/log/. $1/log/ && cp -a $2/pack/. $1/pack/ && if [ -d $2/index ]; then cp -a $2/index/. $1/index/; fi`, "sh", storage(id), storage(other))
	t.Cleanup(func() { host.Run(t, "rm", "-rf", "/run/lab/kept") })
	o := d.try("pull", id)
	if o.code != 1 || !strings.Contains(o.stderr, "warning") {
		t.Errorf("exit code %d", o.code)
	}
	if o := d.try("check"); o.code != 0 {
		t.Errorf("check says %s%s", o.stdout, o.stderr)
	}
	if n := d.commits(other); n != 0 {
		t.Errorf("%d commits came with another run", n)
	}
	host.Run(t, "sh", "-c", "cp -a /run/lab/kept/. $1/pack/", "sh", storage(id))
	d.replicate("pull")
	if a, b := d.commits(id), d.commits(other); a != 6 || b != 6 {
		t.Errorf("in the end there are %d and %d commits", a, b)
	}
	d.replicate("check")
}

// TestOneConnectionPerCommand counts in the log of sshd.
func TestOneConnectionPerCommand(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	d.write("tick.py", ticking)
	before := host.Connections(t)
	count := func(what string) {
		t.Helper()
		if now := host.Connections(t); now != before+1 {
			t.Errorf("%s made %d connections", what, now-before)
		}
		before = host.Connections(t)
	}
	id := strings.TrimSpace(d.replicate("run", "-d", "-H", "rh1", "tick.py"))
	count("run -d")
	d.replicate("ps")
	count("ps")
	d.replicate("logs", id)
	count("logs")
	attached := d.begin("attach", id)
	attached.prints("tick 3\n")
	count("attach")
	d.replicate("stop", id)
	count("stop")
	attached.wait()
	d.replicate("run", "-H", "rh1", "true")
	count("run")
	d.left("true")
	count("run -d")
	d.replicate("pull")
	count("pull")
}
