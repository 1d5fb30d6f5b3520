package remote_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/python"
	"github.com/replicate/replicate/remote"
	"github.com/replicate/replicate/remote/remotetest"
)

// A warehouse is an engine with things of ours on it that are as old as the clock says.
type warehouse struct {
	t    *testing.T
	at   *remotetest.Host
	host *remote.Host
	made []string // containers of runs
}

func newWarehouse(t *testing.T) *warehouse {
	t.Helper()
	return newWarehouseAt(t, remotetest.Start(t, remotetest.Options{}).Hosts[1])
}

func newWarehouseAt(t *testing.T, host *remotetest.Host) *warehouse {
	t.Helper()
	w := &warehouse{t: t, at: host}
	client := &remote.Client{
		Binary: func(string) (string, error) { return binary, nil }, Python: python.Files(), Now: time.Now,
		Say: func(string, ...any) {}, Warn: func(err error) { t.Log(err) },
	}
	engine, err := client.Open(t.Context(), remote.Target{Local: true, Socket: w.at.Socket()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(engine.Close)
	w.host = engine
	t.Cleanup(func() {
		_ = exec.Command("docker", append([]string{"-H", "unix://" + w.at.Socket(), "rm", "-f"}, w.made...)...).Run() // the test may have removed it
		_ = exec.Command("docker", append([]string{"-H", "unix://" + w.at.Socket(), "volume", "rm", "-f"}, w.made...)...).Run()
	})
	return w
}

// run makes what is left of a run that has ended, with files in its volume.
func (w *warehouse) run(project string, files map[string]string) string {
	w.t.Helper()
	id := fmt.Sprintf("%07x%025x", 0xaaaa000+len(w.made), 0)
	name := "replicate-run-" + id
	w.made = append(w.made, name)
	args := []string{"create", "--name", name, "--label", "replicate.kind=run", "--label", "replicate.experiment=" + id, "--label", "replicate.project=" + project}
	if len(files) == 0 {
		w.at.Docker(w.t, append(args, remotetest.Image, "true")...)
		return id[:7]
	}
	w.at.Docker(w.t, append(args, "-v", name+":/replicate", remotetest.Image, "true")...)
	dir := w.t.TempDir()
	for file, content := range files {
		path := filepath.Join(dir, file)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o600)); err != nil {
			w.t.Fatal(err)
		}
	}
	w.at.Docker(w.t, "cp", dir+"/.", name+":/replicate")
	return id[:7]
}

// environment makes the image of an environment that was built some days ago.
func (w *warehouse) environment(name, project string, days int) {
	w.t.Helper()
	created := time.Now().AddDate(0, 0, -days).UTC().Format(time.RFC3339)
	w.at.Docker(w.t, "create", "--name", "make-"+name, remotetest.Image, "true")
	w.at.Docker(w.t, "commit", "--change", "LABEL replicate.kind=env replicate.project="+project+" replicate.created="+created, "make-"+name, "replicate-env:"+name)
	w.at.Docker(w.t, "rm", "make-"+name)
	w.t.Cleanup(func() { w.at.Docker(w.t, "rmi", "-f", "replicate-env:"+name) })
}

// prune prunes some days from now, and returns what was removed of the project, and what was kept though it is due.
func (w *warehouse) prune(days int, o remote.PruneOptions) (removed, kept []string) {
	w.t.Helper()
	o.Now = time.Now().AddDate(0, 0, days).Add(time.Hour)
	err := w.host.Prune(w.t.Context(), o, func(p remote.Pruned) {
		if p.Kept {
			kept = append(kept, p.Name)
		} else {
			removed = append(removed, p.Name)
		}
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return removed, kept
}

func TestPruneKeepsWhatIsYoungOrNowhereElse(t *testing.T) {
	w := newWarehouse(t)
	fetched := w.run("one", map[string]string{"fetched": "", "storage/replicate.json": "{}"})
	local := w.run("one", map[string]string{"storage/replicate.json": "{}"})
	sent := w.run("one", map[string]string{"spec.json": "{}", "status.json": `{"phase":"exited","status":"finished"}`})
	unsent := w.run("one", map[string]string{"spec.json": "{}", "status.json": `{"phase":"exited","status":"finished","unsent":{"records":1}}`})
	killed := w.run("one", map[string]string{"spec.json": "{}", "status.json": `{"phase":"running"}`})
	unbegun := w.run("one", nil)
	for _, tt := range []struct {
		name          string
		days          int
		options       remote.PruneOptions
		removed, kept []string
	}{
		{"AfterThirteenDays", 13, remote.PruneOptions{DryRun: true}, nil, nil},
		{"AfterFourteenDays", 14, remote.PruneOptions{DryRun: true}, []string{fetched, sent, unbegun}, []string{local, unsent, killed}},
		{"Deleted", 0, remote.PruneOptions{DryRun: true, Gone: func(id replicate.ID) bool { return id.Short() == local }}, []string{local}, nil},
		{"Force", 14, remote.PruneOptions{DryRun: true, Force: true}, []string{fetched, local, sent, unsent, killed, unbegun}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			removed, kept := w.prune(tt.days, tt.options)
			all := []string{fetched, local, sent, unsent, killed, unbegun}
			for _, run := range all {
				if got, want := slices.Contains(removed, run), slices.Contains(tt.removed, run); got != want {
					t.Errorf("run %d is removed: %t", slices.Index(all, run), got)
				}
				if got, want := slices.Contains(kept, run), slices.Contains(tt.kept, run); got != want {
					t.Errorf("run %d is kept though it is due: %t", slices.Index(all, run), got)
				}
			}
		})
	}
}

func TestPruneKeepsTwentyRunsOfAProject(t *testing.T) {
	w := newWarehouse(t)
	var runs []string
	for range 21 {
		runs = append(runs, w.run("many", nil))
	}
	runs = append(runs, w.run("many", map[string]string{"fetched": ""}))
	other := w.run("other", nil)
	removed, _ := w.prune(0, remote.PruneOptions{})
	left := 0
	for _, run := range runs {
		if !slices.Contains(removed, run) {
			left++
		}
	}
	if left != 20 || slices.Contains(removed, other) {
		t.Errorf("%d runs are left, and that of another project: %t", left, !slices.Contains(removed, other))
	}
	names := w.at.Docker(t, "ps", "-a", "--format", "{{.Names}}") + w.at.Docker(t, "volume", "ls", "-q")
	for _, run := range removed {
		if strings.Contains(names, run) {
			t.Errorf("%s is there", run)
		}
	}
}

func TestPruneOfBuildsAndEnvironments(t *testing.T) {
	w := newWarehouse(t)
	for _, name := range []string{"replicate-build-pruned", "replicate-pull-pruned"} {
		kind := strings.Split(name, "-")[1]
		w.at.Docker(t, "create", "--name", name, "--label", "replicate.kind="+kind, remotetest.Image, "true")
		t.Cleanup(func() { w.at.Docker(t, "rm", "-f", name) })
	}
	w.environment("oldest", "pruned", 20)
	w.environment("older", "pruned", 10)
	w.environment("newest", "pruned", 5)
	w.environment("used", "pruned", 21)
	w.at.Docker(t, "create", "--name", "user-of-pruned", "replicate-env:used", "true")
	t.Cleanup(func() { w.at.Docker(t, "rm", "-f", "user-of-pruned") })
	for _, tt := range []struct {
		days int
		want string
	}{
		{0, "replicate-pull-pruned"},
		{1, "replicate-build-pruned replicate-pull-pruned"},
		{10, "replicate-build-pruned replicate-env:oldest replicate-pull-pruned"},
		{300, "replicate-build-pruned replicate-env:older replicate-env:oldest replicate-pull-pruned"},
	} {
		t.Run(fmt.Sprintf("After%dDays", tt.days), func(t *testing.T) {
			removed, _ := w.prune(tt.days, remote.PruneOptions{DryRun: true})
			var ours []string
			for _, name := range removed {
				if strings.HasSuffix(name, "-pruned") || strings.HasPrefix(name, "replicate-env:o") || strings.HasPrefix(name, "replicate-env:n") || name == "replicate-env:used" {
					ours = append(ours, name)
				}
			}
			slices.Sort(ours)
			if got := strings.Join(ours, " "); got != tt.want {
				t.Errorf("removed: %s", got)
			}
		})
	}
}

// TestOldRunsGoAtTheEndOfARun fetches more runs of a project than are kept.
func TestOldRunsGoAtTheEndOfARun(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	d.replicate("run", "-H", "rh1", "true")
	first := d.only().ID
	project := strings.TrimSpace(host.Docker(t, "inspect", "-f", `{{index .Config.Labels "replicate.project"}}`, "replicate-run-"+first))
	w := newWarehouseAt(t, host)
	for range 20 {
		w.run(project, nil)
	}
	d.within(time.Minute, "the oldest run is gone", func() bool { // a moment may be too short on a busy machine
		d.replicate("run", "-H", "rh1", "true")
		_, there := d.containers(host)[first]
		return !there
	})
}
