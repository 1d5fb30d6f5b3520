package remote_test

import (
	"archive/zip"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// wheel makes a wheel of one module in the project.
func (d *desk) wheel(name, source string) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name+"-1.0-py3-none-any.whl")
	f, err := os.Create(path)
	d.must(err)
	z := zip.NewWriter(f)
	for member, content := range map[string]string{
		name + ".py":                     source,
		name + "-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n",
		name + "-1.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		name + "-1.0.dist-info/RECORD":   "",
	} {
		w, err := z.Create(member)
		d.must(err)
		_, err = w.Write([]byte(content))
		d.must(err)
	}
	d.must(z.Close())
	d.must(f.Close())
	return filepath.Base(path)
}

// TestEnvironmentIsBuiltOnce installs with a command and from requirements, and finds everything there the next time.
func TestEnvironmentIsBuiltOnce(t *testing.T) {
	d := newDesk(t)
	d.write("replicate.yaml", "image: python:3.11-slim\ninstall:\n  - echo made >/made-for-"+filepath.Base(d.home)+"\npython_requirements: requirements.txt\n")
	d.write("requirements.txt", "./"+d.wheel("petals", "def count(): return 5\n")+"\n")
	d.write("main.py", "import petals, glob\nprint(petals.count(), len(glob.glob('/made-for-*')))\n")
	o := d.try("run", "-H", "rh1", "main.py")
	if o.code != 0 || o.stdout != "5 1\n" || !strings.Contains(o.stderr, "Building Docker image...") {
		t.Fatalf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	o = d.try("run", "-H", "rh1", "main.py")
	if o.code != 0 || o.stdout != "5 1\n" || !strings.Contains(o.stderr, "Using Docker image replicate-env:") || strings.Contains(o.stderr, "Building") {
		t.Fatalf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	id := d.list()[1].ID
	if got := d.replicate("show", id[:7]); !strings.Contains(got, "replicate-env:") || !strings.Contains(got, "python:3.11-slim, install: echo made") {
		t.Errorf("show says\n%s", got)
	}
	var shown struct{ Run replicate.Run }
	d.must(json.Unmarshal([]byte(d.replicate("show", "--json", id)), &shown))
	if i := shown.Run.Installed; i == nil || !strings.HasPrefix(i.Base, "sha256:") || len(i.Chain) != 2 ||
		!slices.ContainsFunc(i.Pip, func(p string) bool { return strings.HasPrefix(p, "petals") }) ||
		!slices.ContainsFunc(i.Apt, func(p string) bool { return strings.HasPrefix(p, "python3=3.11") }) {
		t.Errorf("of the environment it is known: %+v", i)
	}
}

// TestBuildIsStopped ends a run whose environment is being built.
func TestBuildIsStopped(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	d.write("replicate.yaml", "image: python:3.11-slim\ninstall:\n  - sleep 1000 && echo "+filepath.Base(d.home)+"\n")
	run := d.begin("run", "-H", "rh1", "true")
	build := ""
	d.within(time.Minute, "a step runs", func() bool {
		build = strings.TrimSpace(host.Docker(t, "ps", "-q", "--filter", "label=replicate.kind=build"))
		return build != ""
	})
	t.Cleanup(func() { host.Docker(t, "rm", "-f", "-v", build) })
	if e := d.only(); e.Status != "building" {
		t.Errorf("ls says %+v", e)
	}
	d.replicate("stop", d.only().ID)
	if code := run.wait(); code != 130 {
		t.Errorf("exit code %d", code)
	}
	if e := d.only(); e.Status != "interrupted" {
		t.Errorf("ls says %+v", e)
	}
}

func TestFailedStepIsSaid(t *testing.T) {
	d := newDesk(t)
	d.write("replicate.yaml", "image: python:3.11-slim\ninstall:\n  - echo looking around; false\n")
	o := d.try("run", "-H", "rh1", "true")
	if o.code != 125 || !strings.Contains(o.stderr, "looking around") || !strings.Contains(o.stderr, "exit code 1") {
		t.Errorf("exit code %d\n%s", o.code, o.stderr)
	}
	if e := d.only(); e.Status != "failed" {
		t.Errorf("ls says %+v", e)
	}
}

// TestPackageOfTheProject installs a package of the working directory where the job runs.
func TestPackageOfTheProject(t *testing.T) {
	d := newDesk(t)
	d.write("replicate.yaml", "image: python:3.11-slim\npython_requirements: requirements.txt\n")
	d.write("requirements.txt", "-e ./lib\n")
	d.write("lib/setup.py", "from setuptools import setup\nsetup(name='stems', version='1', py_modules=['stems'])\n")
	d.write("lib/stems.py", "LENGTH = 7\n")
	d.write("main.py", "import stems\nprint(stems.LENGTH)\n")
	if o := d.try("run", "-H", "rh1", "main.py"); o.code != 0 || !strings.HasSuffix(o.stdout, "7\n") {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}

func TestDryRunCreatesNothing(t *testing.T) {
	d := newDesk(t)
	d.write("replicate.yaml", "image: python:3.11-slim\ninstall:\n  - echo nothing of this is there\n")
	d.write(".env", "SECRET=1\n")
	before := d.lab.Hosts[0].Docker(t, "ps", "-aq") + d.lab.Hosts[0].Docker(t, "volume", "ls", "-q") + d.lab.Hosts[0].Docker(t, "images", "-aq")
	o := d.try("run", "-H", "rh1", "--dry-run", "--env", "HOME", "-m", "/srv:/data", "train.py")
	for _, want := range []string{"rh1, linux/", "python:3.11-slim\n", "to be built", ".env (secret", "/srv at /data, read-only", "variables: HOME", "python -u train.py"} {
		if !strings.Contains(o.stderr, want) {
			t.Errorf("it does not say %q:\n%s", want, o.stderr)
		}
	}
	after := d.lab.Hosts[0].Docker(t, "ps", "-aq") + d.lab.Hosts[0].Docker(t, "volume", "ls", "-q") + d.lab.Hosts[0].Docker(t, "images", "-aq")
	if before != after || len(d.list()) != 0 {
		t.Errorf("something was created: %s became %s", before, after)
	}
}
