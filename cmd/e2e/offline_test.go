package e2e

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/replicate/replicate/storage/storagetest"
)

// TestWhatWasReadIsThereWithoutTheNetwork lists, prints and mounts what a machine has seen of a bucket that it cannot reach any more, and says that this may be
// old. What it has not read is an error, not a wrong answer.
func TestWhatWasReadIsThereWithoutTheNetwork(t *testing.T) {
	s := storagetest.StartS3(t)
	url := storagetest.Prefix(s.URL)
	writer, commit := readable(t, url, s.Env())
	proxy, env := storagetest.StartProxy(t, s, 1)
	reader := machine(t, url, env)
	reader.setenv("AWS_MAX_ATTEMPTS", "1")
	wanted := read(t, writer.path("data/b.txt"))
	before := reader.replicate("ls")
	if got := reader.replicate("cat", commit+":data/b.txt"); got != wanted {
		t.Fatalf("cat: %d bytes are wrong", len(got))
	}
	proxy.Down(true)
	for _, tt := range []struct {
		name string
		args []string
		want func(stdout string) bool
	}{
		{"ls", []string{"ls"}, func(out string) bool { return strings.Count(out, "\n") == strings.Count(before, "\n") }},
		{"show", []string{"show", commit}, func(out string) bool { return strings.Contains(out, commit) }},
		{"cat", []string{"cat", commit + ":data/b.txt"}, func(out string) bool { return out == wanted }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			cmd := reader.command(binary, tt.args...)
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Run(); err != nil || !tt.want(stdout.String()) {
				t.Errorf("%v\n%s%s", err, stdout.String(), stderr.String())
			}
			if !strings.Contains(stderr.String(), "may be old") {
				t.Errorf("it does not say so: %s", stderr.String())
			}
		})
	}
	cmd := reader.command(binary, "cat", commit+":data/middle.bin")
	if out, err := cmd.Output(); err == nil {
		t.Errorf("%d bytes came from nowhere", len(out))
	}
	mnt := reader.mount()
	if got := read(t, filepath.Join(mnt, "commits", commit[:7], "data", "b.txt")); got != wanted {
		t.Errorf("the mount has %d wrong bytes", len(got))
	}
}
