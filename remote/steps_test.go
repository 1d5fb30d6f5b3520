package remote_test

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// An assassin stands between commands and an engine, and kills a command when it has sent its n-th request, before it sees an answer.
type assassin struct {
	socket string // where commands find the engine

	mu     sync.Mutex // guards the rest
	seen   int        // requests of the command
	at     int        // the request to kill it at, 0 for none
	victim *os.Process
}

func newAssassin(t *testing.T, engine string) *assassin {
	t.Helper()
	a := &assassin{socket: filepath.Join(t.TempDir(), "s")}
	listener, err := net.Listen("unix", a.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go a.carry(conn, engine)
		}
	}()
	return a
}

func (a *assassin) carry(conn net.Conn, socket string) {
	defer conn.Close()
	engine, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	defer engine.Close()
	go func() {
		defer conn.Close()
		_, _ = io.Copy(conn, engine)
	}()
	_, _ = io.Copy(io.MultiWriter(engine, a), conn)
	_ = engine.(*net.UnixConn).CloseWrite()
	<-time.After(time.Second) // what the engine still says
}

var requestLine = regexp.MustCompile(`^(GET|HEAD|PUT|POST|DELETE) /`)

// Write is told what went to the engine.
func (a *assassin) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if requestLine.Match(p) {
		if a.seen++; a.seen == a.at && a.victim != nil {
			_ = a.victim.Kill()
		}
	}
	return len(p), nil
}

// kills runs a command that is killed at its n-th request, and reports whether it made so many.
func (a *assassin) kills(n int, cmd *exec.Cmd) bool {
	a.mu.Lock()
	err := cmd.Start()
	a.seen, a.at, a.victim = 0, n, cmd.Process
	a.mu.Unlock()
	if err == nil {
		_ = cmd.Wait()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.at, a.victim = 0, nil
	return a.seen >= n
}

// TestStartIsKilledAtEveryRequest kills commands that start runs at each of their requests to the engine in turn. What is left has come to an end, or goes on when it is
// attached to.
func TestStartIsKilledAtEveryRequest(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	d.write("big.bin", strings.Repeat("x", 3<<20)) // so that the container is started before the code is there
	a := newAssassin(t, host.Socket())
	target := "unix://" + a.socket
	d.replicate("run", "-H", target, "echo", "hello")
	starts := 0
	for a.kills(starts+1, d.command("run", "-H", target, "echo", "hello")) {
		starts++
	}
	if starts < 10 {
		t.Fatalf("a start makes %d requests", starts)
	}
	d.replicate("ps")
	goOn := 0
	for _, e := range d.list("--filter", "status in (building, waiting, running, detached, lost)") {
		if o := d.try("attach", e.ID); o.code != 0 || o.stdout != "hello\n" {
			t.Errorf("attach of %s, which was %s: exit code %d, %q", e.ID, e.Status, o.code, o.stdout)
		}
		if e.Status == "building" {
			goOn++
		}
	}
	if goOn == 0 {
		t.Error("no start went on")
	}
	d.replicate("pull")
	containers := d.containers(host)
	for _, e := range d.list() {
		switch _, there := containers[e.ID]; {
		case e.Status == "finished" && there && d.replicate("logs", e.ID) == "hello\n":
		case (e.Status == "crashed" || e.Status == "failed") && !there:
		default:
			t.Errorf("%s is %s; its container is there: %t", e.ID, e.Status, there)
		}
	}
	if o := d.try("pull"); !strings.Contains(o.stderr, "nothing to pull") {
		t.Errorf("pull says %s", o.stderr)
	}
}

// TestStartInPlaceIsKilled kills commands that start runs without Docker at moments all over such a start.
func TestStartInPlaceIsKilled(t *testing.T) {
	d := newDesk(t)
	begin := time.Now()
	d.replicate("run", "--no-docker", "echo", "hello")
	whole := time.Since(begin)
	const moments = 20
	for i := range moments {
		run := d.begin("run", "--no-docker", "echo", "hello")
		select {
		case <-run.ended:
		case <-time.After(whole * time.Duration(i) / moments):
			run.kill()
		}
	}
	going := "status in (building, waiting, running, detached, lost)"
	d.within(3*time.Minute, "every run ends", func() bool {
		d.replicate("ps")
		return len(d.list("--filter", going)) == 0
	})
	for _, e := range d.list() {
		switch e.Status {
		case "finished":
			if got := d.replicate("logs", e.ID); got != "hello\n" {
				t.Errorf("%s finished, and its output is %q", e.ID, got)
			}
		case "crashed", "failed":
		default:
			t.Errorf("%s is %s", e.ID, e.Status)
		}
	}
	if notes, _ := filepath.Glob(filepath.Join(d.dir, ".replicate", "runs", "*")); len(notes) > 0 {
		t.Errorf("what is remembered of runs: %v", notes)
	}
}

// TestPullIsKilledAtEveryRequest kills commands that fetch what a run left at each of their requests to the engine in turn. The host drops nothing that is not here,
// and in the end all of it.
func TestPullIsKilledAtEveryRequest(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	d.write("train.py", heavy)
	a := newAssassin(t, host.Socket())
	id := strings.TrimSpace(d.replicate("run", "-d", "-H", "unix://"+a.socket, "train.py"))
	d.within(time.Minute, "the job ends", func() bool { return strings.HasPrefix(d.containers(host)[id], "Exited") })
	volume := "/run/lab/data/volumes/replicate-run-" + id + "/_data/"
	has := func(name string) bool { return host.Command("test", "-e", volume+name).Run() == nil }
	private, kept := filepath.Join(d.dir, ".replicate"), filepath.Join(d.home, "kept")
	d.must(os.CopyFS(kept, os.DirFS(private)))
	n := 1
	for ; a.kills(n, d.command("pull", id)); n++ {
		if !has("fetched") {
			d.must(os.RemoveAll(private)) // nothing was dropped: the next one fetches everything
			d.must(os.CopyFS(private, os.DirFS(kept)))
			continue
		}
		if got := d.commits(id); got != 6 {
			t.Fatalf("killed at request %d: everything was fetched, it says there, and %d commits are here", n, got)
		}
	}
	t.Logf("%d requests", n-1)
	if e := d.only(); e.Status != "finished" || e.NumCommits != 6 {
		t.Errorf("ls says %+v", e)
	}
	d.replicate("check", "--read-data")
	if got := d.replicate("logs", id); strings.Count(got, "done\n") != 1 {
		t.Errorf("the output is %q", got)
	}
	if has("storage") || !has("log") || !has("fetched") {
		t.Error("the host keeps commits that are here, or has dropped the log")
	}
	if o := d.try("pull"); !strings.Contains(o.stderr, "nothing to pull") {
		t.Errorf("pull says %s", o.stderr)
	}
	if o := d.try("pull", id); o.code != 0 {
		t.Errorf("to pull it again ends with %d", o.code)
	}
}
