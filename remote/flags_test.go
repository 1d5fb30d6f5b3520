package remote_test

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest/servers"
)

func TestTimeout(t *testing.T) {
	d := newDesk(t)
	if o := d.try("run", "-H", "rh1", "--timeout", "1s", "sleep", "1000"); o.code != 124 {
		t.Errorf("exit code %d\n%s", o.code, o.stderr)
	}
	if e := d.only(); e.Status != "terminated" || e.ExitCode == nil || *e.ExitCode != 124 {
		t.Errorf("ls says %+v", e)
	}
}

// TestRetries runs a job that leaves a file and fails, and finds it the next time.
func TestRetries(t *testing.T) {
	d := newDesk(t)
	o := d.try("run", "-H", "rh1", "--retries", "2", "sh", "-c", "echo attempt $REPLICATE_ATTEMPT; test -e checkpoint && exit 0; touch checkpoint; exit 9")
	if o.code != 0 || o.stdout != "attempt 1\nattempt 2\n" {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	if e := d.only(); e.Status != "finished" {
		t.Errorf("ls says %+v", e)
	}
}

func TestCommitAtTheEnd(t *testing.T) {
	d := newDesk(t)
	if o := d.try("run", "-H", "rh1", "--commit", "sh", "-c", "echo learnt >model.txt"); o.code != 0 {
		t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	e := d.only()
	if e.NumCommits != 1 {
		t.Fatalf("ls says %+v", e)
	}
	if got := d.replicate("cat", e.ID[:7]+"@latest:model.txt"); got != "learnt\n" {
		t.Errorf("the model is %q", got)
	}
}

func TestVariablesArePassedOnByName(t *testing.T) {
	d := newDesk(t)
	d.setenv("WANTED", "one")
	d.setenv("OTHER", "two")
	o := d.try("run", "-H", "rh1", "--env", "WANTED", "--env", "GIVEN=a=b", "sh", "-c", "echo $WANTED $GIVEN $OTHER $REPLICATE_HOST $REPLICATE_USER")
	if o.stdout != "one a=b rh1 ann\n" {
		t.Errorf("the job sees %q\n%s", o.stdout, o.stderr)
	}
}

// TestMountsOfTheHost shows a directory of the host: what is written there belongs to whoever logs in.
func TestMountsOfTheHost(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	dir := "/tmp/data-" + filepath.Base(d.home) + strconv.FormatInt(time.Now().UnixNano(), 36)
	host.Run(t, "sh", "-c", "mkdir -p "+dir+" && chown dev "+dir+" && echo flowers >"+dir+"/in")
	o := d.try("run", "-H", "rh1", "-m", dir+":/data", "sh", "-c", "cat /data/in; touch /data/out || echo read-only")
	if o.code != 0 || o.stdout != "flowers\nread-only\n" {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	o = d.try("run", "-H", "rh1", "-m", dir+":/data:rw", "sh", "-c", "echo done >/data/out; id -un || true; echo $HOME >/dev/null")
	if o.code != 0 {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	if owner := strings.TrimSpace(host.Run(t, "stat", "-c", "%U", dir+"/out")); owner != "dev" {
		t.Errorf("what was written belongs to %s", owner)
	}
	if o = d.try("run", "-H", "rh1", "-m", "/nonexistent-here:/data", "true"); o.code != 125 || !strings.Contains(o.stderr, "/nonexistent-here") {
		t.Errorf("exit code %d\n%s", o.code, o.stderr)
	}
}

// TestPortsAnswerHere asks a server in the job through a port of this machine.
func TestPortsAnswerHere(t *testing.T) {
	d := newDesk(t)
	free, err := servers.FreePort()
	d.must(err)
	port := strconv.Itoa(free)
	d.write("hello.txt", "hello\n")
	cmd := d.command("run", "-H", "rh1", "-p", port, "python", "-m", "http.server", port)
	log, err := os.Create(filepath.Join(d.home, "log"))
	d.must(err)
	cmd.Stdout, cmd.Stderr = log, log
	d.must(cmd.Start())
	defer cmd.Process.Kill()
	d.within(time.Minute, "the server answers", func() bool {
		answer, err := http.Get("http://127.0.0.1:" + port + "/hello.txt")
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return string(text) == "hello\n"
	})
	d.must(cmd.Process.Signal(os.Interrupt))
	_ = cmd.Wait()
	if e := d.only(); e.Status != "interrupted" {
		t.Errorf("ls says %+v\n%s", e, d.read(log.Name()))
	}
}
