package image

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/remotetest"
)

// binary is the command, built for the containers of these tests.
var binary string

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "replicate-image-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "replicate")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, "../../cmd/replicate")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build the command: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A bench is a project, and a host to build its environment on. What is built is the test's own: every first layer has its name.
type bench struct {
	t    *testing.T
	host *remotetest.Host
	root string
	in   Inputs
	*Builder
	seen []string // steps that were done
}

func newBench(t *testing.T) *bench {
	t.Helper()
	lab := remotetest.Start(t, remotetest.Options{})
	b := &bench{t: t, host: lab.Hosts[0], root: t.TempDir()}
	b.Builder = b.client()
	b.in = Inputs{Around: Around{Root: b.root}, Image: remotetest.Image, Install: []string{"echo " + t.Name() + " >/made-for"}}
	t.Cleanup(b.clear)
	return b
}

// client is a Builder with a connection of its own.
func (b *bench) client() *Builder {
	b.t.Helper()
	engine, err := docker.Open(b.t.Context(), b.host.Dial)
	must(b.t, err)
	program, err := docker.NewProgram(binary, fstest.MapFS{})
	must(b.t, err)
	return &Builder{Engine: engine, Program: func(ctx context.Context) (docker.Program, error) { return program, engine.Deliver(ctx, program) }, User: "dev", Client: "here", Project: "test", Network: "host", Progress: func(p Progress) {
		if p.Done {
			b.seen = append(b.seen, fmt.Sprintf("%d/%d %s", p.Step, p.Of, p.Name))
		}
	}}
}

// clear removes what the test left on the host.
func (b *bench) clear() {
	for _, name := range strings.Fields(b.host.Docker(b.t, "ps", "-aq", "--filter", "label="+docker.LabelKind+"="+docker.KindBuild)) {
		b.host.Docker(b.t, "rm", "-fv", name)
	}
	for _, id := range strings.Fields(b.host.Docker(b.t, "images", "-q", "--filter", "label="+docker.LabelKind+"="+docker.KindEnv)) {
		exec.Command("docker", "-H", "unix://"+b.host.Socket(), "rmi", "-f", id).Run()
	}
}

func (b *bench) write(name, content string) {
	b.t.Helper()
	must(b.t, os.MkdirAll(filepath.Dir(filepath.Join(b.root, name)), 0o755))
	must(b.t, os.WriteFile(filepath.Join(b.root, name), []byte(content), 0o644))
}

func (b *bench) plan() *Plan {
	b.t.Helper()
	p, err := New(b.t.Context(), b.in)
	must(b.t, err)
	return p
}

// build makes the environment, and forgets which steps were done before.
func (b *bench) build() Environment {
	b.t.Helper()
	b.seen = nil
	env, err := b.Prepare(b.t.Context(), b.plan())
	must(b.t, err)
	return env
}

// run runs a command in an environment.
func (b *bench) run(env Environment, argv ...string) string {
	b.t.Helper()
	return strings.TrimSpace(b.host.Docker(b.t, append([]string{"run", "--rm", "--network", "none", env.Image}, argv...)...))
}

// wheel is a package for pip.
func wheel(name, version, said string) []byte {
	info := fmt.Sprintf("%s-%s.dist-info", name, version)
	files := []struct{ name, content string }{
		{name + ".py", "said = " + fmt.Sprintf("%q", said) + "\n"},
		{info + "/METADATA", fmt.Sprintf("Metadata-Version: 2.1\nName: %s\nVersion: %s\n", name, version)},
		{info + "/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
	}
	var record strings.Builder
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	add := func(name, content string) {
		f, err := w.Create(name)
		if err != nil {
			panic(err)
		}
		f.Write([]byte(content))
	}
	for _, f := range files {
		sum := sha256.Sum256([]byte(f.content))
		fmt.Fprintf(&record, "%s,sha256=%s,%d\n", f.name, base64.RawURLEncoding.EncodeToString(sum[:]), len(f.content))
		add(f.name, f.content)
	}
	add(info+"/RECORD", record.String()+info+"/RECORD,,\n")
	w.Close()
	return b.Bytes()
}

func TestAnEditRebuildsFromThereOnly(t *testing.T) {
	b := newBench(t)
	b.in.InstallScript, b.in.Requirements = "setup.sh", "requirements.txt"
	b.in.Install = append(b.in.Install, "echo two >/two")
	b.write("setup.sh", "echo "+t.Name()+" >/script")
	b.write("wheels/tiny-1.0-py3-none-any.whl", string(wheel("tiny", "1.0", "hello")))
	b.write("requirements.txt", "--no-index\n./wheels/tiny-1.0-py3-none-any.whl\n")
	env := b.build()
	if got := b.run(env, "sh", "-c", "cat /script /made-for /two; python3 -c 'import tiny; print(tiny.said)'"); got != t.Name()+"\n"+t.Name()+"\ntwo\nhello" {
		t.Errorf("the environment says %q", got)
	}
	if len(b.seen) != 4 || env.Fresh != 4 || !strings.HasPrefix(b.seen[3], "4/4 requirements.txt: 1 package") {
		t.Errorf("done: %q", b.seen)
	}
	if again := b.build(); again.Image != env.Image || again.Fresh != 0 || len(b.seen) != 0 {
		t.Errorf("nothing changed, and done was %q", b.seen)
	}
	b.in.Install[1] = "echo three >/two"
	if b.build(); len(b.seen) != 2 || !strings.HasPrefix(b.seen[0], "3/4 install: echo three") {
		t.Errorf("an edit of the third step does %q", b.seen)
	}
	b.write("wheels/tiny-1.0-py3-none-any.whl", string(wheel("tiny", "1.0", "bye")))
	env = b.build()
	if got := b.run(env, "python3", "-c", "import tiny; print(tiny.said)"); got != "bye" || len(b.seen) != 1 {
		t.Errorf("another wheel of one name: %q, done %q", got, b.seen)
	}
	if left := b.host.Docker(t, "ps", "-aq") + b.host.Docker(t, "volume", "ls", "-q", "--filter", "name=replicate-build"); left != "" {
		t.Errorf("left behind: %q", left)
	}
}

func TestImagesSayWhatIsInThem(t *testing.T) {
	b := newBench(t)
	b.in.Requirements = "requirements.txt"
	b.write("requirements.txt", "--no-index\n--find-links wheels\ntiny>=1\n")
	b.write("wheels/tiny-1.5-py3-none-any.whl", string(wheel("tiny", "1.5", "x")))
	env := b.build()
	text := b.run(env, "cat", "/etc/replicate/env.json")
	for _, want := range []string{env.Base.ID, env.Key, "tiny==1.5", "python3.11=", "requirements.txt: 1 package"} {
		if !strings.Contains(text, want) {
			t.Errorf("env.json has no %q:\n%s", want, text)
		}
	}
	labels := b.host.Docker(t, "inspect", "-f", "{{json .Config}}", env.Image)
	for _, want := range []string{`"replicate.kind":"env"`, `"replicate.env":"` + env.Key, `"replicate.project":"test"`, `"replicate.parent":`} {
		if !strings.Contains(labels, want) {
			t.Errorf("the image has no label %s: %s", want, labels)
		}
	}
	base := b.host.Docker(t, "inspect", "-f", "{{.Config.Env}} {{.Config.Cmd}} {{.Config.Entrypoint}} {{.Config.WorkingDir}}", remotetest.Image)
	if got := b.host.Docker(t, "inspect", "-f", "{{.Config.Env}} {{.Config.Cmd}} {{.Config.Entrypoint}} {{.Config.WorkingDir}}", env.Image); got != base {
		t.Errorf("the image has %s, and the base %s", got, base)
	}
}

func TestFailedStepSaysWhy(t *testing.T) {
	b := newBench(t)
	b.in.Install = append(b.in.Install, "(seq 1 30; echo broken) >&2; exit 7") // one stream: two are in no order
	_, err := b.Prepare(t.Context(), b.plan())
	failed, ok := errors.AsType[*StepError](err)
	if !ok {
		t.Fatalf("got %v", err)
	}
	if failed.Code != 7 || len(failed.Last) != 20 || failed.Last[19] != "broken" || failed.Last[0] != "12" {
		t.Errorf("got %+v", failed)
	}
	hint := replicate.HintOf(err)
	if !strings.Contains(hint, failed.Container) {
		t.Errorf("hint %q", hint)
	}
	b.host.Docker(t, "inspect", failed.Container)
	if _, err := b.Prepare(t.Context(), b.plan()); err == nil { // it is tried again
		t.Error("a step that fails twice is fine the second time")
	}
	b.in.Install[1] = "true"
	b.build()
}

func TestTwoClientsBuildOnce(t *testing.T) {
	b := newBench(t)
	b.in.Install = append(b.in.Install, "sleep 2; date +%s%N >/when")
	plan := b.plan()
	errs := make(chan error)
	envs := make([]Environment, 3)
	for i := range envs {
		client := b.client()
		client.Progress = nil
		go func() {
			var err error
			envs[i], err = client.Prepare(t.Context(), plan)
			errs <- err
		}()
	}
	for range envs {
		must(t, <-errs)
	}
	if n := strings.Count(b.host.Docker(t, "images", "-q", "--filter", "label="+docker.LabelKind+"="+docker.KindEnv, "--filter", "label="+docker.LabelEnv+"="+envs[0].Key), "\n"); n != 1 {
		t.Errorf("%d images of one key", n)
	}
	if envs[0].Image != envs[1].Image || envs[1].Image != envs[2].Image {
		t.Errorf("got %+v", envs)
	}
	if left := b.host.Docker(t, "ps", "-aq"); left != "" {
		t.Errorf("left behind: %q", left)
	}
}

// TestBuildGoesOnWithoutItsClient loses the client in the middle of a step, and another one finds it.
func TestBuildGoesOnWithoutItsClient(t *testing.T) {
	b := newBench(t)
	b.in.Install = []string{"date +%s%N >/when; echo " + t.Name() + "; until [ -e /go ]; do sleep 0.1; done"}
	plan := b.plan()
	ctx, cancel := context.WithCancel(t.Context())
	lost := b.client()
	lost.Progress = func(p Progress) {
		if p.Elapsed > time.Second {
			cancel()
		}
	}
	if _, err := lost.Prepare(ctx, plan); err == nil {
		t.Fatal("the lost client is done")
	}
	id := b.host.Docker(t, "ps", "-q", "--no-trunc", "--filter", "label="+docker.LabelKind+"="+docker.KindBuild)
	if id == "" {
		t.Fatal("nothing goes on")
	}
	created := b.host.Docker(t, "inspect", "-f", "{{.Created}}", strings.TrimSpace(id))
	b.host.Docker(t, "exec", strings.TrimSpace(id), "touch", "/go")
	env := b.build()
	if when := b.run(env, "stat", "-c", "%s", "/when"); when == "0" {
		t.Errorf("the step ran not: %s", when)
	}
	if made := b.host.Docker(t, "inspect", "-f", "{{.Container}}", env.Image); !strings.HasPrefix(strings.TrimSpace(id), strings.TrimSpace(made)) {
		t.Errorf("the image is of container %s, the first client's was %s of %s", made, id, created)
	}
}

// TestIndexWithPassword installs from an index that wants a password, and looks for the password everywhere.
func TestIndexWithPassword(t *testing.T) {
	b := newBench(t)
	lab := remotetest.Start(t, remotetest.Options{})
	const user, password = "ann", "planted-pa55"
	content := wheel("tiny", "2.0", "private")
	listener, err := net.Listen("tcp", lab.Gateway+":0")
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			http.Error(w, "no", http.StatusUnauthorized)
			return
		}
		switch r.URL.Path {
		case "/simple/tiny/":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, `<a href="tiny-2.0-py3-none-any.whl">tiny-2.0-py3-none-any.whl</a>`)
		case "/simple/tiny/tiny-2.0-py3-none-any.whl":
			w.Write(content)
		default:
			http.NotFound(w, r)
		}
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	b.Network = ""
	b.in.Requirements = "requirements.txt"
	b.in.Indexes = []string{fmt.Sprintf("http://%s:%s@%s/simple", user, password, listener.Addr())}
	b.write("requirements.txt", fmt.Sprintf("--trusted-host %s\ntiny\n", lab.Gateway))
	env := b.build()
	if got := b.run(env, "python3", "-c", "import tiny; print(tiny.said)"); got != "private" {
		t.Errorf("got %q", got)
	}
	b.write("requirements.txt", fmt.Sprintf("--trusted-host %s\ntiny\nnot-there\n", lab.Gateway)) // fails, and its container is kept
	if _, err := b.Prepare(t.Context(), b.plan()); err == nil {
		t.Error("a step that fails is fine")
	}
	if found := b.host.Run(t, "sh", "-c", "grep -rl "+password+" /run/lab/data || true"); found != "" {
		t.Errorf("the password is in files of Docker: %s", found)
	}
	for what, text := range map[string]string{
		"image":   b.host.Docker(t, "inspect", env.Image),
		"history": b.host.Docker(t, "history", "--no-trunc", env.Image),
		"files":   b.run(env, "sh", "-c", "grep -rl "+password+" /etc /root /opt /usr/local /var /tmp /replicate 2>/dev/null || true"),
		"caches":  b.host.Docker(t, "run", "--rm", "-v", docker.CacheVolume("dev")+":/c", remotetest.Image, "sh", "-c", "grep -rl "+password+" /c || true"),
	} {
		if strings.Contains(text, password) || what != "image" && what != "history" && strings.TrimSpace(text) != "" {
			t.Errorf("the password is in %s: %s", what, text)
		}
	}
}

func TestBaseComesFromThisMachine(t *testing.T) {
	b := newBench(t)
	lab := remotetest.Start(t, remotetest.Options{})
	here := lab.Hosts[1]
	here.Docker(t, "tag", remotetest.Image, "only-here:1")
	t.Cleanup(func() { here.Docker(t, "rmi", "only-here:1") })
	t.Cleanup(func() { exec.Command("docker", "-H", "unix://"+b.host.Socket(), "rmi", "only-here:1").Run() })
	b.in.Image = "only-here:1"
	refused := func(load string) {
		t.Helper()
		_, err := b.Prepare(t.Context(), b.plan())
		for _, way := range []string{"--image (" + remotetest.Image, load, "a mirror"} {
			if hint := replicate.HintOf(err); !strings.Contains(hint, way) {
				t.Errorf("%v: hint %q lacks %q", err, hint, way)
			}
		}
	}
	refused("with docker load;") // where it is to run is this machine
	b.Here = func(context.Context) (*docker.Engine, error) { return nil, errors.New("no Docker") }
	refused("docker save only-here:1 | ssh HOST docker load;")
	b.Here = func(ctx context.Context) (*docker.Engine, error) { return docker.Open(ctx, here.Dial) }
	env := b.build()
	if got := b.run(env, "cat", "/made-for"); got != t.Name() {
		t.Errorf("got %q", got)
	}
}

// TestFullDiskOfTheHostIsSaidAsSuch runs a step that needs more room than the host has.
func TestFullDiskOfTheHostIsSaidAsSuch(t *testing.T) {
	lab := remotetest.Start(t, remotetest.Options{Disk: 800 << 20})
	b := &bench{t: t, host: lab.Hosts[0], root: t.TempDir()}
	b.Builder = b.client()
	t.Cleanup(b.clear)
	b.in = Inputs{Around: Around{Root: b.root}, Image: remotetest.Image, Install: []string{"head -c 300M /dev/urandom >/big"}}
	_, err := b.Program(t.Context())
	must(t, err)
	empty := b.host.FillDisk(t, 100<<20)
	_, err = b.Prepare(t.Context(), b.plan())
	if replicate.KindOf(err) != replicate.Full || !strings.Contains(err.Error(), "1/1 install: head") {
		t.Errorf("got %v (%s)", err, replicate.KindOf(err))
	}
	empty()
	b.in.Install = []string{"head -c 1M /dev/urandom >/small"}
	b.build()
}
