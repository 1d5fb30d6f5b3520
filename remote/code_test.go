package remote_test

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// odd makes files of all sorts in the project.
func (d *desk) odd() {
	d.t.Helper()
	d.write("run.sh", "#!/bin/sh\necho hello\n")
	d.must(os.Chmod(filepath.Join(d.dir, "run.sh"), 0o755))
	d.write("a b/new\nline 'quoted'", "x")
	d.write("latin-\xe9", "y")
	d.must(os.MkdirAll(filepath.Join(d.dir, "empty/dir"), 0o750))
	d.must(os.Symlink("run.sh", filepath.Join(d.dir, "link")))
	d.must(os.Symlink("nowhere", filepath.Join(d.dir, "dangling")))
	d.must(os.Chtimes(filepath.Join(d.dir, "run.sh"), time.Time{}, time.Unix(1e9, 123456789)))
}

// arrived copies the working directory of the newest run out of a stopped container.
func (d *desk) arrived(host int, id string) string {
	d.t.Helper()
	out := d.t.TempDir()
	d.lab.Hosts[host].Docker(d.t, "cp", "-a", "replicate-run-"+id+":/replicate/code", filepath.Join(out, "code"))
	return filepath.Join(out, "code")
}

func (d *desk) sameAs(there string) {
	d.t.Helper()
	out, err := exec.Command("rsync", "-nrlptci", "--delete", "--exclude=/.replicate", d.dir+"/", there+"/").CombinedOutput()
	if err != nil || strings.TrimSpace(strings.ReplaceAll(string(out), ".d..t...... ./\n", "")) != "" {
		d.t.Errorf("what arrived differs: %v\n%s", err, out)
	}
}

func TestCodeArrivesAsItIs(t *testing.T) {
	d := newDesk(t)
	d.odd()
	if o := d.try("run", "-H", "rh1", "./run.sh"); o.code != 0 || o.stdout != "hello\n" {
		t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	d.sameAs(d.arrived(0, d.only().ID))
}

// TestOnlyWhatIsMissingTravels sends 60 MB, then again with one percent of it changed.
func TestOnlyWhatIsMissingTravels(t *testing.T) {
	d := newDesk(t)
	d.odd()
	random := rand.NewChaCha8([32]byte{7})
	data := make([]byte, 60<<20)
	random.Read(data)
	d.write("data.bin", string(data))
	if o := d.try("run", "-H", "rh1", "./run.sh"); o.code != 0 || o.stdout != "hello\n" || !strings.Contains(o.stderr, "(63 MB)") {
		t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	d.sameAs(d.arrived(0, d.only().ID))
	copy(data[30<<20:], make([]byte, 600<<10))
	d.write("data.bin", string(data))
	o := d.try("run", "-H", "rh1", "./run.sh")
	if o.code != 0 || !strings.Contains(o.stderr, "were not there yet") {
		t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	for _, e := range d.list() {
		if e.Status != "finished" {
			t.Errorf("ls says %+v", e)
		}
	}
	d.sameAs(d.arrived(0, d.list()[1].ID))
}
