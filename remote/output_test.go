package remote_test

import (
	"bytes"
	"strings"
	"testing"
)

// noisy prints a progress bar, waits for the file "go", and prints all bytes, a long line, and something else on stderr.
const noisy = `import os, sys, time
out, err = sys.stdout.buffer, sys.stderr.buffer
out.write(b" 10%\r")
out.flush()
while not os.path.exists("go"):
    time.sleep(0.01)
for n in range(3):
    out.write(bytes(range(256)))
    out.flush()
    err.write(b"[err %d \xff\x00]\n" % n)
    err.flush()
out.write(b"y" * 1000000)
out.flush()
`

// TestOutputIsShownAsItIs compares what a command shows, and what is stored, with what the job printed. What has no newline is shown at once.
func TestOutputIsShownAsItIs(t *testing.T) {
	d := newDesk(t)
	d.write("noisy.py", noisy)
	run := d.begin("run", "-H", "rh1", "noisy.py")
	id := run.id()
	run.prints(" 10%\r")
	d.inside(d.lab.Hosts[0], id, "touch", "go")
	if code := run.wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	want := " 10%\r" + string(bytes.Repeat(all, 3)) + strings.Repeat("y", 1000000)
	if got := run.out(); got != want {
		t.Errorf("stdout has %d bytes, want %d: %.300q", len(got), len(want), got)
	}
	for _, text := range []string{"[err 0 \xff\x00]\n", "[err 1 \xff\x00]\n", "[err 2 \xff\x00]\n"} {
		if !strings.Contains(run.err(), text) {
			t.Errorf("stderr lacks %q", text)
		}
	}
	stored := d.replicate("logs", id)
	for _, text := range []string{" 10%\r", string(all), "[err 2 \xff\x00]\n", strings.Repeat("y", 1000000)} {
		if !strings.Contains(stored, text) {
			t.Errorf("the stored output lacks %.50q", text)
		}
	}
}
