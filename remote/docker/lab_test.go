package docker_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
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

func TestImagesAreFoundByNameAndLabel(t *testing.T) {
	e := engine(t)
	base, err := e.Image(t.Context(), remotetest.Image)
	must(t, err)
	if !strings.HasPrefix(base.Platform, "linux/") || len(base.Env) == 0 || base.Size < 100<<20 || base.Created.IsZero() {
		t.Errorf("%+v", base)
	}
	_, err = e.Image(t.Context(), "nowhere:1")
	wants(t, err, replicate.NotFound, "no such image on the host")

	labels := map[string]string{docker.LabelKind: docker.KindEnv, docker.LabelEnv: `quo"ted $HOME \ value`}
	reference := docker.EnvImage("imported")
	must(t, e.Import(t.Context(), reference, archive(t, "hello", "world"), labels))
	t.Cleanup(func() { must(t, e.RemoveImage(context.Background(), reference)) })
	found, err := e.Images(t.Context(), map[string]string{docker.LabelKind: docker.KindEnv, docker.LabelEnv: ""})
	must(t, err)
	if len(found) != 1 || found[0].Tags[0] != reference || found[0].Labels[docker.LabelEnv] != labels[docker.LabelEnv] {
		t.Errorf("%+v", found)
	}
	named, err := e.ImagesNamed(t.Context(), "python:*")
	must(t, err)
	if len(named) != 1 || named[0].ID != base.ID {
		t.Errorf("%+v", named)
	}

	must(t, e.Tag(t.Context(), reference, "replicate-test:other"))
	must(t, e.RemoveImage(t.Context(), "replicate-test:other"))
	must(t, e.RemoveImage(t.Context(), "replicate-test:other")) // again: it is gone
	if _, err := e.Image(t.Context(), reference); err != nil {
		t.Errorf("removing one name removed the other: %v", err)
	}
}

func TestPullFromNowhere(t *testing.T) {
	err := engine(t).Pull(t.Context(), "registry.invalid/image:1", nil)
	wants(t, err, replicate.Unavailable, "pull registry.invalid/image:1: the host cannot reach the registry")
}

func TestImageTravelsBetweenEngines(t *testing.T) {
	l := remotetest.Start(t, remotetest.Options{})
	from, to := open(t, l.Hosts[0].Dial), open(t, l.Hosts[1].Dial)
	const reference = "replicate-test:travels"
	must(t, from.Import(t.Context(), reference, archive(t, "hello", "world"), nil))
	t.Cleanup(func() {
		must(t, from.RemoveImage(context.Background(), reference))
		must(t, to.RemoveImage(context.Background(), reference))
	})
	saved, err := from.Save(t.Context(), reference)
	must(t, err)
	defer saved.Close()
	must(t, to.Load(t.Context(), saved))
	sent, err := from.Image(t.Context(), reference)
	must(t, err)
	arrived, err := to.Image(t.Context(), reference)
	must(t, err)
	if sent.ID != arrived.ID {
		t.Errorf("sent %s, arrived %s", sent.ID, arrived.ID)
	}
	wants(t, to.Load(t.Context(), io.MultiReader(strings.NewReader("x"), failing{})), replicate.Internal, "the reader failed")
}

// failing is a reader that fails.
type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the reader failed") }

func TestCreateAdoptsWhatIsThere(t *testing.T) {
	e := engine(t)
	c := named(t, "exit 3")
	create(t, e, c)
	created, err := e.Create(t.Context(), c)
	if created || err != nil {
		t.Errorf("created again: %v, %v", created, err)
	}
	start(t, e, c)
	start(t, e, c) // again: it runs, or runs once more
	code, err := e.Wait(t.Context(), c.Name)
	if code != 3 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
}

func TestCreateAtTheSameTimeMakesOne(t *testing.T) {
	e := engine(t)
	c := named(t, "sleep 1000")
	t.Cleanup(func() { must(t, e.Remove(context.Background(), c.Name)) })
	var wait sync.WaitGroup
	made := make(chan bool, 8)
	for range cap(made) {
		wait.Go(func() {
			created, err := e.Create(t.Context(), c)
			if err != nil {
				t.Error(err)
			}
			made <- created
		})
	}
	wait.Wait()
	close(made)
	count := 0
	for created := range made {
		if created {
			count++
		}
	}
	if count != 1 {
		t.Errorf("%d say that they created it", count)
	}
}

func TestCreateAndRemoveAtTheSameTimeEnd(t *testing.T) {
	e := engine(t)
	c := named(t, "sleep 1000")
	t.Cleanup(func() { must(t, e.Remove(context.Background(), c.Name)) })
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 3 {
				if _, err := e.Create(t.Context(), c); err != nil {
					t.Error(err)
				}
				if err := e.Remove(t.Context(), c.Name); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if _, err := e.Inspect(t.Context(), c.Name); replicate.KindOf(err) != replicate.NotFound {
		t.Errorf("after the last removal: %v", err)
	}
}

func TestLifeOfAContainer(t *testing.T) {
	e := engine(t)
	c := named(t, `trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done`)
	create(t, e, c)
	before, err := e.Inspect(t.Context(), c.Name)
	must(t, err)
	if before.Phase != docker.Created || before.Name != c.Name || !before.Started.IsZero() || !before.Finished.IsZero() || before.Created.IsZero() {
		t.Errorf("created: %+v", before)
	}
	stream := attachAndStart(t, e, c)
	var out bytes.Buffer
	done := make(chan error)
	ready := make(chan bool, 1)
	go func() { done <- stream.Output(writer(func(p []byte) { out.Write(p); ready <- true }), io.Discard) }()
	<-ready
	list, err := e.List(t.Context(), map[string]string{docker.LabelProject: c.Name})
	must(t, err)
	if len(list) != 1 || list[0].Name != c.Name || list[0].Phase != docker.Running || list[0].Labels[docker.LabelKind] != docker.KindRun {
		t.Errorf("list: %+v", list)
	}
	must(t, e.Kill(t.Context(), c.Name, "TERM"))
	must(t, <-done)
	code, err := e.Wait(t.Context(), c.Name)
	must(t, err)
	after, err := e.Inspect(t.Context(), c.Name)
	must(t, err)
	if code != 5 || after.Phase != docker.Exited || after.ExitCode != 5 || after.Finished.Before(after.Started) || after.OOMKilled || out.String() != "ready\n" {
		t.Errorf("code %d, %q, %+v", code, out.String(), after)
	}
	if tail, err := e.Tail(t.Context(), c.Name, 10); err != nil || tail != "ready\n" {
		t.Errorf("tail: %q, %v", tail, err)
	}
	must(t, e.Kill(t.Context(), c.Name, "KILL")) // nobody hears it
	must(t, e.Remove(t.Context(), c.Name))
	must(t, e.Remove(t.Context(), c.Name))
	_, err = e.Inspect(t.Context(), c.Name)
	wants(t, err, replicate.NotFound, "no such container on the host")
}

// writer is a function as an io.Writer.
type writer func([]byte)

func (w writer) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

func TestInputSurvivesTheClient(t *testing.T) {
	e := engine(t)
	c := named(t, `read -r a; echo "first $a"; read -r b; echo "second $b"`)
	run(t, e, c)
	for i, text := range []string{"one\n", "two\n"} {
		stream, err := e.Attach(t.Context(), c.Name)
		must(t, err)
		_, err = io.WriteString(stream, text)
		must(t, err)
		if i == 0 {
			var seen bytes.Buffer
			heard := make(chan bool, 1)
			go stream.Output(writer(func(p []byte) { seen.Write(p); heard <- true }), io.Discard)
			<-heard
		} else {
			must(t, stream.CloseWrite())
			if _, err := e.Wait(t.Context(), c.Name); err != nil {
				t.Fatal(err)
			}
		}
		stream.Close()
	}
	tail, err := e.Tail(t.Context(), c.Name, 10)
	if err != nil || tail != "first one\nsecond two\n" {
		t.Errorf("printed %q, %v", tail, err)
	}
}

func TestOutOfMemoryIsToldFromAKill(t *testing.T) {
	h, e := host(t), engine(t)
	c := named(t, `python3 -c 'x = b"x" * (200 << 20)'`)
	c.Usual = true // or it may be made again, without its limit
	create(t, e, c)
	h.Docker(t, "update", "--memory", "32m", "--memory-swap", "32m", c.Name)
	start(t, e, c)
	_, err := e.Wait(t.Context(), c.Name)
	must(t, err)
	state, err := e.Inspect(t.Context(), c.Name)
	if err != nil || !state.OOMKilled {
		t.Errorf("%+v, %v", state, err)
	}
}

func TestExecCarriesStreamsAndCode(t *testing.T) {
	e := engine(t)
	c := named(t, "sleep 1000")
	run(t, e, c)
	big := strings.Repeat("0123456789abcdef", 1<<16)
	for _, tt := range []struct {
		name          string
		exec          docker.Exec
		out, complain string
		code          int
	}{
		{"output", docker.Exec{Argv: []string{"sh", "-c", "echo out; echo err >&2; exit 7"}}, "out\n", "err\n", 7},
		{"input to its end", docker.Exec{Argv: []string{"cat"}, Stdin: strings.NewReader(big)}, big, "", 0},
		{"input nobody reads", docker.Exec{Argv: []string{"true"}, Stdin: strings.NewReader(big)}, "", "", 0},
		{"no input", docker.Exec{Argv: []string{"cat"}}, "", "", 0},
		{"environment and directory", docker.Exec{Argv: []string{"sh", "-c", "echo $A; pwd"}, Env: []string{"A=b c"}, Dir: "/usr"}, "b c\n/usr\n", "", 0},
		{"user", docker.Exec{Argv: []string{"id", "-u"}, User: "65534"}, "65534\n", "", 0},
		{"killed", docker.Exec{Argv: []string{"sh", "-c", "kill -9 $$"}}, "", "", 137},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out, complain bytes.Buffer
			tt.exec.Stdout, tt.exec.Stderr = &out, &complain
			code, err := e.Exec(t.Context(), c.Name, tt.exec)
			if err != nil || code != tt.code || out.String() != tt.out || complain.String() != tt.complain {
				t.Errorf("code %d, %v, %d bytes out, err %q", code, err, out.Len(), complain.String())
			}
		})
	}
	if code, err := e.Exec(t.Context(), c.Name, docker.Exec{Argv: []string{"no-such-program"}}); err != nil || code != 126 && code != 127 {
		t.Errorf("a program that does not exist: code %d, %v", code, err)
	}
	broken := docker.Exec{Argv: []string{"echo", "hi"}, Stdout: brokenWriter{}}
	if _, err := e.Exec(t.Context(), c.Name, broken); !strings.Contains(fmt.Sprint(err), "the writer failed") {
		t.Errorf("a writer's error became %v", err)
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("the writer failed") }

func TestExecNeedsARunningContainer(t *testing.T) {
	e := engine(t)
	c := named(t, "true")
	create(t, e, c)
	_, err := e.Exec(t.Context(), c.Name, docker.Exec{Argv: []string{"true"}})
	wants(t, err, replicate.Conflict, "not running")
	_, err = e.Exec(t.Context(), "no-such", docker.Exec{Argv: []string{"true"}})
	wants(t, err, replicate.NotFound, "no such container on the host")
	_, err = e.Attach(t.Context(), "no-such")
	wants(t, err, replicate.NotFound, "no such container on the host")
}

func TestCancelEndsAnExec(t *testing.T) {
	e := engine(t)
	c := named(t, "sleep 1000")
	run(t, e, c)
	ctx, cancel := context.WithCancel(t.Context())
	started := writer(func([]byte) { cancel() })
	_, err := e.Exec(ctx, c.Name, docker.Exec{Argv: []string{"sh", "-c", "echo hi; sleep 1000"}, Stdout: started})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestFilesGoIntoAVolumeBeforeTheStart(t *testing.T) {
	e := engine(t)
	c := named(t, "cat /replicate/code/a/b; stat -c %a /replicate/code/a/b")
	c.Volumes = []docker.Mount{{Volume: c.Name, Target: docker.RunDir, Labels: c.Labels}}
	create(t, e, c)
	must(t, e.PutFiles(t.Context(), c.Name, docker.RunDir, docker.File{Name: "code/a/b", Mode: 0o640, Data: []byte("hello\n")}))
	start(t, e, c)
	_, err := e.Wait(t.Context(), c.Name)
	must(t, err)
	tail, err := e.Tail(t.Context(), c.Name, 10)
	if err != nil || tail != "hello\n640\n" {
		t.Errorf("printed %q, %v", tail, err)
	}
	volumes, err := e.Volumes(t.Context(), map[string]string{docker.LabelProject: c.Name})
	must(t, err)
	if len(volumes) != 1 || volumes[0].Name != c.Name || volumes[0].Labels[docker.LabelKind] != docker.KindRun {
		t.Errorf("volumes: %+v", volumes)
	}
	wants(t, e.RemoveVolume(t.Context(), c.Name), replicate.Conflict)
	err = e.PutFiles(t.Context(), c.Name, "/no/such/dir", docker.File{Name: "a"})
	wants(t, err, replicate.NotFound)
}

func TestFilesComeBackFromAStoppedContainer(t *testing.T) {
	e := engine(t)
	c := named(t, "mkdir /replicate/d; echo hello > /replicate/d/f; ln -s f /replicate/d/l; mkfifo /replicate/d/p")
	c.Volumes = []docker.Mount{{Volume: c.Name, Target: docker.RunDir}}
	run(t, e, c)
	_, err := e.Wait(t.Context(), c.Name)
	must(t, err)
	var got bytes.Buffer
	n, err := e.GetFile(t.Context(), c.Name, "/replicate/d/f", 6, &got)
	if n != 6 || err != nil || got.String() != "hello\n" {
		t.Errorf("%d bytes %q, %v", n, got.String(), err)
	}
	for path, kind := range map[string]replicate.Kind{
		"/replicate/d": replicate.Corrupt, "/replicate/d/l": replicate.Corrupt, "/replicate/d/p": replicate.Corrupt, "/replicate/none": replicate.NotFound,
	} {
		got.Reset()
		_, err := e.GetFile(t.Context(), c.Name, path, 1<<20, &got)
		if replicate.KindOf(err) != kind || got.Len() > 0 {
			t.Errorf("%s: %v and %d bytes", path, err, got.Len())
		}
	}
	_, err = e.GetFile(t.Context(), c.Name, "/replicate/d/f", 5, &got)
	wants(t, err, replicate.Corrupt, "6 bytes")
	stat, err := e.Stat(t.Context(), c.Name, "/replicate/d/f")
	if err != nil || stat.Size != 6 || !stat.Mode.IsRegular() {
		t.Errorf("%+v, %v", stat, err)
	}
	stat, err = e.Stat(t.Context(), c.Name, "/replicate/d/l")
	if err != nil || stat.Mode&fs.ModeSymlink == 0 {
		t.Errorf("%+v, %v", stat, err)
	}
}

func TestBindsMustExist(t *testing.T) {
	e := engine(t)
	c := named(t, "cat /data/f && ! touch /data/g 2>/dev/null && touch /out/g")
	c.Binds = []docker.Bind{{Source: "/no/such/dir", Target: "/data"}}
	_, err := e.Create(t.Context(), c)
	wants(t, err, replicate.NotFound, "/no/such/dir does not exist on the host")

	in, out := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(in+"/f", []byte("hello"), 0o644))
	c.Binds = []docker.Bind{{Source: in, Target: "/data"}, {Source: out, Target: "/out", Writable: true}}
	run(t, e, c)
	if code, err := e.Wait(t.Context(), c.Name); code != 0 || err != nil {
		t.Errorf("exit code %d, %v", code, err)
	}
	if _, err := os.Stat(out + "/g"); err != nil {
		t.Error(err)
	}
}

func TestSettingsReachTheContainer(t *testing.T) {
	e := engine(t)
	c := named(t, `id -u; ulimit -l; ulimit -s; df --output=size -B1M /dev/shm | tail -1; stat -f -c %T /scratch; pwd; echo $A; echo "$PATH"`)
	c.ShmSize, c.Tmpfs, c.Dir, c.Env = 123<<20, []string{"/scratch"}, "/usr", []string{"A=b"}
	run(t, e, c)
	_, err := e.Wait(t.Context(), c.Name)
	must(t, err)
	tail, err := e.Tail(t.Context(), c.Name, 20)
	must(t, err)
	lines := strings.Fields(tail)
	if len(lines) != 8 || lines[0] != "0" || lines[3] != "123" || lines[4] != "tmpfs" || lines[5] != "/usr" || lines[6] != "b" || !strings.Contains(lines[7], "/usr/bin") {
		t.Errorf("printed %q", lines)
	}
	inspect := host(t).Docker(t, "inspect", "-f",
		"{{.HostConfig.LogConfig}} {{.HostConfig.Privileged}} {{.Config.OpenStdin}} {{.Config.StdinOnce}} {{.Config.Tty}} {{.Config.Healthcheck.Test}}", c.Name)
	if want := "{json-file map[max-file:1 max-size:1m]} false true false false [NONE]\n"; inspect != want {
		t.Errorf("inspect says %q, want %q", inspect, want)
	}
}

func TestPortsArePublishedOnLoopbackOnly(t *testing.T) {
	e := engine(t)
	c := named(t, "exec python3 -m http.server 8000")
	c.Network, c.Ports = "", []uint16{8000}
	run(t, e, c)
	state, err := e.Inspect(t.Context(), c.Name)
	must(t, err)
	port := state.Ports[8000]
	if port == 0 {
		t.Fatalf("%+v", state)
	}
	published := host(t).Docker(t, "port", c.Name)
	if want := fmt.Sprintf("8000/tcp -> 127.0.0.1:%d\n", port); published != want {
		t.Errorf("published %q, want %q", published, want)
	}
}

func TestGPUs(t *testing.T) {
	h := host(t)
	e := engine(t)
	c := named(t, "echo $NVIDIA_VISIBLE_DEVICES")
	c.GPUs = docker.GPUs{All: true}
	create(t, e, c)
	_, err := e.Start(t.Context(), c)
	wants(t, err, replicate.NotFound, "Docker on the host has no driver for GPUs")
	if !strings.Contains(replicate.HintOf(err), "nvidia-container-toolkit") {
		t.Errorf("hint: %q", replicate.HintOf(err))
	}
	must(t, e.Remove(t.Context(), c.Name))

	h.GPUs(t, 2)
	for want, gpus := range map[string]docker.GPUs{"all": {All: true}, remotetest.GPU(1): {IDs: []string{remotetest.GPU(1)}}, "": {}} {
		c.GPUs = gpus
		_, err := e.Create(t.Context(), c)
		must(t, err)
		start(t, e, c)
		_, err = e.Wait(t.Context(), c.Name)
		must(t, err)
		if tail, err := e.Tail(t.Context(), c.Name, 1); err != nil || strings.TrimSpace(tail) != want {
			t.Errorf("asked for %q, got %q, %v", want, tail, err)
		}
		must(t, e.Remove(t.Context(), c.Name))
	}
}

func TestCommitKeepsTheBaseConfiguration(t *testing.T) {
	e := engine(t)
	base, err := e.Image(t.Context(), remotetest.Image)
	must(t, err)
	c := named(t, "echo layer > /layer; echo gone > /scratch/gone")
	c.Env, c.Tmpfs, c.Labels = []string{"BUILD_ONLY=1"}, []string{"/scratch"}, map[string]string{docker.LabelKind: docker.KindBuild}
	run(t, e, c)
	_, err = e.Wait(t.Context(), c.Name)
	must(t, err)
	reference := docker.EnvImage("committed")
	t.Cleanup(func() { must(t, e.RemoveImage(context.Background(), reference)) })
	labels := map[string]string{docker.LabelKind: docker.KindEnv, docker.LabelEnv: "committed"}
	id, err := e.Commit(t.Context(), c.Name, docker.Commit{Reference: reference, Labels: labels, Base: base})
	must(t, err)
	must(t, e.Remove(t.Context(), c.Name))
	made, err := e.Image(t.Context(), reference)
	must(t, err)
	if made.ID != id || made.Labels[docker.LabelKind] != docker.KindEnv || len(made.Entry) > 0 || fmt.Sprint(made.Command) != fmt.Sprint(base.Command) {
		t.Errorf("%+v", made)
	}
	if !strings.Contains(fmt.Sprint(made.Env), "PATH=") {
		t.Errorf("environment: %q", made.Env)
	}
	c.Image, c.Argv, c.Tmpfs = reference, []string{"sh", "-c", "cat /layer; ls /scratch"}, nil
	run(t, e, c)
	_, err = e.Wait(t.Context(), c.Name)
	must(t, err)
	if tail, err := e.Tail(t.Context(), c.Name, 9); err != nil || tail != "layer\n" {
		t.Errorf("printed %q, %v", tail, err)
	}
	must(t, e.Remove(t.Context(), c.Name))
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

// archive is a tar of one file.
func archive(t *testing.T, name, content string) io.Reader {
	t.Helper()
	var buffer bytes.Buffer
	w := tar.NewWriter(&buffer)
	must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}))
	_, err := io.WriteString(w, content)
	must(t, errors.Join(err, w.Close()))
	return &buffer
}
