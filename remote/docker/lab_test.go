package docker_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/remotetest"
)

// host is the host whose engine the tests use.
func host(t *testing.T) *remotetest.Host {
	t.Helper()
	return remotetest.Start(t, remotetest.Options{}).Hosts[0]
}

// engine is a real engine.
func engine(t *testing.T) *docker.Engine {
	t.Helper()
	return open(t, host(t).Dial)
}

func open(t *testing.T, dial docker.Dialer) *docker.Engine {
	t.Helper()
	e, err := docker.Open(t.Context(), dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

// named is a container of the test's own that runs a shell script, to be created.
func named(t *testing.T, script string) docker.Container {
	t.Helper()
	name := "test-" + strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name()))
	return docker.Container{Name: name, Image: remotetest.Image, Argv: []string{"/bin/sh", "-c", script}, Network: "none",
		Labels: map[string]string{docker.LabelKind: docker.KindRun, docker.LabelProject: name}}
}

// create creates a container for the length of the test.
func create(t *testing.T, e *docker.Engine, c docker.Container) {
	t.Helper()
	t.Cleanup(func() {
		must(t, e.Remove(context.Background(), c.Name))
		for _, v := range c.Volumes {
			must(t, e.RemoveVolume(context.Background(), v.Volume))
		}
	})
	created, err := e.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if !created {
		t.Fatalf("%s was there before", c.Name)
	}
}

func run(t *testing.T, e *docker.Engine, c docker.Container) {
	t.Helper()
	create(t, e, c)
	start(t, e, c)
}

func start(t *testing.T, e *docker.Engine, c docker.Container) {
	t.Helper()
	for again := true; again; {
		var err error
		again, err = e.Start(t.Context(), c)
		must(t, err)
	}
}

// attachAndStart is how to miss nothing that a container prints, also on a host that refuses its limits.
func attachAndStart(t *testing.T, e *docker.Engine, c docker.Container) *docker.Stream {
	t.Helper()
	for {
		stream, err := e.Attach(t.Context(), c.Name)
		must(t, err)
		t.Cleanup(func() { stream.Close() })
		again, err := e.Start(t.Context(), c)
		must(t, err)
		if !again {
			return stream
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wants fails unless an error has this kind, and says all of these words.
func wants(t *testing.T, err error, kind replicate.Kind, words ...string) {
	t.Helper()
	if replicate.KindOf(err) != kind {
		t.Errorf("the kind of %v is %q, want %q", err, replicate.KindOf(err), kind)
		return
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%q does not say %q", err, word)
		}
	}
}

func TestEngineSaysWhatItIs(t *testing.T) {
	e := engine(t)
	info, err := e.Info(t.Context())
	must(t, err)
	if info.OS != "linux" || info.CPUs < 1 || info.Memory < 1<<20 || info.Name != "rh1" || info.Rootless || info.Arch == "x86_64" || !info.HasRuntime("runc") {
		t.Errorf("%+v", info)
	}
	if e.API() != "1.41" {
		t.Errorf("API %s", e.API())
	}
	for _, now := range []time.Time{e.Now(), info.Time} {
		if off := time.Since(now).Abs(); off > time.Minute {
			t.Errorf("the engine on this machine is %v off", off)
		}
	}
}

func TestStartWithoutTheProgramSaysSo(t *testing.T) {
	e := engine(t)
	c := named(t, "")
	c.Argv, c.Usual = []string{docker.ProgramPath, "supervise"}, true
	create(t, e, c)
	_, err := e.Start(t.Context(), c)
	if !errors.Is(err, docker.ErrNoProgram) {
		t.Errorf("%v", err)
	}
}

func TestUnreachableEngine(t *testing.T) {
	_, err := docker.Open(t.Context(), func(context.Context) (net.Conn, error) {
		return nil, replicate.Errorf(replicate.Permission, "no way in").WithHint("knock")
	})
	wants(t, err, replicate.Permission, "no way in")
	if replicate.HintOf(err) != "knock" {
		t.Errorf("hint: %q", replicate.HintOf(err))
	}
	_, err = docker.Open(t.Context(), func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", t.TempDir()+"/none")
	})
	wants(t, err, replicate.NotFound, "no such file")
}
