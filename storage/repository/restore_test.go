package repository

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/mem"
	"github.com/replicate/replicate/storage/storagetest"
)

// condemn puts a list that condemns packs.
func (l *lab) condemn(packs ...replicate.Hash) {
	l.t.Helper()
	object, err := (&gcList{packs: packs}).encode()
	must(l.t, err)
	_, err = l.store.Put(l.t.Context(), gcPrefix+strings.Repeat("a", 32)+condemnedSuffix, bytes.NewReader(object), int64(len(object)))
	must(l.t, err)
}

// TestDoubtfulPacksAreStoredAgain condemns or deletes the packs of the first commit, when the second one needs them and is not sent yet.
func TestDoubtfulPacksAreStoredAgain(t *testing.T) {
	large := string(randomBytes(3, 3*minChunked))
	tests := []struct {
		name   string
		after  func(l *lab, packs []replicate.Hash) // after the second commit
		lost   []string
		intact []string
	}{
		{"condemned, the files have changed", func(l *lab, packs []replicate.Hash) {
			writeFiles(t, l.root, "a", "other", "large", "other")
			l.condemn(packs...)
		}, nil, []string{"a", "b", "large"}},
		{"gone, the files are still there", func(l *lab, packs []replicate.Hash) {
			for _, p := range packs {
				must(t, l.store.Delete(t.Context(), packKey(p)))
			}
		}, nil, []string{"a", "b", "large"}},
		{"gone, and one file has changed", func(l *lab, packs []replicate.Hash) {
			writeFiles(t, l.root, "a", "other")
			for _, p := range packs {
				must(t, l.store.Delete(t.Context(), packKey(p)))
			}
		}, []string{"a"}, []string{"b", "large"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			l := newOutboxLab(t, memStore(t))
			writeFiles(t, l.root, "a", "one", "large", large, "b", "1")
			eventually(t, "the files' times are older than now", func() bool {
				st, err := lstat(l.root + "/b") // the last one
				must(t, err)
				now, err := fileClock(t.TempDir())
				must(t, err)
				return st.settled(now)
			})
			w, _ := l.begin(WriterOptions{})
			must(t, w.End(t.Context(), replicate.Finished, nil))
			l.upload()
			var packs []replicate.Hash
			for _, r := range l.records() {
				if r.Experiment != nil {
					packs = append(packs, r.Experiment.Packs...)
				}
			}
			writeFiles(t, l.root, "b", "2")
			w, _ = l.begin(WriterOptions{})
			row, snap := l.commit(w, CommitRequest{})
			if snap.Changed > 1 {
				t.Errorf("%d files were read again", snap.Changed)
			}
			must(t, w.End(t.Context(), replicate.Finished, nil))
			tt.after(l, packs)
			l.upload()
			found := l.commits()[row.ID]
			if found == nil {
				t.Fatal("the commit is lost")
			}
			for _, p := range found.Packs {
				for _, old := range packs {
					if p == old {
						t.Errorf("it still needs %s", p)
					}
				}
			}
			if strings.Join(found.Lost, " ") != strings.Join(tt.lost, " ") {
				t.Errorf("lost: %q", found.Lost)
			}
			want := map[string]string{"a": "one", "large": large, "b": "2"}
			for _, path := range tt.intact {
				if l.read(found.Row, path) != want[path] {
					t.Errorf("%s differs", path)
				}
			}
			if status, _ := l.spool.Status(); (status.Warning != "") != (tt.lost != nil) {
				t.Errorf("warning: %q", status.Warning)
			}
			l.checkEmpty()
		})
	}
}

// TestOldPacksAreNotReliedOn begins an experiment when nobody has seen the packs of an earlier one for longer than a collector waits.
func TestOldPacksAreNotReliedOn(t *testing.T) {
	l := newOutboxLab(t, memStore(t))
	writeFiles(t, l.root, "a", "one")
	old := time.Now().Add(-time.Hour)
	must(t, os.Chtimes(l.root+"/a", old, old))
	eventually(t, "the file's times are older than now by the clock of files, which a snapshot asks and which is behind ours", func() bool {
		st, err := lstat(l.root + "/a")
		must(t, err)
		now, err := fileClock(t.TempDir())
		must(t, err)
		return st.settled(now)
	})
	for _, tt := range []struct {
		after   time.Duration
		changed int64
	}{{0, 1}, {24 * time.Hour, 0}, {9 * 24 * time.Hour, 1}} {
		l.spool = l.outbox(l.store)
		l.spool.now = func() time.Time { return time.Now().Add(tt.after) }
		w, snap := l.begin(WriterOptions{})
		if snap.Changed != tt.changed {
			t.Errorf("after %v %d files were read", tt.after, snap.Changed)
		}
		must(t, w.End(t.Context(), replicate.Finished, nil))
		l.upload()
	}
}

// TestUploadAfterSleep has a store whose clock jumps between the check and the landing of records.
func TestUploadAfterSleep(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	turn := make(chan bool, 1)
	turn <- true
	store := mem.New(t.Name(), func() time.Time {
		<-turn
		defer func() { turn <- true }()
		return now
	})
	slept := 0
	sleepy := storagetest.Wrap(store, storagetest.Hooks{Before: func(_ context.Context, c storagetest.Call) error {
		<-turn
		defer func() { turn <- true }()
		if c.Op == storagetest.OpPut && strings.HasPrefix(c.Key(), logPrefix) && slept < 2 {
			slept++
			now = now.Add(2 * time.Hour)
		}
		return nil
	}})
	l := newOutboxLab(t, storage.Store(sleepy))
	d := newDiary()
	must(t, l.train(t.Context(), l.spool, d))
	l.upload()
	l.check(d)
	l.checkOnce(d)
	l.checkEmpty()
}

// TestTwoTrainingsShareAnOutbox records two experiments side by side with one uploader.
func TestTwoTrainingsShareAnOutbox(t *testing.T) {
	l := newOutboxLab(t, memStore(t))
	first, _ := l.begin(WriterOptions{})
	second, _ := l.begin(WriterOptions{})
	done := make(chan error, 1)
	go func() {
		_, err := l.outbox(l.store).Upload(context.Background())
		done <- err
	}()
	want := map[replicate.ID]bool{}
	for i := range 6 {
		w := []*Writer{first, second}[i%2]
		writeFiles(t, l.root, "f", strings.Repeat("x", i))
		row, _ := l.commit(w, CommitRequest{})
		want[row.ID] = true
	}
	must(t, first.End(t.Context(), replicate.Finished, nil))
	second.die()
	must(t, <-done)
	if found := l.commits(); len(found) != len(want) {
		t.Errorf("%d commits of %d", len(found), len(want))
	}
	if a, b := l.status(first.own.meta.Experiment), l.status(second.own.meta.Experiment); a != "finished" || b != "crashed" {
		t.Errorf("they are %q and %q", a, b)
	}
	l.checkEmpty()
}

// TestDamagedReadyFile has one ready file that cannot be read: all others are sent.
func TestDamagedReadyFile(t *testing.T) {
	l := newOutboxLab(t, memStore(t))
	w, _ := l.begin(WriterOptions{})
	lost, _ := l.commit(w, CommitRequest{})
	kept, _ := l.commit(w, CommitRequest{})
	must(t, w.End(t.Context(), replicate.Finished, nil))
	names, err := l.spool.outbox.ready("")
	must(t, err)
	must(t, os.WriteFile(l.spool.outbox.path(readyName, names[1]), []byte("{\"commit\":"), 0o600))
	l.upload()
	if found := l.commits(); found[kept.ID] == nil || found[lost.ID] != nil {
		t.Errorf("found %v", found)
	}
	if status, _ := l.spool.Status(); !strings.Contains(status.Warning, "is damaged and cannot be sent") {
		t.Errorf("warning: %q", status.Warning)
	}
	if s := l.status(w.own.meta.Experiment); s != "finished" {
		t.Errorf("it is %q", s)
	}
}

// TestOthersTakePartWithoutTheStorage attaches to an experiment that the storage does not know yet.
func TestOthersTakePartWithoutTheStorage(t *testing.T) {
	l := newOutboxLab(t, memStore(t))
	l.spool = l.outbox(unreachable(t, l.store))
	writeFiles(t, l.root, "a", "1")
	first, _ := l.begin(WriterOptions{})
	l.commit(first, CommitRequest{Step: 3})
	for i := range 3 {
		st, ok := l.outbox(unreachable(t, l.store)).Standing(first.own.meta.Experiment)
		if !ok || st.Newest == nil || st.Newest.Seq != int64(i) || st.Last != replicate.Step(3+i) {
			t.Fatalf("standing %+v, %v", st, ok)
		}
		from := Resume{Parent: st.Newest.Row, ParentID: st.Newest.ID, Seq: st.Newest.Seq + 1, Step: st.Last, Standing: st}
		other, err := l.outbox(unreachable(t, l.store)).Attach(t.Context(), first.own.meta.Experiment, from, WriterOptions{Root: l.root, Guest: true})
		must(t, err)
		row, snap := l.commit(other, CommitRequest{Step: replicate.NoStep})
		if snap.Changed > 1 || row.Step != replicate.Step(4+i) {
			t.Errorf("step %d, %d files read", row.Step, snap.Changed)
		}
		must(t, other.End(t.Context(), "", nil))
	}
	st, _ := l.spool.Standing(first.own.meta.Experiment)
	last, err := l.outbox(l.store).Attach(t.Context(), first.own.meta.Experiment, Resume{Parent: st.Newest.Row, Standing: st}, WriterOptions{Root: l.root})
	must(t, err)
	must(t, last.End(t.Context(), replicate.Finished, nil))
	if !first.Over() {
		t.Error("the first does not know that it is over")
	}
	first.die()
	l.upload()
	if s := l.status(first.own.meta.Experiment); s != "finished" {
		t.Errorf("it is %q", s)
	}
	if n := len(l.commits()); n != 4 {
		t.Errorf("%d commits", n)
	}
	l.checkEmpty()
}
