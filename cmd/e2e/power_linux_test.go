package e2e

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/replicate/replicate/storage/recorder"
)

// cutsInTest is how many power cuts `make test` tries. `make torture` tries every cut with every loss.
const cutsInTest = 40

// A life is what happens to one repository on a powerDisk, and what its users were told of it.
type life struct {
	*lab
	disk    *powerDisk
	chance  *rand.Rand
	files   map[string]string // of the project now: path -> hash
	commits []savedCommit
	facts   []fact
}

// A savedCommit was acknowledged when the disk had seen so many changes.
type savedCommit struct {
	at         int
	id         string
	experiment string
	files      map[string]string
}

// A fact is true of an experiment from some change on; while is the change from which it may be.
type fact struct {
	while, at  int
	experiment string
	says       string
}

func newLife(t *testing.T, chance *rand.Rand) *life {
	disk := mountPowerDisk(t)
	l := labIn(t, filepath.Join(disk.dir, "project"))
	l.served = true
	return &life{lab: l, disk: disk, chance: chance, files: map[string]string{}}
}

// put writes a file of the project.
func (f *life) put(name string, size int) {
	f.t.Helper()
	content := make([]byte, size)
	for i := range content {
		content[i] = byte(f.chance.Uint32())
	}
	f.write(name, string(content))
	f.files[name] = fmt.Sprintf("%x", sha256.Sum256(content))
}

// A session is a recorder that a life speaks to.
type session struct {
	*recorder.Client
	life       *life
	in         io.Closer
	process    *exec.Cmd
	experiment string
}

// begin starts a recorder and an experiment.
func (f *life) begin() *session {
	f.t.Helper()
	process := f.command(binary, "record")
	in, err := process.StdinPipe()
	f.must(err)
	out, err := process.StdoutPipe()
	f.must(err)
	f.must(process.Start())
	s := &session{Client: recorder.NewClient(in, out, func(r recorder.Remark) { f.t.Log(r) }), life: f, in: in, process: process}
	s.call("hello", map[string]any{"protocol": recorder.Protocol, "pid": os.Getpid()}, nil)
	var begun struct{ Experiment string }
	s.call("init", map[string]any{"cwd": f.dir, "argv": []string{"train.py"}, "params": map[string]any{"lr": 0.1}}, &begun)
	s.experiment = begun.Experiment
	f.fact(f.disk.length(), s.experiment, "begun")
	return s
}

func (s *session) call(op string, fields map[string]any, answer any) {
	s.life.t.Helper()
	if err := s.Call(op, fields, answer); err != nil {
		s.life.t.Fatalf("%s: %v", op, err)
	}
}

// end ends the experiment, and with it the recorder.
func (s *session) end() {
	s.life.t.Helper()
	s.call("end", map[string]any{"status": "finished"}, nil)
	s.life.must(s.in.Close())
	s.life.must(s.process.Wait())
}

// commit logs a few points and commits.
func (s *session) commit(step int, paths ...string) {
	s.life.t.Helper()
	for i := range 3 {
		s.life.must(s.Post("log", map[string]any{"step": step*10 + i, "metrics": map[string]any{"loss": 1 / float64(step+i+1)}}))
	}
	var done struct{ Commit string }
	request := map[string]any{"step": step, "metrics": map[string]any{"acc": step}}
	if len(paths) > 0 {
		request["path"], request["cwd"] = paths, s.life.dir
	}
	s.call("commit", request, &done)
	s.life.saved(done.Commit, s.experiment)
}

func (f *life) saved(id, experiment string) {
	f.commits = append(f.commits, savedCommit{f.disk.length(), id, experiment, maps.Clone(f.files)})
}

func (f *life) fact(while int, experiment, says string) {
	f.facts = append(f.facts, fact{while, f.disk.length(), experiment, says})
}

// live is everything that a repository goes through once.
func (f *life) live() {
	f.t.Helper()
	f.put("train.py", 300)
	f.put("model/weights.bin", 1_500_000)
	for i := range 5 {
		f.put(fmt.Sprintf("small/%d.txt", i), 1000*i)
	}
	first := f.begin()
	first.commit(0)
	f.put("model/weights.bin", 1_500_000)
	f.put("small/1.txt", 50)
	first.commit(1)
	first.commit(2) // nothing changed: no pack
	f.put("small/2.txt", 60)
	first.commit(3, "small")
	for range 80 { // more than one piece of a stream, so that it is sealed
		f.must(first.Post("log", map[string]any{"step": 4, "metrics": map[string]any{"text": strings.Repeat("x", 60_000)}}))
	}
	before := f.disk.length()
	first.end()
	f.fact(before, first.experiment, "finished")

	second := f.begin() // what is in the stat cache is not stored again
	second.commit(0)
	f.put("model/weights.bin", 1_500_000)
	second.commit(1)
	f.must(second.process.Process.Kill())
	_ = second.process.Wait()
	f.replicate("ls") // ends it as crashed

	third := strings.TrimSpace(f.replicate("init", "--pid", strconv.Itoa(os.Getpid()), "lr=1"))
	f.fact(f.disk.length(), third, "begun")
	keeper := f.writerOf(third)
	f.setenv("REPLICATE_EXPERIMENT_ID", third)
	f.replicate("log", "step=1", "loss=0.5")
	for i := range 2 {
		f.put("small/3.txt", 70+i)
		f.saved(strings.TrimSpace(f.replicate("commit", fmt.Sprint("step=", i))), third)
	}
	before = f.disk.length()
	f.replicate("stop")
	f.fact(before, third, "finished")
	f.within(time.Minute, "the recorder sees that", func() bool { return gone(keeper) })
	f.setenv("REPLICATE_EXPERIMENT_ID", "")

	before = f.disk.length()
	f.replicate("tag", third, "paper")
	f.fact(before, third, "tagged")
	before = f.disk.length()
	f.replicate("rm", "-f", first.experiment)
	f.fact(before, first.experiment, "deleted")
}

// writerOf returns the process that records an experiment.
func (f *life) writerOf(experiment string) int {
	f.t.Helper()
	names, err := filepath.Glob(filepath.Join(f.storage(), "tmp", "w", experiment+"-*", "meta.json"))
	f.must(err)
	if len(names) != 1 {
		f.t.Fatalf("%s is recorded by %q", experiment, names)
	}
	text, err := os.ReadFile(names[0])
	f.must(err)
	var meta struct{ PID int }
	f.must(json.Unmarshal(text, &meta))
	return meta.PID
}

// TestPowerCuts lets a repository live once, and cuts the power after every change of its disk. Whatever was acknowledged by then must be
// there and whole, nothing may be broken, and all must go on: with the stat cache that is left, too.
func TestPowerCuts(t *testing.T) {
	const lanes = 2
	for lane := range lanes {
		t.Run(strconv.Itoa(lane), func(t *testing.T) {
			t.Parallel()
			chance := seeded(t)
			f := newLife(t, chance)
			before := &image{inodes: map[uint64]*inode{fuse.FUSE_ROOT_ID: newInode(syscall.S_IFDIR|0o755, time.Now())}}
			made := f.disk.length() // the project's folder
			f.live()
			changes := f.disk.changes
			cuts := everyCut(len(changes), len(losses(chance)))
			if os.Getenv("REPLICATE_TORTURE") == "" {
				cuts = someCuts(cuts, cutsInTest/lanes, chance)
			} else {
				half := len(cuts) / lanes
				cuts = cuts[lane*half:][:half]
			}
			t.Logf("%d changes of the disk, %d cuts", len(changes), len(cuts))
			done := 0
			for _, c := range cuts {
				for ; done < max(c.at, made); done++ {
					changes[done](before)
				}
				how := losses(chance)[c.how]
				f.disk.become(before.cut(how))
				t.Run(fmt.Sprintf("%d %s", c.at, how.name), func(t *testing.T) { f.wakesUp(t, c.at) })
			}
		})
	}
}

// A cut is after so many changes, with one of the losses.
type cut struct{ at, how int }

func everyCut(changes, losses int) (all []cut) {
	for at := range changes + 1 {
		for how := range losses {
			all = append(all, cut{at, how})
		}
	}
	return all
}

// someCuts chooses, and keeps the order.
func someCuts(all []cut, n int, chance *rand.Rand) []cut {
	chance.Shuffle(len(all), func(i, k int) { all[i], all[k] = all[k], all[i] })
	some := all[:n]
	slices.SortFunc(some, func(a, b cut) int { return a.at - b.at })
	return some
}

// wakesUp checks what is there after the power was cut when the disk had seen so many changes.
func (f *life) wakesUp(t *testing.T, at int) {
	l := *f.lab
	l.t, l.home = t, t.TempDir()
	l.env = append(slices.Clip(l.env), "XDG_CACHE_HOME="+filepath.Join(l.home, "cache"))
	out, stderr, code := l.try(binary, "ls", "--json")
	if code != 0 || stderr != "" {
		t.Errorf("ls: exit code %d\n%s", code, stderr)
	}
	var listed []struct {
		ID, Status string
		Tags       []string
	}
	l.must(json.Unmarshal([]byte(out), &listed))
	said := map[string]bool{}
	for _, e := range listed {
		said[e.ID+" begun"], said[e.ID+" "+e.Status], said[e.ID+" tagged"] = true, true, slices.Contains(e.Tags, "paper")
	}
	deleted := ""
	for _, fact := range slices.Backward(f.facts) { // the deletion is the last
		if fact.says == "deleted" {
			if at > fact.while {
				deleted = fact.experiment
			}
			if at >= fact.at && said[fact.experiment+" begun"] {
				t.Errorf("%s is not deleted: %+v", fact.experiment, listed)
			}
			continue
		}
		if is := said[fact.experiment+" "+fact.says]; at >= fact.at && !is && fact.experiment != deleted {
			t.Errorf("%s is not %s: %+v", fact.experiment, fact.says, listed)
		} else if at <= fact.while && is && fact.says != "begun" {
			t.Errorf("%s is %s too early: %+v", fact.experiment, fact.says, listed)
		}
	}
	var kept []savedCommit
	for _, c := range f.commits {
		if c.at <= at && c.experiment != deleted {
			kept = append(kept, c)
		}
	}
	for _, c := range kept[max(0, len(kept)-3):] { // the older ones are checked with everything
		l.holds(c)
	}
	if len(listed) > 0 {
		l.check(l.storage())
	}
	l.goesOnWith(f)
}

// holds checks that a commit has the files that were there.
func (l *lab) holds(c savedCommit) {
	l.t.Helper()
	dir := l.checkout(c.id)
	got := map[string]string{}
	l.must(filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		got[name] = fmt.Sprintf("%x", sha256.Sum256(content))
		return err
	}))
	if !maps.Equal(got, c.files) {
		l.t.Errorf("commit %s holds %v, not %v", c.id, got, c.files)
	}
}

// goesOnWith records again in the same directory, whose files are those of the moment of the cut.
func (l *lab) goesOnWith(f *life) {
	l.t.Helper()
	again := &life{lab: l, disk: f.disk, chance: rand.New(rand.NewPCG(1, 1)), files: map[string]string{}}
	l.must(filepath.WalkDir(l.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.Name() == ".replicate" {
			return filepath.SkipDir
		}
		if d.IsDir() {
			return nil
		}
		content, err := os.ReadFile(path)
		name, _ := filepath.Rel(l.dir, path)
		again.files[name] = fmt.Sprintf("%x", sha256.Sum256(content))
		return err
	}))
	s := again.begin()
	s.commit(0)
	s.end()
	l.holds(again.commits[0])
	l.check(l.storage())
	left, err := filepath.Glob(filepath.Join(l.storage(), "tmp", "w", "[^.]*", "meta.json")) // what is less than that goes away in an hour
	l.must(err)
	if len(left) > 0 {
		l.t.Errorf("left: %q", left)
	}
}
