package remote_test

import (
	"strings"
	"testing"

	"github.com/replicate/replicate/remote/remotetest"
)

// wordy waits for the file "go", prints and commits more than fits, and ends well.
const wordy = `import os, replicate, time
experiment = replicate.init()
print("ready", flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
for n in range(60):
    print(str(n) + "x" * 200000, flush=True)
try:
    open("weights.bin", "wb").write(os.urandom(1 << 20))
except OSError:
    pass
experiment.commit(step=1)
print("the end", flush=True)
`

// TestFullDiskIsSaid fills the disk of a host before code is sent to it, and while a job prints and commits. That is said, and the job comes to its end.
func TestFullDiskIsSaid(t *testing.T) {
	d := newDeskIn(t, remotetest.Options{Disk: 700 << 20})
	host := d.lab.Hosts[0]
	d.write("train.py", wordy)
	run := d.begin("run", "-H", "rh1", "train.py")
	id := run.id()
	run.prints("ready")
	empty := host.FillDisk(t, 2<<20)
	d.inside(host, id, "ls", "/") // the engine works
	touch := host.Command("touch", "/run/lab/data/volumes/replicate-run-"+id+"/_data/code/go")
	d.must(touch.Run())
	code := run.wait()
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(run.err(), "no space left") && !strings.Contains(run.err(), "disk is full") {
		t.Error("nothing says that the disk is full")
	}
	if e := d.only(); e.Status != "finished" {
		t.Errorf("ls says %+v", e)
	}

	d.write("data.bin", strings.Repeat("0123456789abcdef", 1<<19))
	before := len(d.containers(host))
	o := d.try("run", "-H", "rh1", "true")
	if o.code != 125 || !strings.Contains(o.stderr, "no space left") {
		t.Errorf("exit code %d", o.code)
	}
	empty()
	if after := len(d.containers(host)); after != before {
		t.Errorf("%d containers instead of %d", after, before)
	}
	d.replicate("pull")
	if o := d.try("pull"); !strings.Contains(o.stderr, "nothing to pull") {
		t.Error("something is left to pull")
	}
	if o := d.try("run", "-H", "rh1", "true"); o.code != 0 {
		t.Errorf("with room again: exit code %d", o.code)
	}
}
