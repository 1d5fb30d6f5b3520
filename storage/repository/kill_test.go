package repository

import (
	"bufio"
	"context"
	"crypto/rand"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/disk"
)

// killChild names, for the test binary run as a child, the project it records for ever: root and storage, one a line.
const killChild = "REPLICATE_TEST_KILL_CHILD"

// TestKill kills recording processes at random moments. What they were told of is there and whole, and they end as crashed.
func TestKill(t *testing.T) {
	if place := os.Getenv(killChild); place != "" {
		recordForever(t, place)
		return
	}
	kills := 12
	if testing.Short() {
		kills = 3
	}
	l := newLab(t, diskStore(t))
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := mrand.New(mrand.NewPCG(seed, 0))
	told := map[replicate.ID]string{}  // commit to what its file a holds
	begun := map[replicate.ID]string{} // experiment to the status it must have
	for range kills {
		c := exec.Command(os.Args[0], "-test.run", "^TestKill$", "-test.v")
		c.Env = append(os.Environ(), killChild+"="+l.root+"\n"+l.repo.local.Dir())
		c.Stderr = os.Stderr
		out, err := c.StdoutPipe()
		must(t, err)
		must(t, c.Start())
		lines := bufio.NewScanner(out)
		for n := r.IntN(40); n >= 0 && lines.Scan(); { // so many answers, then some moments more
			if told := note(lines.Text(), told, begun); told {
				n--
			}
		}
		<-time.After(time.Duration(r.IntN(3000)) * time.Microsecond)
		must(t, c.Process.Kill())
		for lines.Scan() {
			note(lines.Text(), told, begun)
		}
		c.Wait()
		l.recover()
	}
	found := l.commits()
	for id, want := range told {
		if found[id] == nil {
			t.Errorf("commit %s is lost", id.Short())
		} else if got := l.read(found[id].Row, "a"); got != want {
			t.Errorf("commit %s holds %q instead of %q", id.Short(), got, want)
		}
	}
	for _, row := range found {
		l.read(row.Row, "big")
	}
	for id, want := range begun {
		if s := l.status(id); s != want && (s != "finished" || want != "crashed") { // it may have ended, and could not say so
			t.Errorf("experiment %s is %q instead of %q", id.Short(), s, want)
		}
	}
	t.Logf("%d acknowledged commits of %d, %d experiments", len(told), len(found), len(begun))
}

// note takes a line of a child, and reports whether it was an answer.
func note(line string, told map[replicate.ID]string, begun map[replicate.ID]string) bool {
	fields := strings.Fields(line)
	switch {
	case len(fields) == 2 && fields[0] == "begun":
		begun[replicate.ID(fields[1])] = "crashed"
	case len(fields) == 2 && fields[0] == "ended":
		begun[replicate.ID(fields[1])] = "finished"
	case len(fields) == 3 && fields[0] == "commit":
		told[replicate.ID(fields[1])] = fields[2]
	default:
		return false
	}
	return true
}

// recordForever is the child.
func recordForever(t *testing.T, place string) {
	root, dir, _ := strings.Cut(place, "\n")
	store, err := disk.New(dir)
	must(t, err)
	repo, err := Open(t.Context(), store)
	must(t, err)
	spool := OpenSpool(repo, "")
	for {
		id, err := replicate.NewID(rand.Reader)
		must(t, err)
		w, _, err := spool.Begin(context.Background(), replicate.Experiment{ID: id, Created: time.Now()}, WriterOptions{Root: root})
		must(t, err)
		fmt.Println("begun", id)
		for i := range 15 {
			content := fmt.Sprint(id.Short(), "-", i)
			must(t, os.WriteFile(root+"/a", []byte(content), 0o600))
			must(t, os.WriteFile(root+"/big", randomBytes(uint64(i), 2<<20), 0o600))
			must(t, w.Log(Point{Step: replicate.Step(i)}))
			row, _, err := w.Commit(context.Background(), CommitRequest{Time: time.Now()})
			must(t, err)
			fmt.Println("commit", row.ID, content)
			must(t, w.Flush(context.Background()))
		}
		must(t, w.End(context.Background(), replicate.Finished, nil))
		fmt.Println("ended", id)
	}
}
