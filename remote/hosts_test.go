package remote_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// clone is another checkout of the project on the same machine, with a replicate.yaml of its own. Its storage is that of d.
func (d *desk) clone(hosts string) *desk {
	d.t.Helper()
	other := *d
	other.dir = filepath.Join(d.t.TempDir(), "clone")
	d.must(os.MkdirAll(other.dir, 0o755))
	other.write("replicate.yaml", d.read(filepath.Join(d.dir, "replicate.yaml"))+"storage: "+filepath.Join(d.dir, ".replicate/storage")+"\n"+hosts)
	return &other
}

// row is the line of ps about something, without blanks that only fill it.
func (d *desk) row(text string) string {
	d.t.Helper()
	for line := range strings.Lines(d.replicate("ps")) {
		if strings.Contains(line, text) {
			return strings.Join(strings.Fields(line), " ")
		}
	}
	return ""
}

// TestPsAsksHostsOfReplicateYAML has a clone start a job under a name that only the clone has for its machine. It is found on the machine, by a clone that has another name for
// that, as long as the storage knows of it and afterwards.
func TestPsAsksHostsOfReplicateYAML(t *testing.T) {
	d := newDesk(t)
	other := d.clone("hosts: {theirs: rh1}\n")
	d.write("replicate.yaml", d.read(filepath.Join(d.dir, "replicate.yaml"))+"hosts: {ours: rh1}\n")
	id := strings.TrimSpace(other.replicate("run", "-d", "-H", "theirs", "--gpus", "none", "sleep", "600"))
	t.Cleanup(func() { d.forget(d.lab.Hosts[0], id) })
	if o := d.try("ps"); !strings.Contains(o.stdout, "running") || o.stderr != "" {
		t.Errorf("ps says of a job that another clone has started:\n%s%s", o.stdout, o.stderr)
	}
	d.must(os.RemoveAll(filepath.Join(d.dir, ".replicate/storage")))
	var list []listed
	d.must(json.Unmarshal([]byte(d.replicate("ps", "--json")), &list))
	if len(list) != 1 || list[0].ID != id || list[0].Status != "running" || list[0].Host != "rh1" || list[0].User != "ann" {
		t.Errorf("ps says %+v of a job that the storage knows nothing of", list)
	}
	if got := d.replicate("ps", "-f", "user = ann", "-q"); got != "" {
		t.Errorf("a filter over what the storage knows finds %q", got)
	}
	stranger := newDesk(t)
	stranger.write("replicate.yaml", "image: none\nhosts: {ours: rh1}\n")
	if got := stranger.replicate("ps", "-q"); got != "" {
		t.Errorf("ps of another storage lists %q", got)
	}
}

// TestPsHasALineForAHostThatDoesNotAnswer asks a machine that is not there, which is no failure.
func TestPsHasALineForAHostThatDoesNotAnswer(t *testing.T) {
	d := newDesk(t)
	d.write("replicate.yaml", "hosts: {gpu1: rh1, gone: \"rh1:1\"}\n")
	if row := d.row("gone"); row != "unreachable gone" {
		t.Errorf("its line is %q", row)
	}
	for _, flag := range []string{"-q", "--json"} {
		if got := strings.TrimSpace(d.replicate("ps", flag)); strings.Trim(got, "[]\n") != "" {
			t.Errorf("ps %s lists what is no experiment: %s", flag, got)
		}
	}
}

// TestPsDialsAMachineOnce calls one machine by several names.
func TestPsDialsAMachineOnce(t *testing.T) {
	d := newDesk(t)
	d.write("replicate.yaml", d.read(filepath.Join(d.dir, "replicate.yaml"))+"hosts: {gpu1: rh1, gpu2: {address: rh1}}\n")
	host := d.lab.Hosts[0]
	id := strings.TrimSpace(d.replicate("run", "-d", "-H", "rh1", "--gpus", "none", "sleep", "600"))
	t.Cleanup(func() { d.forget(host, id) })
	before := host.Connections(t)
	if row := d.row(id[:7]); !strings.Contains(row, "running") {
		t.Errorf("ps says %q", row)
	}
	if n := host.Connections(t) - before; n != 1 {
		t.Errorf("it makes %d connections", n)
	}
}
