package e2e

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// rounds is how often something is killed: 20 times, or as often as REPLICATE_TORTURE says.
func rounds(t *testing.T) int {
	text := os.Getenv("REPLICATE_TORTURE")
	if text == "" {
		return 20
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// seeded returns the chance of a test, which REPLICATE_TORTURE_SEED repeats as far as the machine lets it.
func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	if text := os.Getenv("REPLICATE_TORTURE_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("REPLICATE_TORTURE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, seed))
}

// A training is a run of testdata/torture.py and what it has said so far.
type training struct {
	l      *lab
	cmd    *exec.Cmd
	stdin  *os.File
	stderr string // a file
	read   sync.WaitGroup

	mu    sync.Mutex // guards the rest
	id    string
	tries map[int]string // step -> hash
	acks  map[int]string // step -> commit
	done  bool
}

func (l *lab) train(args ...string) *training {
	l.t.Helper()
	tr := &training{l: l, tries: map[int]string{}, acks: map[int]string{}}
	tr.cmd = l.command(python(l.t), append([]string{l.script("torture.py"), l.dir}, args...)...)
	theirs, ours, err := os.Pipe()
	l.must(err)
	complaints, err := os.CreateTemp(l.home, "stderr")
	l.must(err)
	tr.cmd.Stdin, tr.cmd.Stderr, tr.stdin, tr.stderr = theirs, complaints, ours, complaints.Name()
	out, says, err := os.Pipe()
	l.must(err)
	tr.cmd.Stdout = says
	l.must(tr.cmd.Start())
	for _, f := range []*os.File{theirs, complaints, says} {
		f.Close()
	}
	tr.read.Go(func() {
		defer out.Close()
		for lines := bufio.NewScanner(out); lines.Scan(); {
			tr.heard(strings.Fields(lines.Text()))
		}
	})
	l.t.Cleanup(func() { tr.cmd.Process.Kill(); ours.Close() })
	return tr
}

func (tr *training) heard(words []string) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	switch {
	case len(words) == 1 && words[0] == "done":
		tr.done = true
	case len(words) == 2 && words[0] == "begun":
		tr.id = words[1]
	case len(words) == 3:
		step, err := strconv.Atoi(words[1])
		if err != nil {
			tr.l.t.Errorf("%q", words)
		}
		map[string]map[int]string{"try": tr.tries, "ack": tr.acks}[words[0]][step] = words[2]
	default:
		tr.l.t.Errorf("%q", words)
	}
}

// progress is how far a training says that it is.
func (tr *training) progress() (id string, acks int) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	return tr.id, len(tr.acks)
}

// gone reports whether a process has ended with all its threads, whose locks are theirs together. Nobody may have asked how yet.
func gone(pid int) bool {
	dir := fmt.Sprintf("/proc/%d/", pid)
	stat, err := os.ReadFile(dir + "stat")
	threads, _ := os.ReadDir(dir + "task")
	return err != nil || strings.Contains(string(stat), ") Z ") && len(threads) <= 1
}

// recorder returns the process that records the training, 0 if there is none.
func (tr *training) recorder() int {
	pids := children(tr.cmd.Process.Pid)
	if len(pids) == 0 {
		return 0
	}
	return pids[len(pids)-1]
}

// wait waits until the training has ended, by itself or not, and returns what it said on stderr.
func (tr *training) wait() (stderr string, err error) {
	tr.l.t.Helper()
	err = tr.cmd.Wait()
	tr.read.Wait()
	text, readErr := os.ReadFile(tr.stderr)
	tr.l.must(readErr)
	return string(text), err
}

// TestTorture kills trainings, their recorders, and both, at random moments. Whatever was acknowledged must be there and whole, and all goes on.
func TestTorture(t *testing.T) {
	const lanes = 2
	for lane := range lanes {
		t.Run(strconv.Itoa(lane), func(t *testing.T) {
			t.Parallel()
			chance := seeded(t)
			l := newLab(t)
			for round := range (rounds(t) + lane) / lanes {
				l.torture(round, chance)
				if t.Failed() {
					t.Fatalf("in round %d", round)
				}
			}
			if len(l.seen) > 0 && slices.Min(l.seen) > 3*time.Second { // by the fastest: the other lane and others want the machine too
				t.Errorf("the ends of trainings were seen after %v", l.seen)
			}
			l.check(l.storage())
		})
	}
}

func (l *lab) torture(round int, chance *rand.Rand) {
	l.t.Helper()
	victims := []string{"training", "recorder", "both"}[chance.IntN(3)]
	tr := l.train("1000000")
	if chance.IntN(4) > 0 { // else while it starts
		l.awaits(tr, chance.IntN(5))
	}
	delay := time.Duration(chance.Int64N(int64(200 * time.Millisecond)))
	time.Sleep(delay)
	pid, recorder := tr.cmd.Process.Pid, tr.recorder()
	if recorder == 0 && victims == "recorder" {
		victims = "training"
	}
	if victims != "recorder" {
		l.must(syscall.Kill(pid, syscall.SIGKILL))
	}
	if victims != "training" && recorder != 0 {
		l.must(syscall.Kill(recorder, syscall.SIGKILL))
	}
	killed := time.Now()
	if victims == "recorder" {
		l.goesOn(tr)
	} else {
		_, _ = tr.wait()
	}
	if victims == "both" && recorder != 0 {
		l.within(time.Minute, "the recorder is gone", func() bool { return gone(recorder) })
	}
	l.t.Logf("round %d: %s killed, experiment %.7s, %d commits acknowledged", round, victims, tr.id, len(tr.acks))
	l.verify(tr, victims, killed)
	l.trainsAgain(tr)
}

// awaits waits until a training has begun and n commits are acknowledged, or it is over.
func (l *lab) awaits(tr *training, n int) {
	l.t.Helper()
	l.within(time.Minute, fmt.Sprintf("%d commits", n), func() bool {
		id, acks := tr.progress()
		return id != "" && acks >= n || gone(tr.cmd.Process.Pid)
	})
}

// goesOn checks that a training whose recorder was killed records on, after one warning, and ends it. One that had not begun ends with an
// error that says why.
func (l *lab) goesOn(tr *training) {
	l.t.Helper()
	_, before := tr.progress()
	l.awaits(tr, before+2)
	tr.stdin.Close()
	stderr, err := tr.wait()
	if tr.id == "" {
		if !strings.Contains(stderr, "it went away at the start") && !strings.Contains(stderr, "it does not answer as replicate does") {
			l.t.Errorf("a training whose recorder died at the start said:\n%s", stderr)
		}
		return
	}
	if err != nil || !tr.done {
		l.t.Fatalf("the training did not end well: %v\n%s", err, stderr)
	}
	if n := strings.Count(stderr, "warning"); n != 1 {
		l.t.Errorf("%d warnings instead of one:\n%s", n, stderr)
	}
	if len(tr.acks) != len(tr.tries) {
		l.t.Errorf("%d commits were acknowledged of %d", len(tr.acks), len(tr.tries))
	}
}

// verify checks that every acknowledged commit is whole, that no other commit is anything but whole, and that the end is known.
func (l *lab) verify(tr *training, victims string, killed time.Time) {
	l.t.Helper()
	want := "crashed"
	if tr.done {
		want = "finished"
	}
	find := func() (status string) {
		for _, e := range l.list() {
			if e.ID == tr.id || tr.id == "" && e.Params["pid"] == float64(tr.cmd.Process.Pid) {
				tr.id, status = e.ID, e.Status
			}
		}
		return status
	}
	status := find()
	if tr.id == "" {
		return // it died before it began
	}
	if victims == "training" {
		l.within(time.Minute, "the recorder sees the end of "+tr.id, func() bool { status = find(); return status != "running" })
		l.seen = append(l.seen, time.Since(killed).Round(time.Millisecond))
	}
	if status != want {
		l.t.Errorf("%s is %q, not %q, with the %s killed", tr.id, status, want, victims)
	}
	listed := map[string]int{}
	var dirs []string
	commits := l.show(tr.id).Commits
	for _, c := range commits {
		listed[c.ID] = c.Step
		dirs = append(dirs, l.checkout(c.ID))
	}
	for step, id := range tr.acks {
		if got, ok := listed[id]; !ok || got != step {
			l.t.Errorf("commit %s of step %d was acknowledged and is not there: %v", id, step, listed)
		}
	}
	hashes := l.hashes(dirs...)
	for i, c := range commits {
		if hashes[i] != tr.tries[c.Step] {
			l.t.Errorf("commit %s of step %d is not what was there: %s, not %s", c.ID, c.Step, hashes[i], tr.tries[c.Step])
		}
		l.must(os.RemoveAll(dirs[i]))
	}
}

func (l *lab) hashes(dirs ...string) []string {
	l.t.Helper()
	if len(dirs) == 0 {
		return nil
	}
	return strings.Fields(l.run(python(l.t), append([]string{l.script("torture.py"), "hash"}, dirs...)...))
}

// trainsAgain checks that new trainings in the same directory work, and store nothing that is there already.
func (l *lab) trainsAgain(tr *training) {
	l.t.Helper()
	for range 2 {
		before := l.size(filepath.Join(l.storage(), "pack"))
		again := l.train("2", "same")
		if stderr, err := again.wait(); err != nil || !again.done || len(again.acks) != 2 {
			l.t.Fatalf("the next training did not end well: %v\n%s", err, stderr)
		}
		if grown := l.size(filepath.Join(l.storage(), "pack")) - before; tr.done && grown > 50_000 {
			l.t.Errorf("%d bytes of known files were stored again", grown)
		}
		l.verify(again, "recorder", time.Now())
		tr = again
	}
	left, err := filepath.Glob(filepath.Join(l.storage(), "tmp", "w", "[^.]*")) // one with a dot was in the making, and may be so for an hour
	l.must(err)
	if len(left) > 0 {
		l.t.Errorf("left: %q", left)
	}
}
