package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/badnet"
	"github.com/replicate/replicate/storage/storagetest/servers"
)

// machine is a lab with a home of its own, whose project is stored at a URL that env leads to.
func machine(t testing.TB, url string, env map[string]string) *lab {
	t.Helper()
	l := newLab(t)
	for name, value := range env {
		l.setenv(name, value)
	}
	l.write("replicate.yaml", "storage: "+url+"\n")
	t.Cleanup(func() { // an uploader outlives all else
		if pid := l.uploader(); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return l
}

// uploader returns the process that uploads for the project, 0 if there is none.
func (l *lab) uploader() int {
	files, _ := filepath.Glob(l.path(".replicate", "spool", "*", "status"))
	for _, file := range files {
		var status struct{ PID int }
		text, err := os.ReadFile(file)
		if err != nil || json.Unmarshal(text, &status) != nil || gone(status.PID) {
			continue
		}
		if line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", status.PID)); strings.Contains(string(line), "uploader") {
			return status.PID
		}
	}
	return 0
}

// uploads waits until everything that the machine recorded is in the storage.
func (l *lab) uploads() {
	l.t.Helper()
	if out, stderr, code := l.try(binary, "upload"); code != 0 {
		l.t.Fatalf("upload: exit code %d\n%s%s", code, out, stderr)
	}
	for _, pattern := range []string{"pack/*", "kept/*", "ready/*", "head/*", "sending", "w/[^.]*"} {
		var left []string
		l.within(time.Minute, "nothing is left", func() bool { // the uploader itself sweeps last
			left, _ = filepath.Glob(l.path(".replicate", "spool", "*", pattern))
			return len(left) == 0
		})
	}
}

// TestTwoMachinesTrainAndAThirdLooks trains on two machines that share nothing but a bucket, while a third one lists and mounts: everything
// appears, in order.
func TestTwoMachinesTrainAndAThirdLooks(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *servers.Server{
		"gofakes3": storagetest.StartS3, "versitygw": storagetest.StartVersity, "fake-gcs-server": storagetest.StartGCS,
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			url := storagetest.Prefix(s.URL)
			first, second, third := machine(t, url, s.Env()), machine(t, url, s.Env()), machine(t, url, s.Env())
			a, b := first.train("8"), second.train("8")
			for _, tr := range []*training{a, b} {
				tr.l.awaits(tr, 1)
			}
			third.within(time.Minute, "both are listed", func() bool { return len(third.list()) == 2 })
			mnt := third.mount()
			ended := make(chan struct{})
			looked := third.looksOn(mnt, ended, a, b)
			for _, tr := range []*training{a, b} {
				if stderr, err := tr.wait(); err != nil || !tr.done {
					t.Fatalf("%v\n%s", err, stderr)
				}
			}
			for _, tr := range []*training{a, b} {
				third.within(time.Minute, "the last commit of "+tr.id+" is mounted", func() bool {
					_, err := os.Stat(filepath.Join(mnt, "commits", tr.acks[7][:7], "train.log"))
					return err == nil
				})
				third.within(time.Minute, "the end of "+tr.id, func() bool { return third.show(tr.id).Status == "finished" })
			}
			close(ended)
			if wrong := <-looked; len(wrong) > 0 {
				t.Error(strings.Join(wrong[:min(len(wrong), 10)], "\n"))
			}
			for _, tr := range []*training{a, b} {
				third.verify(tr, "recorder", time.Now())
			}
			first.uploads()
			second.uploads()
			third.check(url)
		})
	}
}

// looksOn looks at the commits of trainings in a mount again and again, and once more when ended is closed. Then what was wrong is sent.
func (l *lab) looksOn(mnt string, ended <-chan struct{}, trainings ...*training) <-chan []string {
	done := make(chan []string, 1)
	go func() {
		var wrong []string
		most := map[*training]int{}
		for over := false; !over; {
			select {
			case <-ended:
				over = true
			case <-time.After(20 * time.Millisecond): // beside it others want the machine too
			}
			for _, tr := range trainings {
				n, err := commitsInOrder(filepath.Join(mnt, "experiments", tr.id[:7], "commits"))
				if n < most[tr] {
					err = errors.Join(err, fmt.Errorf("%d commits of %s became %d", most[tr], tr.id, n))
				}
				if most[tr] = n; err != nil {
					wrong = append(wrong, err.Error())
				}
			}
		}
		done <- wrong
	}()
	return done
}

// commitsInOrder counts the commits in a folder of a mount. They must be those of the first steps, and the newest one whole.
func commitsInOrder(dir string) (int, error) {
	seen, err := filepath.Glob(filepath.Join(dir, "*-*")) // sorted, as steps have eight digits
	if err != nil {
		return 0, err
	}
	for step, commit := range seen {
		if !strings.HasPrefix(filepath.Base(commit), fmt.Sprintf("%08d-", step)) {
			return len(seen), fmt.Errorf("a commit is there before that of step %d: %v", step, seen)
		}
	}
	if len(seen) == 0 {
		return 0, nil
	}
	log, err := os.ReadFile(filepath.Join(seen[len(seen)-1], "train.log"))
	if err == nil && !strings.HasSuffix(string(log), fmt.Sprintf("step %d\n", len(seen)-1)) {
		err = fmt.Errorf("%s: train.log ends with %.30q", seen[len(seen)-1], log[max(0, len(log)-30):])
	}
	return len(seen), err
}

// TestTortureBucket kills trainings, their recorders and uploaders at random moments, in a bad network that is gone at times.
func TestTortureBucket(t *testing.T) {
	chance := seeded(t)
	s := storagetest.StartS3(t)
	proxy, env := storagetest.StartProxy(t, s, chance.Uint64())
	url := storagetest.Prefix(s.URL)
	l, reader := machine(t, url, env), machine(t, url, s.Env())
	l.setenv("REPLICATE_EXIT_WAIT", "0.1")
	for round := range (rounds(t) + 1) / 2 {
		l.tortureBucket(reader, proxy, round, chance)
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
	reader.check(url)
}

func (l *lab) tortureBucket(reader *lab, proxy *badnet.Proxy, round int, chance *rand.Rand) {
	l.t.Helper()
	faults := []badnet.Fault{badnet.Refused, badnet.Reset, badnet.CutRequest, badnet.Lost, badnet.Cut, badnet.Error500, badnet.Error503, badnet.SlowDown}
	proxy.Set(badnet.Weather{RTT: time.Duration(chance.IntN(30)) * time.Millisecond, Rate: 0.2 * chance.Float64(), Faults: faults})
	proxy.Down(chance.IntN(3) == 0)
	tr := l.train("1000000")
	if chance.IntN(4) > 0 { // else while it starts
		l.awaits(tr, chance.IntN(8))
	}
	time.Sleep(time.Duration(chance.Int64N(int64(200 * time.Millisecond))))
	victims := map[string]int{}
	for name, pid := range map[string]int{"training": tr.cmd.Process.Pid, "recorder": tr.recorder(), "uploader": l.uploader()} {
		if pid != 0 && chance.IntN(2) == 0 {
			victims[name] = pid
		}
	}
	for _, pid := range victims {
		l.must(syscall.Kill(pid, syscall.SIGKILL))
	}
	if victims["training"] != 0 {
		_, _ = tr.wait()
	} else {
		_, before := tr.progress()
		l.awaits(tr, before+2)
		tr.stdin.Close()
		if stderr, err := tr.wait(); err != nil && tr.id != "" {
			l.t.Errorf("the training did not end well: %v\n%s", err, stderr)
		}
	}
	for name, pid := range victims {
		l.within(time.Minute, name+" is gone", func() bool { return gone(pid) })
	}
	l.within(time.Minute, "the recorder is gone", func() bool { return !l.recording(tr.id) })
	proxy.Down(false)
	l.uploads()
	l.t.Logf("round %d: %v killed, experiment %.7s, %d commits acknowledged", round, victims, tr.id, len(tr.acks))
	reader.verify(tr, "recorder", time.Now())
}

// recording reports whether some process holds the folder of a writer of an experiment.
func (l *lab) recording(id string) bool {
	l.t.Helper()
	dirs, err := filepath.Glob(l.path(".replicate", "spool", "*", "w", id+"*"))
	l.must(err)
	for _, dir := range dirs {
		lock, err := os.Open(filepath.Join(dir, "lock"))
		if err != nil {
			continue
		}
		held := syscall.Flock(int(lock.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
		lock.Close()
		if held {
			return true
		}
	}
	return false
}
