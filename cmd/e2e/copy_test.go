package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/legacy/legacytest"
)

// TestCopySurvivesKill kills copies of an old and of a new repository at random moments, until one gets through or that was done often enough. What has arrived then is
// everything, once and whole.
func TestCopySurvivesKill(t *testing.T) {
	random := seeded(t)
	l := newLab(t)
	l.must(legacytest.Mixed().Write(l.path("old")))
	l.killed(rounds(t), random, 700*time.Millisecond, "copy", "old", "middle")
	l.sound("middle")
	l.killed(rounds(t), random, 100*time.Millisecond, "copy", "middle", "new")
	l.sound("new")
	listed := func(at string) string { return l.run(binary, "ls", "--json", "-S", at) }
	if a, b := listed("middle"), listed("new"); a != b {
		t.Errorf("listed as\n%s\nand\n%s", a, b)
	}
}

// killed runs a command, killing it after up to longest, until it ends by itself, and in the end lets it.
func (l *lab) killed(most int, random *rand.Rand, longest time.Duration, args ...string) {
	l.t.Helper()
	for kills := range most {
		cmd := l.command(binary, args...)
		cmd.Stderr = os.Stderr
		l.must(cmd.Start())
		timer := time.AfterFunc(time.Duration(random.Int64N(int64(longest))), func() { _ = cmd.Process.Signal(syscall.SIGKILL) })
		err := cmd.Wait()
		timer.Stop()
		if err == nil {
			l.t.Logf("%v got through after %d kills", args, kills)
			return
		}
	}
	l.run(binary, args...)
}

// sound checks that a repository holds all of the fixture, and nothing else.
func (l *lab) sound(at string) {
	l.t.Helper()
	if ids := strings.Fields(l.run(binary, "ls", "-q", "-S", at)); len(ids) != 14 {
		l.t.Errorf("%s has %d experiments", at, len(ids))
	}
	l.run(binary, "check", "--read-data", "-S", at)
	for _, f := range legacytest.Formats {
		id := legacytest.CommitID(f, 1, 2)[:32]
		out := l.path("out", at, f.String())
		l.run(binary, "checkout", "-S", at, id, "-o", out)
		for name, want := range legacytest.View(f, 1, 2) {
			if data, err := os.ReadFile(filepath.Join(out, name)); err != nil || string(data) != want.Data {
				l.t.Errorf("%s of %s: %v, or it differs", name, id, err)
			}
		}
	}
	left, err := filepath.Glob(l.path(at, "tmp", "w", "[^.]*")) // what begins with a dot goes after an hour
	if err != nil || len(left) > 0 {
		l.t.Errorf("left behind in %s: %v", at, left)
	}
}
