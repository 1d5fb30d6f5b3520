package docker_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
)

// program is one of the test's own, a shell script, so that it is delivered for the first time.
func program(t *testing.T, more string) docker.Program {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "replicate")
	script := "#!/bin/sh\ncat /.replicate/python/replicate/__init__.py\n# " + t.Name() + more + strings.Repeat("x", 1<<20) + "\n"
	must(t, os.WriteFile(binary, []byte(script), 0o755))
	p, err := docker.NewProgram(binary, fstest.MapFS{"replicate/__init__.py": {Data: []byte("import this\n")}})
	must(t, err)
	return p
}

// forget removes a program from an engine.
func forget(t *testing.T, e *docker.Engine, p docker.Program) {
	t.Helper()
	ctx := context.Background()
	must(t, e.Remove(ctx, p.Volume()))
	must(t, e.RemoveVolume(ctx, p.Volume()))
	must(t, e.RemoveImage(ctx, reference(p)))
}

// reference is that of the image which says that the program's volume is whole.
func reference(p docker.Program) string {
	return strings.Replace(p.Volume(), "replicate-bin-", "replicate-bin:", 1)
}

// works runs the program in a container.
func works(t *testing.T, e *docker.Engine, p docker.Program) {
	t.Helper()
	c := named(t, "")
	c.Name += "-works"
	c.Argv, c.Volumes, c.Usual = []string{docker.ProgramPath}, []docker.Mount{p.Mount()}, true
	_, err := e.Create(t.Context(), c)
	must(t, err)
	defer func() { must(t, e.Remove(context.Background(), c.Name)) }()
	start(t, e, c)
	code, err := e.Wait(t.Context(), c.Name)
	must(t, err)
	if tail, err := e.Tail(t.Context(), c.Name, 9); code != 0 || err != nil || tail != "import this\n" {
		t.Errorf("exit code %d, printed %q, %v", code, tail, err)
	}
}

func TestProgramsAreNamedByTheirContent(t *testing.T) {
	a, b, other := program(t, "a"), program(t, "a"), program(t, "b")
	if a.Volume() != b.Volume() || a.Volume() == other.Volume() || len(a.Volume()) != len("replicate-bin-")+12 {
		t.Errorf("%s, %s, %s", a.Volume(), b.Volume(), other.Volume())
	}
	_, err := docker.NewProgram(filepath.Join(t.TempDir(), "none"), fstest.MapFS{})
	wants(t, err, replicate.NotFound, "none")
}

func TestDeliverFillsTheVolumeOnce(t *testing.T) {
	e, p := engine(t), program(t, "")
	t.Cleanup(func() { forget(t, e, p) })
	must(t, e.Deliver(t.Context(), p))
	works(t, e, p)
	before, err := e.Volume(t.Context(), p.Volume())
	must(t, err)
	must(t, e.Deliver(t.Context(), p))
	after, err := e.Volume(t.Context(), p.Volume())
	must(t, err)
	if !before.Created.Equal(after.Created) || before.Labels[docker.LabelKind] != docker.KindBin {
		t.Errorf("before %+v, after %+v", before, after)
	}
	left, err := e.List(t.Context(), map[string]string{docker.LabelKind: docker.KindBin})
	if err != nil || len(left) > 0 {
		t.Errorf("containers are left: %+v, %v", left, err)
	}
}

func TestDeliverBySeveralAtTheSameTime(t *testing.T) {
	e, p := engine(t), program(t, "")
	t.Cleanup(func() { forget(t, e, p) })
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			if err := e.Deliver(t.Context(), p); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	works(t, e, p)
}

func TestDeliverMendsWhatDeadOnesLeft(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(*testing.T, *docker.Engine, docker.Program)
	}{
		{"the volume is half filled and not marked", func(t *testing.T, e *docker.Engine, p docker.Program) {
			must(t, e.CreateVolume(t.Context(), p.Volume(), nil))
			c := named(t, "mkdir /v/bin && echo half > /v/bin/replicate")
			c.Volumes, c.Usual = []docker.Mount{{Volume: p.Volume(), Target: "/v"}}, true
			_, err := e.Create(t.Context(), c)
			must(t, err)
			start(t, e, c)
			_, err = e.Wait(t.Context(), c.Name)
			must(t, err)
			must(t, e.Remove(t.Context(), c.Name))
		}},
		{"the volume was removed", func(t *testing.T, e *docker.Engine, p docker.Program) {
			must(t, e.Deliver(t.Context(), p))
			must(t, e.RemoveVolume(t.Context(), p.Volume()))
		}},
		{"the image was removed", func(t *testing.T, e *docker.Engine, p docker.Program) {
			must(t, e.Deliver(t.Context(), p))
			must(t, e.RemoveImage(t.Context(), reference(p)))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, p := engine(t), program(t, "")
			t.Cleanup(func() { forget(t, e, p) })
			tt.damage(t, e, p)
			must(t, e.Deliver(t.Context(), p))
			works(t, e, p)
		})
	}
}

func TestDeliverWhileAJobHasTheVolume(t *testing.T) {
	e, p := engine(t), program(t, "")
	c := named(t, "sleep 1000")
	c.Volumes, c.Usual = []docker.Mount{p.Mount()}, true
	t.Cleanup(func() {
		must(t, e.Remove(context.Background(), c.Name))
		forget(t, e, p)
	})
	must(t, e.Deliver(t.Context(), p))
	_, err := e.Create(t.Context(), c)
	must(t, err)
	start(t, e, c)
	must(t, e.RemoveImage(t.Context(), reference(p))) // as "docker image prune -a" does
	must(t, e.Deliver(t.Context(), p))
	works(t, e, p)

	c.Volumes[0].ReadOnly = false
	must(t, e.Remove(t.Context(), c.Name))
	_, err = e.Create(t.Context(), c)
	must(t, err)
	must(t, e.PutFiles(t.Context(), c.Name, docker.ProgramDir, docker.File{Name: "bin/replicate", Mode: 0o755, Data: []byte("half")}))
	must(t, e.RemoveImage(t.Context(), reference(p)))
	err = e.Deliver(t.Context(), p)
	wants(t, err, replicate.Corrupt, "its files are not the program's")
	must(t, e.Remove(t.Context(), c.Name))
	must(t, e.Deliver(t.Context(), p))
	works(t, e, p)
}

func TestUsageListsWhatIsOurs(t *testing.T) {
	h, e := host(t), engine(t)
	c := named(t, "head -c 100000 /dev/zero > /replicate/f; head -c 200000 /dev/zero > /g")
	c.Volumes, c.Usual = []docker.Mount{{Volume: c.Name, Target: docker.RunDir, Labels: c.Labels}}, true
	run(t, e, c)
	_, err := e.Wait(t.Context(), c.Name)
	must(t, err)
	reference := docker.EnvImage("used")
	must(t, e.Import(t.Context(), reference, archive(t, "hello", strings.Repeat("x", 3000)), map[string]string{docker.LabelKind: docker.KindEnv}))
	h.Docker(t, "volume", "create", "somebody-elses")
	t.Cleanup(func() {
		h.Docker(t, "volume", "rm", "somebody-elses")
		must(t, e.RemoveImage(context.Background(), reference))
	})
	usage, err := e.Usage(t.Context())
	must(t, err)
	if len(usage.Containers) != 1 || usage.Containers[0].Name != c.Name || usage.Containers[0].Size < 200000 ||
		usage.Containers[0].State.Phase != docker.Exited || usage.Containers[0].Kind != docker.KindRun {
		t.Errorf("containers: %+v", usage.Containers)
	}
	if len(usage.Images) != 1 || usage.Images[0].Name != reference || usage.Images[0].Size < 3000 || usage.Images[0].Users != 0 {
		t.Errorf("images: %+v", usage.Images)
	}
	if len(usage.Volumes) != 1 || usage.Volumes[0].Name != c.Name || usage.Volumes[0].Size < 100000 || usage.Volumes[0].Users != 1 {
		t.Errorf("volumes: %+v", usage.Volumes)
	}
}

func TestRedeliverFillsAnew(t *testing.T) {
	e, p := engine(t), program(t, "")
	t.Cleanup(func() { forget(t, e, p) })
	must(t, e.Deliver(t.Context(), p))
	c := named(t, "rm /v/bin/replicate")
	c.Volumes, c.Usual = []docker.Mount{{Volume: p.Volume(), Target: "/v"}}, true
	_, err := e.Create(t.Context(), c)
	must(t, err)
	start(t, e, c)
	_, err = e.Wait(t.Context(), c.Name)
	must(t, err)
	wants(t, e.Redeliver(t.Context(), p), replicate.Conflict)
	must(t, e.Remove(t.Context(), c.Name))
	must(t, e.Redeliver(t.Context(), p))
	works(t, e, p)
}
