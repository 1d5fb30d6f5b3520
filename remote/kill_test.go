package remote_test

import (
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKilledStartsLeaveNothingBehind kills commands that start runs at moments of all kinds. What the next command finds of them has come to an end, or goes on when it is
// attached to.
func TestKilledStartsLeaveNothingBehind(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	d.write("big.bin", strings.Repeat("x", 3<<20)) // so that the container is started before the code is there
	d.replicate("run", "-H", "rh1", "echo", "hello")
	begin := time.Now()
	d.replicate("run", "-d", "-H", "rh1", "echo", "hello")
	whole := time.Since(begin)
	waves := 3
	if os.Getenv("REPLICATE_TORTURE") != "" {
		waves = 40
	}
	for wave := range waves {
		var all sync.WaitGroup
		for range 5 {
			run := d.begin("run", "-H", "rh1", "echo", "hello")
			all.Go(func() {
				select {
				case <-run.ended:
				case <-time.After(rand.N(2 * whole)): // five at once take longer than one
					run.kill()
				}
			})
		}
		all.Wait()
		if wave%2 == 0 {
			d.ps()
		} else {
			d.replicate("pull")
		}
		for _, e := range d.list("--filter", "status in (building, waiting, running, detached, lost)") {
			if o := d.try("attach", e.ID); o.code != 0 || o.stdout != "hello\n" {
				t.Errorf("attach of %s, which was %s: exit code %d, %q", e.ID, e.Status, o.code, o.stdout)
			}
		}
	}
	d.replicate("pull")
	containers, ended := d.containers(host), map[string]bool{}
	for _, e := range d.list() {
		_, there := containers[e.ID]
		switch ended[e.ID] = true; e.Status {
		case "finished":
			if got := d.replicate("logs", e.ID); !there || got != "hello\n" {
				t.Errorf("%s finished; container: %t, output: %q", e.ID, there, got)
			}
		case "crashed":
			if there {
				t.Errorf("%s crashed, and its container is there", e.ID)
			}
		default:
			t.Errorf("%s is %s", e.ID, e.Status)
		}
	}
	for line := range strings.Lines(host.Docker(t, "volume", "ls", "-q", "--filter", "label=replicate.kind=run")) {
		id := strings.TrimPrefix(strings.TrimSpace(line), "replicate-run-")
		if _, there := containers[id]; !there {
			t.Errorf("volume of %s is left", id)
		}
	}
	if o := d.try("pull"); !strings.Contains(o.stderr, "nothing to pull") {
		t.Errorf("pull says %s", o.stderr)
	}
}
