package remote_test

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate/remote/remotetest"
)

// counting prints numbers until the file "enough" appears.
const counting = `import os, time
n = 0
while not os.path.exists("enough"):
    print(n, flush=True)
    n += 1
    time.sleep(0.005)
print("end", n)
`

// flooding waits for the file "go", prints 100 MB, and leaves the longest time that a write took in the file "stall".
const flooding = `import hashlib, os, sys, time
print("ready", flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
digest, longest = hashlib.sha256(b"ready\n"), 0
for n in range(1600):
    block = (b"%07d " % n) * 8192
    digest.update(block)
    before = time.monotonic()
    sys.stdout.buffer.write(block)
    sys.stdout.buffer.flush()
    longest = max(longest, time.monotonic() - before)
open("stall.new", "w").write("%f %s" % (longest, digest.hexdigest()))
os.rename("stall.new", "stall")
`

// counted fails the test unless a file has all numbers in order, and the end. It returns how many.
func (d *desk) counted(path string) int {
	d.t.Helper()
	f, err := os.Open(path)
	d.must(err)
	defer f.Close()
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); n++ {
		if lines.Text() == fmt.Sprintf("end %d", n) {
			return n
		}
		if lines.Text() != strconv.Itoa(n) {
			d.t.Fatalf("where %d should be stands %q", n, lines.Text())
		}
	}
	d.t.Fatalf("after %d lines it ends", n)
	return n
}

// TestFrozenLinkLosesNothing takes the line away from two runs, without telling anybody: one prints all the time, the other 100 MB meanwhile. Neither waits for
// the line, and when it is back everything is shown, once.
func TestFrozenLinkLosesNothing(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	link := host.Link(t, remotetest.Quality{})
	d.write("count.py", counting)
	d.write("flood.py", flooding)
	count := d.begin("run", "-H", link.Name, "count.py")
	counter := count.id()
	count.prints("\n20\n")
	flood := d.begin("run", "-H", link.Name, "flood.py")
	flooder := flood.id()
	flood.prints("ready")

	link.Freeze()
	d.inside(host, flooder, "touch", "go")
	var stall string
	d.within(time.Minute, "the job has printed", func() bool {
		stall = d.fetch(host, flooder, "stall")
		return stall != ""
	})
	var longest float64
	var digest string
	_, err := fmt.Sscan(stall, &longest, &digest)
	d.must(err)
	if longest > 5 { // a job that waits for the line waits as long as that is away
		t.Errorf("a write of the job took %.1f s", longest)
	}
	count.says("lost; the job goes on")
	flood.says("lost; the job goes on")
	link.Thaw()
	count.says("connected again")
	d.inside(host, counter, "touch", "enough")
	if code := count.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	d.counted(count.stdout)
	if code := flood.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := digestOf(t, flood.stdout); got != digest {
		t.Errorf("of 100 MB something else arrived: %d bytes", len(flood.out()))
	}
	for _, e := range d.list() {
		if e.Status != "finished" {
			t.Errorf("ls says %+v", e)
		}
	}
}

func digestOf(t *testing.T, path string) string {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, f); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(digest.Sum(nil))
}

// TestManyCutsLoseNothing resets the line again and again, and kills what serves it.
func TestManyCutsLoseNothing(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	link := host.Link(t, remotetest.Quality{Latency: time.Millisecond})
	d.write("count.py", counting)
	run := d.begin("run", "-H", link.Name, "count.py")
	id := run.id()
	for cut := range 5 {
		size := len(run.out())
		more := size + rand.IntN(3000)
		d.within(time.Minute, "it goes on", func() bool { return len(run.out()) > more })
		if cut%2 == 0 {
			link.Cut()
		} else {
			killSessions(t, host)
		}
		d.within(time.Minute, "it is told", func() bool { return strings.Count(run.err(), "lost; the job goes on") == cut+1 })
	}
	d.within(time.Minute, "it is connected", func() bool { return strings.Count(run.err(), "connected again") == 5 })
	d.inside(host, id, "touch", "enough")
	if code := run.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	d.counted(run.stdout)
	if e := d.only(); e.Status != "finished" {
		t.Errorf("ls says %+v", e)
	}
	if got := d.replicate("logs", id); got != run.out() {
		t.Errorf("the storage has %d bytes of output, %d were shown", len(got), len(run.out()))
	}
}

// TestFollowersLeaveWithTheirReaders kills commands that follow a job which prints nothing. Nobody is left in the container who waits for more.
func TestFollowersLeaveWithTheirReaders(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	run := d.begin("run", "-H", "rh1", "sh", "-c", "echo ready; exec sleep 600")
	id := run.id()
	run.prints("ready\n")
	followers := func() int {
		return strings.Count(host.Docker(t, "top", "replicate-run-"+id, "-eo", "pid,args"), "supervise logs")
	}
	d.within(time.Minute, "the run is followed", func() bool { return followers() == 1 })
	run.kill()
	d.within(time.Minute, "nobody follows", func() bool { return followers() == 0 })
	d.replicate("stop", id)
}
