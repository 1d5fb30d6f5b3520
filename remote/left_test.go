package remote_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest"
)

// TestKilledRunSendsWhatItLeft kills the supervisor of a run whose commits cannot be sent. They are sent as soon as somebody asks and the bucket can be reached.
func TestKilledRunSendsWhatItLeft(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	s := storagetest.StartVersity(t)
	d.expose(s)
	d.setenv("REPLICATE_EXIT_WAIT", "3")
	d.write("replicate.yaml", d.read(filepath.Join(d.dir, "replicate.yaml"))+"storage: "+storagetest.Prefix(s.URL)+"\n")
	d.write("train.py", slow)
	barrier := []string{"FORWARD", "-d", d.lab.Gateway, "-j", "REJECT"}
	host.Run(t, append([]string{"iptables", "-I"}, barrier...)...)
	open := func() { host.Run(t, append([]string{"iptables", "-D"}, barrier...)...) }
	closed := true
	t.Cleanup(func() {
		if closed {
			open()
		}
	})
	run := d.begin("run", "-H", "rh1", "train.py")
	id := run.id()
	run.prints("step 3\n")
	host.Run(t, "kill", "-9", strings.TrimSpace(host.Docker(t, "inspect", "-f", "{{.State.Pid}}", "replicate-run-"+id)))
	if code := run.wait(); code != 137 {
		t.Errorf("exit code %d", code)
	}
	if e := d.only(); e.Status != "crashed" || e.NumCommits != 0 {
		t.Errorf("ls says %+v", e)
	}
	if o := d.try("ls"); !strings.Contains(o.stderr, "1 run on rh1 may have commits that are not here: replicate pull") {
		t.Error("ls says nothing of what is left")
	}
	open()
	closed = false
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := exec.Command("docker", "-H", "unix://"+host.Socket(), "exec", "replicate-run-"+id, "sh", "-c", "/.replicate/bin/replicate supervise ctl status; cat /replicate/uploader.log; ls -lR /replicate/code/.replicate | head -60; cat /replicate/code/.replicate/spool/*/status").CombinedOutput()
			t.Logf("%s", out)
		}
	})
	d.within(time.Minute, "everything is sent", func() bool { return strings.Contains(d.try("pull").stderr, "nothing to pull") })
	if n := d.commits(id); n < 3 {
		t.Errorf("%d commits are in the bucket", n)
	}
	if e := d.only(); e.Status != "crashed" {
		t.Errorf("ls says %+v", e)
	}
	if got := d.replicate("logs", id); !strings.Contains(got, "step 3\n") {
		t.Errorf("the output is %q", got)
	}
}

// TestNameThatLeadsToAnotherMachine asks a machine for a run of another one that had its name. Nothing is concluded from its not being there.
func TestNameThatLeadsToAnotherMachine(t *testing.T) {
	d := newDesk(t)
	d.write("replicate.yaml", d.read(filepath.Join(d.dir, "replicate.yaml"))+"hosts:\n  gpu: {address: rh1}\n")
	d.write("train.py", slow)
	id := strings.TrimSpace(d.replicate("run", "-d", "-H", "gpu", "train.py"))
	yaml := d.read(filepath.Join(d.dir, "replicate.yaml"))
	d.write("replicate.yaml", strings.Replace(yaml, "rh1", "rh2", 1))
	o := d.try("ps")
	if !strings.Contains(o.stderr, "leads to another machine") || !strings.Contains(o.stdout, "unreachable") {
		t.Errorf("ps says %s%s", o.stdout, o.stderr)
	}
	if o := d.try("attach", id); o.code == 0 || !strings.Contains(o.stderr, "leads to another machine") {
		t.Errorf("attach ends with %d: %s", o.code, o.stderr)
	}
	if e := d.only(); e.Status != "detached" {
		t.Errorf("ls says %+v", e)
	}
	d.write("replicate.yaml", yaml)
	d.replicate("stop", id)
	d.within(time.Minute, "the job ends", func() bool { d.replicate("pull"); return d.only().Status == "terminated" })
	if _, err := os.Stat(filepath.Join(d.dir, ".replicate", "runs", id+".json")); err == nil {
		t.Error("a run that has ended is remembered")
	}
}
