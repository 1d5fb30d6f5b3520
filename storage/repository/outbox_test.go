package repository

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/storagetest"
)

// newOutboxLab is a lab whose writers need no storage.
func newOutboxLab(t testing.TB, store storage.Store) *lab {
	t.Helper()
	l := newLab(t, store)
	l.spool = l.outbox(store)
	return l
}

// outbox opens the outbox as another process would.
func (l *lab) outbox(store storage.Store) *Spool {
	s := OpenOutbox(store, filepath.Join(l.root, ".replicate", "spool"))
	s.pause = hurry
	return s
}

// hurry waits a hundredth of what it should, and never long. No timer is as short as what becomes of the parts of a rest: one of them in a while waits for
// the others.
func hurry(ctx context.Context, d time.Duration) error {
	if d <= newsEvery && mathrand.IntN(20) > 0 {
		runtime.Gosched()
		return ctx.Err()
	}
	return sleep(ctx, min(d/100, 5*time.Millisecond))
}

// upload publishes what is in the outbox.
func (l *lab) upload() {
	l.t.Helper()
	if mine, err := l.outbox(l.store).Upload(l.t.Context()); err != nil || !mine {
		l.t.Fatal(mine, err)
	}
}

// unreachable is a store of which nothing may be asked.
func unreachable(t testing.TB, s storage.Store) storage.Store {
	return storagetest.Wrap(s, storagetest.Hooks{Before: func(_ context.Context, c storagetest.Call) error {
		t.Errorf("the storage was asked to %s %s", c.Op, c.Key())
		return storagetest.ErrFault
	}})
}

// TestTrainingNeedsNoStorage trains with a store that must not be called, and uploads afterwards.
func TestTrainingNeedsNoStorage(t *testing.T) {
	l := newOutboxLab(t, memStore(t))
	d := newDiary()
	must(t, l.train(t.Context(), l.outbox(unreachable(t, l.store)), d))
	if found := l.commits(); len(found) > 0 {
		t.Errorf("%d commits are visible already", len(found))
	}
	if w := l.spool.Waiting(); w.Commits != 3 || w.Done() || w.Bytes == 0 || w.Ended != 1 || !l.spool.Idle() {
		t.Errorf("waiting: %+v", w)
	}
	l.upload()
	l.check(d)
	l.checkEmpty()
}

// TestUploadEndsWithoutDeletePermission: a heartbeat that may not be removed keeps nothing waiting, and is told of.
func TestUploadEndsWithoutDeletePermission(t *testing.T) {
	denied := replicate.Errorf(replicate.Permission, "permission denied: s3:DeleteObject")
	store := memStore(t)
	l := newOutboxLab(t, storagetest.Faulty(store, storagetest.Fault{Op: storagetest.OpDelete, Err: denied}))
	d := newDiary()
	must(t, l.train(t.Context(), l.spool, d))
	l.upload()
	l.check(d)
	l.checkEmpty()
	status, _ := l.spool.Status()
	if status.Obstacle != nil || !strings.Contains(status.Warning, "s3:DeleteObject") {
		t.Errorf("%+v", status)
	}
}

func newDiary() *diary {
	id, err := replicate.NewID(rand.Reader)
	if err != nil {
		panic(err)
	}
	return &diary{id: id, commits: map[replicate.ID]map[string]string{}}
}

// checkEmpty reports what is left in the outbox.
func (l *lab) checkEmpty() {
	l.t.Helper()
	for _, pattern := range []string{packsName + "/*", keptName + "/*", readyName + "/*", headName + "/*", sendingName} {
		if left, _ := filepath.Glob(filepath.Join(l.spool.dir, pattern)); len(left) > 0 {
			l.t.Errorf("left in the outbox: %q", left)
		}
	}
	if w := l.spool.Waiting(); w != (Waiting{}) {
		l.t.Errorf("waiting: %+v", w)
	}
}

// TestUploadSurvivesKillAtEveryStep kills the uploader at every call of the store, before and after it took effect.
func TestUploadSurvivesKillAtEveryStep(t *testing.T) {
	calls := 1
	for n := 1; n <= calls; n++ {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d/%v", n, after), func(t *testing.T) {
				l, d := newOutboxLab(t, memStore(t)), newDiary()
				must(t, l.train(t.Context(), l.spool, d))
				made := l.uploadUntil(&storagetest.Stop{N: n, After: after})
				calls = max(calls, made)
				l.upload()
				l.check(d)
				l.checkEmpty()
				l.checkOnce(d)
			})
		}
	}
}

// uploadUntil uploads with an uploader that dies, and returns how many calls it made.
func (l *lab) uploadUntil(stop *storagetest.Stop) (calls int) {
	l.t.Helper()
	var made atomic.Int64
	counted := storagetest.Wrap(l.store, storagetest.Hooks{Before: func(context.Context, storagetest.Call) error {
		made.Add(1)
		return nil
	}})
	s := l.outbox(storagetest.Stopped(counted, stop))
	s.pause = func(ctx context.Context, d time.Duration) error {
		if stop.Reached() {
			return storagetest.ErrStopped // the dead try nothing again
		}
		return hurry(ctx, d)
	}
	if _, err := s.Upload(l.t.Context()); !stop.Reached() {
		must(l.t, err)
	}
	return int(made.Load()) + 1
}

// checkOnce reports commits that a reader would count twice.
func (l *lab) checkOnce(d *diary) {
	l.t.Helper()
	if n := len(l.commits()); n != len(d.commits) {
		l.t.Errorf("%d commits instead of %d", n, len(d.commits))
	}
	seqs := map[int64]bool{}
	for _, c := range l.commits() {
		seqs[c.Seq] = true
	}
	if len(seqs) != len(d.commits) {
		l.t.Errorf("numbers of commits: %v", seqs)
	}
}

// TestUploadGoesOnWhenTheStorageIsBack begins with a store that refuses everything.
func TestUploadGoesOnWhenTheStorageIsBack(t *testing.T) {
	var refused, allowed int
	turn := make(chan bool, 1)
	turn <- true
	store := memStore(t)
	l := newOutboxLab(t, store)
	away := storagetest.Wrap(store, storagetest.Hooks{Before: func(context.Context, storagetest.Call) error {
		<-turn
		defer func() { turn <- true }()
		if refused++; refused%20 != 0 && refused < 60 {
			return &replicate.Error{Kind: replicate.Unavailable, Err: errors.New("no route to host")}
		}
		allowed++
		return nil
	}})
	d := newDiary()
	must(t, l.train(t.Context(), l.spool, d))
	_, err := l.outbox(away).Upload(t.Context())
	must(t, err)
	l.check(d)
	l.checkEmpty()
	if status, running := l.spool.Status(); running || status.Obstacle != nil || status.Sent == 0 {
		t.Errorf("status: %+v", status)
	}
}

// TestUploadEndsTheDead kills a training whose storage was never reached.
func TestUploadEndsTheDead(t *testing.T) {
	l := newOutboxLab(t, memStore(t))
	w, _ := l.begin(WriterOptions{})
	l.commit(w, CommitRequest{})
	must(t, w.Log(Point{Step: 7}))
	w.die()
	writeFiles(t, l.spool.dir, packsName+"/"+strings.Repeat("ab", 32), "of a commit that died", readyName+"/.00000000000000000001-"+strings.Repeat("a", 32), "half of its record")
	l.upload()
	if s := l.status(w.own.meta.Experiment); s != "crashed" {
		t.Errorf("it is %q", s)
	}
	if n := len(l.commits()); n != 1 {
		t.Errorf("%d commits", n)
	}
	l.checkEmpty()
}

// TestUploadFollowsTheLiving publishes while a writer lives, and ends after it.
func TestUploadFollowsTheLiving(t *testing.T) {
	l := newOutboxLab(t, memStore(t))
	w, _ := l.begin(WriterOptions{})
	must(t, w.Beat(t.Context()))
	done := make(chan error, 1)
	go func() {
		_, err := l.outbox(l.store).Upload(context.Background())
		done <- err
	}()
	eventually(t, "a heartbeat", func() bool {
		_, err := l.repo.Heartbeat(t.Context(), w.own.meta.Experiment)
		return err == nil
	})
	for i := range 3 {
		writeFiles(t, l.root, "f", strings.Repeat("x", i))
		row, _ := l.commit(w, CommitRequest{})
		eventually(t, "the commit", func() bool { return l.commits()[row.ID] != nil })
	}
	if mine, err := l.outbox(l.store).Upload(t.Context()); mine || err != nil {
		t.Errorf("a second uploader: %v, %v", mine, err)
	}
	select {
	case err := <-done:
		t.Fatalf("the uploader left a living writer: %v", err)
	default:
	}
	must(t, w.End(t.Context(), replicate.Finished, nil))
	must(t, <-done)
	if s := l.status(w.own.meta.Experiment); s != "finished" {
		t.Errorf("it is %q", s)
	}
	l.checkEmpty()
}

// TestGuestsSayThatTheyLive: who begins an experiment that somebody else will end sends its heartbeat, until it leaves; who only takes part sends none.
func TestGuestsSayThatTheyLive(t *testing.T) {
	l := newOutboxLab(t, memStore(t))
	w, _ := l.begin(WriterOptions{Guest: true})
	id := w.own.meta.Experiment
	part, err := l.spool.Attach(t.Context(), id, Resume{Step: replicate.NoStep}, WriterOptions{Root: l.root, Guest: true})
	must(t, err)
	uploading := l.outbox(l.store)
	var passed atomic.Int64 // nanoseconds, for the uploader
	uploading.now = func() time.Time { return time.Now().Add(time.Duration(passed.Load())) }
	done := make(chan error, 1)
	go func() {
		_, err := uploading.Upload(context.Background())
		done <- err
	}()
	sent := func(step replicate.Step) {
		t.Helper()
		eventually(t, "a heartbeat", func() bool {
			h, err := l.repo.Heartbeat(t.Context(), id)
			return err == nil && h.Writer == w.own.meta.Writer && h.Step == step
		})
	}
	sent(replicate.NoStep)
	must(t, part.Log(Point{Step: 7}))
	must(t, w.Log(Point{Step: 3}))
	must(t, w.Beat(t.Context()))
	passed.Store(int64(replicate.HeartbeatEvery))
	sent(3)
	must(t, part.End(t.Context(), "", nil))
	must(t, w.End(t.Context(), "", nil))
	must(t, <-done)
	if s := l.status(id); s != "" {
		t.Errorf("it is %q", s)
	}
	l.checkEmpty()
}

// An eager random wants every merge, at once.
type eager struct{}

func (eager) Read(p []byte) (int, error) {
	if len(p) == 8 { // the dice
		clear(p)
		return len(p), nil
	}
	return rand.Read(p)
}

// TestUploaderMerges commits until somebody should look whether a merge is due: the uploader, as a training asks the storage for nothing.
func TestUploaderMerges(t *testing.T) {
	l := newOutboxLab(t, memStore(t))
	for i := range manyLogs {
		_, err := putRecords(t.Context(), l.store, []Record{{Set: &Set{Experiment: l.id(), At: time.Unix(int64(i), 0).UTC()}}})
		must(t, err)
	}
	l.spool = l.outbox(unreachable(t, l.store))
	l.spool.random = eager{}
	w, _ := l.begin(WriterOptions{})
	for range lookOneIn {
		l.commit(w, CommitRequest{})
	}
	uploads := l.outbox(l.store)
	uploads.random = eager{}
	done := make(chan error, 1)
	go func() {
		_, err := uploads.Upload(context.Background())
		done <- err
	}()
	eventually(t, "a merge", func() bool { return len(storagetest.Keys(t, l.store, indexPrefix, "")) > 0 })
	must(t, w.End(t.Context(), replicate.Finished, nil))
	must(t, <-done)
	if n := len(l.commits()); n != lookOneIn {
		t.Errorf("%d commits", n)
	}
}

func eventually(t testing.TB, what string, so func() bool) {
	t.Helper()
	for start := time.Now(); !so(); time.Sleep(time.Millisecond) {
		if time.Since(start) > time.Minute {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// FuzzOutboxFiles reads what stands in the small files of an outbox, as a crash or somebody else may have left it.
func FuzzOutboxFiles(f *testing.F) {
	id := replicate.ID(strings.Repeat("a", 32))
	for _, text := range []string{
		"", "{}", "\n\n", `{"experiment":{"experiment":"` + string(id) + `"},"commit":{"commit":"x"},"step":1}`,
		`{"ready":["00000000000000000001-` + string(id) + `"],"before":"2026-01-01T00:00:00Z"}` + "\n" + `{"commit":`,
		strings.Repeat("ab", 32) + " 1\n", `{"storage":"s3://b","root":"/"}`, `{"pid":1,"obstacle":{"kind":"full"}}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		l := newOutboxLab(t, memStore(t))
		w, _ := l.begin(WriterOptions{Paths: []string{}})
		must(t, w.End(t.Context(), replicate.Finished, nil))
		o := l.spool.outbox
		for _, name := range []string{headName + "/" + string(id), seenName, doubtName, sendingName, statusName, clockName, "w/" + string(id) + "-0/" + beatName} {
			writeFiles(t, l.spool.dir, name, string(text))
		}
		_, _ = o.standing(id)
		_ = l.spool.Standings()
		_ = o.readSeen()
		_ = l.spool.doubtful()
		_, _ = l.spool.Status()
		l.upload()
		if s := l.status(w.own.meta.Experiment); s != "finished" {
			t.Errorf("it is %q", s)
		}
		writeFiles(t, l.spool.dir, outboxName, string(text))
		_, _ = ReadOutbox(l.spool.dir)
		_, _ = Outboxes(filepath.Dir(l.spool.dir))
	})
}

// TestPacksAreSentWhileTheirCommitIsMade has an uploader find a pack before anything is ready that needs it.
func TestPacksAreSentWhileTheirCommitIsMade(t *testing.T) {
	l := newOutboxLab(t, memStore(t))
	own, err := l.spool.newWriterDir(newDiary().id, false)
	must(t, err)
	defer own.close()
	must(t, l.spool.outbox.make(l.root))
	u := l.spool.newUploader()
	b := newPackBuilder(filepath.Join(own.dir, buildName), rand.Reader, 0, 1)
	b.early = l.spool.outbox.tell
	p, err := b.take()
	must(t, err)
	_, err = b.addFrame(t.Context(), p, kindGroup, []byte("x"))
	must(t, err)
	packs, err := b.finish(p)
	must(t, err)
	if u.touched(newsName).IsZero() {
		t.Error("the uploader is not told of it")
	}

	must(t, u.sendEarly(t.Context()))
	if _, err := l.store.Stat(t.Context(), packKey(packs[0].name)); err != nil {
		t.Error(err)
	}
	u.store = newFounder(unreachable(t, l.store), hurry)
	must(t, u.sendEarly(t.Context()))
	must(t, l.spool.outbox.put(own.meta.Experiment, packs, nil))
	must(t, u.sendPacks(t.Context(), []replicate.Hash{packs[0].name}))
}

// TestFailedBeginningLeavesNothing has an uploader at work when the first experiment fails to begin: it asks, and puts nothing.
func TestFailedBeginningLeavesNothing(t *testing.T) {
	store := memStore(t)
	asked := make(chan struct{}, 100)
	l := newOutboxLab(t, storagetest.Wrap(store, storagetest.Hooks{Before: func(context.Context, storagetest.Call) error {
		select {
		case asked <- struct{}{}:
		default:
		}
		return nil
	}}))
	must(t, store.Delete(t.Context(), configKey))
	uploaded := make(chan error, 1)
	id, err := replicate.NewID(rand.Reader)
	must(t, err)
	ctx, stop := context.WithCancel(t.Context())
	_, _, err = l.spool.Begin(ctx, replicate.Experiment{ID: id}, WriterOptions{Root: l.root, Opened: func() {
		go func() {
			_, err := l.outbox(l.store).Upload(t.Context())
			uploaded <- err
		}()
		<-asked
		stop()
	}})
	if err == nil {
		t.Error("it began")
	}
	must(t, <-uploaded)
	if got := keys(t, store, ""); got != "" {
		t.Errorf("left: %s", got)
	}
}
