package job

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/replicate/replicate"
)

// outboxOf gives a supervisor of the tests a fileOutbox.
const outboxOf = "JOB_TEST_OUTBOX"

// A fileOutbox is a folder with a file "work" as long as something is to be sent. Its uploader writes the key that it has into "keys", and can
// do its work with the right one only.
type fileOutbox string

func (o fileOutbox) path(name string) string { return filepath.Join(string(o), name) }

func (o fileOutbox) Idle() bool { return o.Unsent() != Unsent{} }

func (o fileOutbox) Unsent() Unsent {
	if _, err := os.Stat(o.path("work")); err != nil {
		return Unsent{}
	}
	return Unsent{Records: 1, Attach: true}
}

func (o fileOutbox) Uploader() (*exec.Cmd, error) {
	cmd := exec.Command("sh", "-c", `echo "$KEY" >> keys; if test "$KEY" = right; then rm work; else exec sleep 60; fi`)
	cmd.Dir = string(o)
	return cmd, nil
}

// TestAnUploaderGetsNewerCredentials has a job whose commits need another key than the one it began with, which comes after its end.
func TestAnUploaderGetsNewerCredentials(t *testing.T) {
	outbox := fileOutbox(t.TempDir())
	spec := shell(`test -z "$KEY" && touch ` + outbox.path("work") + `; exit 3`)
	spec.Record, spec.Secrets = true, true
	r := supervise(t, t.TempDir(), outboxOf+"="+string(outbox)).give(spec, Secrets{Storage: map[string]string{"KEY": "old"}})
	r.until("sending", func(s State) bool { return s.Phase == Uploading && s.ExitCode == 3 && s.Unsent.Attach })
	keys := func() string { text, _ := os.ReadFile(outbox.path("keys")); return string(text) }
	waitFor(t, "tried", func() bool { return keys() == "old\n" })
	if _, err := Control(t.Context(), r.dir, Request{Op: OpSecrets, Secrets: &Secrets{Storage: map[string]string{"KEY": "right"}}}); err != nil {
		t.Fatal(err)
	}
	if code := r.wait(); code != 3 || keys() != "old\nright\n" {
		t.Errorf("exit code %d, keys %q", code, keys())
	}
	if state := r.state(); state.Phase != Exited || state.Unsent != (Unsent{}) {
		t.Errorf("state %+v", state)
	}
}

// TestWhatCannotBeSentStays has a machine that is shut down while an ended job's commits wait.
func TestWhatCannotBeSentStays(t *testing.T) {
	for name, leave := range map[string]func(*run){
		"by a signal": func(r *run) { _ = r.cmd.Process.Signal(syscall.SIGTERM) },
		"by kill":     func(r *run) { r.ask(Stop); r.ask(Kill) }, // a stop does nothing to a job that has ended
	} {
		t.Run(name, func(t *testing.T) {
			outbox := fileOutbox(t.TempDir())
			spec := shell(`touch ` + outbox.path("work"))
			spec.Record = true
			r := supervise(t, t.TempDir(), outboxOf+"="+string(outbox)).give(spec, Secrets{Storage: map[string]string{"KEY": "wrong"}})
			r.until("sending", func(s State) bool { return s.Phase == Uploading && s.Unsent.Records == 1 })
			leave(r)
			if code := r.wait(); code != 0 || r.state().Phase != Exited || r.state().Status != replicate.Finished {
				t.Errorf("exit code %d, state %+v", code, r.state())
			}
			if _, err := os.Stat(outbox.path("work")); err != nil {
				t.Error(err)
			}
		})
	}
}
