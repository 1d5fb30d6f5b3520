package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/storagetest"
)

// die makes a writer's process be dead: its lock is free, and it does nothing more.
func (w *Writer) die() {
	w.flushes.Wait()
	w.streams.close()
	w.own.close()
}

// status returns the last status of an experiment, "" if none is stored.
func (l *lab) status(id replicate.ID) (status string) {
	l.t.Helper()
	var at time.Time
	for _, r := range l.records() {
		if s := r.Set; s != nil && s.Experiment == id && s.Fields["status"] != nil && s.At.After(at) {
			at = s.At
			must(l.t, json.Unmarshal(s.Fields["status"], &status))
		}
	}
	return status
}

func (l *lab) recover() []replicate.ID {
	l.t.Helper()
	ended, err := l.open().Recover(l.t.Context())
	must(l.t, err)
	return ended
}

func TestRecoverEndsTheDead(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, store)
			dead, _ := l.begin(WriterOptions{Paths: []string{}})
			living, _ := l.begin(WriterOptions{Paths: []string{}})
			must(t, dead.Output([]byte("last words")))
			must(t, os.WriteFile(dead.own.dir+"/"+buildName+"/half a pack", nil, 0o600))
			dead.die()
			if ended := l.recover(); len(ended) != 1 || ended[0] != dead.own.meta.Experiment {
				t.Errorf("ended %v", ended)
			}
			if a, b := l.status(dead.own.meta.Experiment), l.status(living.own.meta.Experiment); a != "crashed" || b != "" {
				t.Errorf("the dead one is %q, the living %q", a, b)
			}
			var text bytes.Buffer
			for _, r := range l.records() {
				if r.Stream != nil {
					must(t, l.repo.Stream([]StreamRow{*r.Stream}).WriteTo(t.Context(), &text))
				}
			}
			if text.String() != "last words" {
				t.Errorf("the output is %q", text.String())
			}
			must(t, living.Log(Point{Step: 1}))
			must(t, living.End(t.Context(), replicate.Failed, map[string]json.RawMessage{"exit_code": json.RawMessage("3")}))
			if s := l.status(living.own.meta.Experiment); s != "failed" {
				t.Errorf("the living one ended as %q", s)
			}
		})
	}
}

// TestRecoverAmongSeveralWriters kills one of two writers of an experiment.
func TestRecoverAmongSeveralWriters(t *testing.T) {
	attach := func(l *lab, id replicate.ID, o WriterOptions) *Writer {
		o.Root, o.Paths = l.root, []string{}
		w, err := l.spool.Attach(t.Context(), id, Resume{Step: replicate.NoStep}, o)
		must(t, err)
		return w
	}
	tests := []struct {
		name string
		then func(l *lab, first *Writer) // what happens besides the first writer's death
		want string
	}{
		{"the other lives", func(l *lab, first *Writer) { attach(l, first.own.meta.Experiment, WriterOptions{}); first.die() }, ""},
		{"the other took over and is elsewhere", func(l *lab, first *Writer) {
			first.die()
			other := attach(l, first.own.meta.Experiment, WriterOptions{})
			must(t, other.Beat(t.Context()))
			other.streams.close()
			must(t, other.own.remove()) // as if its folder was on another machine
		}, ""},
		{"the other ended it", func(l *lab, first *Writer) {
			first.die()
			other := attach(l, first.own.meta.Experiment, WriterOptions{})
			must(t, other.Beat(t.Context()))
			must(t, other.End(t.Context(), replicate.Finished, nil))
		}, "finished"},
		{"the other is a dead guest", func(l *lab, first *Writer) {
			attach(l, first.own.meta.Experiment, WriterOptions{Guest: true}).die()
		}, ""},
		{"both died", func(l *lab, first *Writer) {
			first.die()
			attach(l, first.own.meta.Experiment, WriterOptions{}).die()
		}, "crashed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, diskStore(t))
			first, _ := l.begin(WriterOptions{Paths: []string{}})
			tt.then(l, first)
			l.recover()
			if s := l.status(first.own.meta.Experiment); s != tt.want {
				t.Errorf("the experiment is %q, want %q", s, tt.want)
			}
		})
	}
}

// TestTwoWritersOfOneExperiment lets two processes commit onto the same parent.
func TestTwoWritersOfOneExperiment(t *testing.T) {
	l := newLab(t, diskStore(t))
	writeFiles(t, l.root, "a", "1")
	one, _ := l.begin(WriterOptions{})
	parent, _ := l.commit(one, CommitRequest{})
	two, err := l.open().Attach(t.Context(), parent.Experiment, Resume{Parent: parent.Row, ParentID: parent.ID, Seq: 1, Step: parent.Step}, WriterOptions{Root: l.root})
	must(t, err)
	writeFiles(t, l.root, "a", "2")
	x, _ := l.commit(one, CommitRequest{Step: replicate.NoStep})
	writeFiles(t, l.root, "a", "3")
	y, _ := l.commit(two, CommitRequest{Step: replicate.NoStep})
	if x.Parent != parent.ID || y.Parent != parent.ID || x.Seq != 1 || y.Seq != 1 || x.Step != 1 || y.Step != 1 || x.ID == y.ID {
		t.Errorf("%+v, %+v", x.Commit, y.Commit)
	}
	if l.read(x.Row, "a") != "2" || l.read(y.Row, "a") != "3" || len(l.commits()) != 3 {
		t.Error("a commit is not what it was")
	}
}

// TestEndThatFailsIsFinishedLater lets the storage fail at the end of an experiment.
func TestEndThatFailsIsFinishedLater(t *testing.T) {
	l := newLab(t, memStore(t))
	w, _ := l.begin(WriterOptions{Paths: []string{}})
	must(t, w.Log(Point{Step: 5}))
	whole := l.repo.store
	l.repo.store = storagetest.Faulty(whole, storagetest.Fault{Op: storagetest.OpPut})
	if err := w.End(t.Context(), replicate.Interrupted, nil); replicate.KindOf(err) != replicate.Unavailable {
		t.Fatal(err)
	}
	l.repo.store = whole
	if ended := l.recover(); len(ended) != 0 {
		t.Errorf("crashed: %v", ended)
	}
	if s := l.status(w.own.meta.Experiment); s != "interrupted" {
		t.Errorf("it ended as %q", s)
	}
}

// TestPacksThatVanishAreStoredAgain loses packs that the next commit would reuse, and condemns others.
func TestPacksThatVanishAreStoredAgain(t *testing.T) {
	large := string(randomBytes(1, 20<<20))
	for _, tt := range []struct {
		name  string
		paths []string
	}{{"all", nil}, {"others are carried over", []string{"c"}}} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t, diskStore(t))
			writeFiles(t, l.root, "a", "1", "b", large, "c", "3")
			l.settle()
			w, _ := l.begin(WriterOptions{})
			row, _ := l.begun(w)
			writeFiles(t, l.root, "c", "4")
			for _, p := range row.Packs {
				must(t, l.store.Delete(t.Context(), packKey(p)))
			}
			got, _ := l.commit(w, CommitRequest{Paths: tt.paths})
			if l.read(got.Row, "a") != "1" || l.read(got.Row, "b") != large || l.read(got.Row, "c") != "4" {
				t.Error("content differs")
			}
			next, snap := l.commit(w, CommitRequest{})
			if snap.Added > 0 || next.Tree[0] != got.Tree[0] {
				t.Errorf("the next commit stored %d bytes", snap.Added)
			}
		})
	}
}

// TestLateRecordsArePublishedAgain lets a record land after its time, as when the machine slept.
func TestLateRecordsArePublishedAgain(t *testing.T) {
	l := newLab(t, memStore(t))
	writeFiles(t, l.root, "a", "1")
	w, _ := l.begin(WriterOptions{})
	writeFiles(t, l.root, "a", "2")
	slept := 0
	w.spool.repository.store = lateStore{l.store, &slept}
	row, _ := l.commit(w, CommitRequest{})
	if slept != 2 {
		t.Errorf("it was published %d times", slept)
	}
	if l.commits()[row.ID] == nil {
		t.Error("the commit is lost")
	}
}

// A lateStore takes two hours for its first record.
type lateStore struct {
	storage.Store
	puts *int
}

func (s lateStore) Put(ctx context.Context, key string, body io.ReadSeeker, n int64) (time.Time, error) {
	t, err := s.Store.Put(ctx, key, body, n)
	if strings.HasPrefix(key, logPrefix) {
		if *s.puts++; *s.puts == 1 {
			return t.Add(2 * time.Hour), err
		}
	}
	return t, err
}

func TestCancelledCommitLeavesNothing(t *testing.T) {
	l := newLab(t, diskStore(t))
	writeFiles(t, l.root, "a", string(randomBytes(1, 5<<20)))
	w, _ := l.begin(WriterOptions{})
	writeFiles(t, l.root, "a", string(randomBytes(2, 5<<20)), "b", "1")
	ctx, cancel := context.WithCancel(t.Context())
	l.spool.hooked, w.project.hooked = nil, func(string) { cancel() }
	if _, _, err := w.Commit(ctx, CommitRequest{}); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.project.hooked = nil
	if names, _ := os.ReadDir(w.project.build); len(names) > 0 {
		t.Errorf("left %v", names)
	}
	row, _ := l.commit(w, CommitRequest{})
	if l.read(row.Row, "b") != "1" {
		t.Error("the next commit is not whole")
	}
}

// TestFolderWithoutALockGoes is what a power cut can leave of a folder that was being removed.
func TestFolderWithoutALockGoes(t *testing.T) {
	store, err := storage.Open(t.Context(), "file://"+t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	repo, err := Create(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	s := OpenSpool(repo, "")
	dir := s.path("0123456789abcdef0123456789abcdef-0123456789abcdef")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, metaName), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("it is still there: %v", err)
	}
}
