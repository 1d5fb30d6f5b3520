package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/storagetest"
)

// A diary is what a recording process was told: what must be there after it died.
type diary struct {
	mu      sync.Mutex
	id      replicate.ID
	begun   bool
	commits map[replicate.ID]map[string]string // files by path
	points  []replicate.Step
	output  string
	ended   bool
}

func (d *diary) note(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// train is a training that does everything once. It stops at the first error, which only a frozen store makes.
func (l *lab) train(ctx context.Context, s *Spool, d *diary) error {
	files := map[string]string{"train.py": "print()\n", "w.bin": string(randomBytes(1, minChunked+1000))}
	save := func() {
		for name, content := range files {
			writeFiles(l.t, l.root, name, content)
		}
	}
	save()
	w, _, err := s.Begin(ctx, replicate.Experiment{ID: d.id, Created: time.Now()}, WriterOptions{Root: l.root})
	if err != nil {
		return err
	}
	d.note(func() { d.begun = true })
	for i := range replicate.Step(3) {
		for k := range replicate.Step(3) {
			if err := w.Log(Point{Step: i*10 + k, Time: time.Now(), Metrics: replicate.Values{{Name: "loss", Value: replicate.Float(1)}}}); err != nil {
				return err
			}
			d.note(func() { d.points = append(d.points, i*10+k) })
		}
		text := strings.Repeat(fmt.Sprint("output ", i, "\n"), 1000)
		if err := w.Output([]byte(text)); err != nil {
			return err
		}
		d.note(func() { d.output += text })
		files["model"] = fmt.Sprint("model ", i)
		files["w.bin"] = string(randomBytes(uint64(i), minChunked+1000))
		save()
		row, _, err := w.Commit(ctx, CommitRequest{Step: i, Time: time.Now(), Metrics: replicate.Values{{Name: "acc", Value: replicate.Int(1)}}})
		if err != nil {
			return err
		}
		d.note(func() {
			d.commits[row.ID] = map[string]string{"train.py": files["train.py"], "model": files["model"], "w.bin": files["w.bin"]}
			d.points = append(d.points, i)
		})
		if err := w.Beat(ctx); err != nil {
			return err
		}
		if i == 1 {
			if err := w.Flush(ctx); err != nil {
				return err
			}
		}
	}
	if err := w.Set(ctx, map[string]json.RawMessage{"name": json.RawMessage(`"trial"`)}); err != nil {
		return err
	}
	if err := w.End(ctx, replicate.Finished, nil); err != nil {
		return err
	}
	d.note(func() { d.ended = true })
	return nil
}

// check compares what a reader finds after Recover with a diary.
func (l *lab) check(d *diary) {
	l.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	found := l.commits()
	for id, files := range d.commits {
		row := found[id]
		if row == nil {
			l.t.Errorf("the acknowledged commit %s is lost", id.Short())
			continue
		}
		for path, want := range files {
			if l.read(row.Row, path) != want {
				l.t.Errorf("%s of commit %s differs", path, id.Short())
			}
		}
	}
	for _, row := range found {
		tree, err := l.repo.Tree(l.t.Context(), row.Row)
		must(l.t, err)
		for i := range tree.Entries {
			if tree.Entries[i].Kind == File {
				l.read(row.Row, tree.Entries[i].Path) // also those nobody was told of are whole
			}
		}
	}
	begun := false
	var statuses []string
	rows := map[StreamKind][]StreamRow{}
	for _, r := range l.records() {
		switch {
		case r.Experiment != nil:
			begun = true
		case r.Stream != nil:
			rows[r.Stream.Stream] = append(rows[r.Stream.Stream], *r.Stream)
		case r.Set != nil && r.Set.Fields["status"] != nil:
			statuses = append(statuses, string(r.Set.Fields["status"]))
		}
	}
	l.checkStreams(d, rows)
	slices.Sort(statuses)
	statuses = slices.Compact(statuses)
	switch {
	case d.begun && !begun:
		l.t.Error("the experiment is lost")
	case d.ended && !slices.Equal(statuses, []string{`"finished"`}):
		l.t.Errorf("it finished and is %q", statuses)
	case begun && len(statuses) != 1:
		l.t.Errorf("its ends are %q", statuses)
	}
	for o, err := range l.store.List(context.Background(), livePrefix, "") {
		l.t.Errorf("a heartbeat is left: %s, %v", o.Key, err)
	}
	if left, _ := filepath.Glob(l.spool.path("*")); len(left) > 0 {
		l.t.Errorf("left in the spool: %q", left)
	}
}

func (l *lab) checkStreams(d *diary, rows map[StreamKind][]StreamRow) {
	l.t.Helper()
	var steps []replicate.Step
	for p, err := range l.repo.Stream(rows[MetricsStream]).Points(context.Background()) {
		must(l.t, err)
		steps = append(steps, p.Step)
	}
	// A point may have been written and its writer not told: one more at the end.
	if n := len(d.points); len(steps) < n || len(steps) > n+1 || !slices.Equal(steps[:n], d.points) {
		l.t.Errorf("the points are %v instead of %v", steps, d.points)
	}
	var output bytes.Buffer
	must(l.t, l.repo.Stream(rows[OutputStream]).WriteTo(context.Background(), &output))
	if !strings.HasPrefix(output.String(), d.output) {
		l.t.Errorf("%d bytes of output instead of %d", output.Len(), len(d.output))
	}
}

// freeze returns the store of a process that stands still for ever at its n-th call, before or after it took effect. frozen is closed then.
func freeze(t testing.TB, s storage.Store, n int, after bool) (store storage.Store, frozen chan struct{}) {
	frozen = make(chan struct{})
	over := make(chan struct{})
	t.Cleanup(func() { close(over) })
	var once sync.Once
	stop := func(c storagetest.Call, isAfter bool) error {
		if c.Sum < n || c.Sum == n && after && !isAfter {
			return nil
		}
		once.Do(func() { close(frozen) })
		<-over
		return storagetest.ErrStopped
	}
	return storagetest.Wrap(s, storagetest.Hooks{
		Before: func(_ context.Context, c storagetest.Call) error { return stop(c, false) },
		After:  func(_ context.Context, c storagetest.Call) error { return stop(c, true) },
	}), frozen
}

// TestCrashAtEveryStep stops a training at every call of its store, as if its process was killed there, and recovers.
func TestCrashAtEveryStep(t *testing.T) {
	for name, open := range map[string]func(*testing.T) storage.Store{
		"mem": func(t *testing.T) storage.Store { return memStore(t) }, "disk": func(t *testing.T) storage.Store { return diskStore(t) },
	} {
		for _, after := range []bool{false, true} {
			reached := true
			for n := 1; reached; n++ {
				reached = false // also when the subtest is not asked for
				t.Run(fmt.Sprintf("%s/%v/%d", name, after, n), func(t *testing.T) { reached = crashAt(t, open(t), n, after) })
			}
		}
	}
}

// crashAt returns whether the training came to its n-th call.
func crashAt(t *testing.T, store storage.Store, n int, after bool) (reached bool) {
	l := newLab(t, store)
	d := &diary{id: l.id(), commits: map[replicate.ID]map[string]string{}}
	dying, frozen := freeze(t, store, n, after)
	repo, err := Open(t.Context(), store) // its calls do not count
	must(t, err)
	repo.store = dying
	if local, ok := dying.(storage.Local); ok {
		repo.local = local
	}
	spool := OpenSpool(repo, filepath.Join(l.root, ".replicate", "spool"))
	done := make(chan error, 1)
	go func() { done <- l.train(context.Background(), spool, d) }()
	select {
	case err := <-done:
		must(t, err)
	case <-frozen:
		reached = true
		locks, _ := filepath.Glob(l.spool.path("*", lockName))
		for _, lock := range locks { // a dead process has no locks
			must(t, os.Remove(lock))
			writeFiles(t, filepath.Dir(lock), lockName, "")
		}
	}
	l.spool = l.open()
	_, err = l.spool.Recover(t.Context())
	must(t, err)
	l.check(d)
	again, err := l.spool.Recover(t.Context())
	if err != nil || len(again) > 0 {
		t.Errorf("recovering again ended %v, %v", again, err)
	}
	return reached
}
