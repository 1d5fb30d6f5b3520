package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

const (
	// lookEvery is how often an uploader looks for something new. It costs two readdirs.
	lookEvery = 200 * time.Millisecond
	// retryFirst and retryLast bound the pause after an error. They double in between.
	retryFirst = 200 * time.Millisecond
	retryLast  = 30 * time.Second
	// maxBatchPacks and maxBatchRecords bound how much becomes visible at once: enough for requests to be few, and not so much that the
	// first waits long for the last.
	maxBatchPacks   = 256 << 20
	maxBatchRecords = 1 << 20
	// settle is how long after making replicate.json it is read again: another machine may have made one at the same time.
	settle = time.Second
)

// An uploader publishes what is in an outbox. Three goroutines share the work, as a large pack must keep neither a heartbeat nor a curve
// waiting: one publishes what is ready (U1 to U5), one looks after the streams and ends of writers, one sends heartbeats.
type uploader struct {
	spool *Spool
	*outbox
	store storage.Store
	far   *Repository // what is there
	repo  *Repository // and here
	pause func(ctx context.Context, d time.Duration) error

	put  map[replicate.Hash]time.Time // when this process put packs, by the store's clock
	seen map[replicate.Hash]time.Time // until when packs may be relied on

	turn  chan struct{}         // held by who sends or removes heartbeats: guards ended
	ended map[replicate.ID]bool // experiments of which no heartbeat may be sent any more
	beats map[string]time.Time  // when that of a writer was sent; of beatAll alone
	tails map[string]*tail      // of tend alone

	mu sync.Mutex // guards at
	at time.Time  // the highest that was given to a Set

	report report
}

// Upload publishes what is in the outbox and what living writers add, until nothing is left and no writer lives. What a store refuses is tried again
// for ever. If another process does so already it returns at once, with false.
func (s *Spool) Upload(ctx context.Context) (bool, error) {
	for {
		mine, err := s.uploadOnce(ctx)
		if !mine || err != nil || s.outbox.isEmpty(s) {
			return mine, s.problem("upload", s.outbox.url, err)
		}
		// Something came after the last look, and its writer may have seen the lock: go on.
	}
}

func (s *Spool) uploadOnce(ctx context.Context) (bool, error) {
	if _, err := os.Stat(s.dir); err != nil {
		return true, missingIsNil(err)
	}
	lock, err := os.OpenFile(filepath.Join(s.dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return true, err
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return false, nil
	}
	return true, s.newUploader().run(ctx)
}

func (s *Spool) newUploader() *uploader {
	store := s.remote.store.(nearby).Store
	far := newRepository(store, config{ID: s.remote.id})
	far.timing = s.remote.timing
	u := &uploader{
		spool: s, outbox: s.outbox, store: store, far: far, repo: s.remote, pause: s.pause,
		put: map[replicate.Hash]time.Time{}, seen: s.outbox.readSeen(),
		turn: make(chan struct{}, 1), ended: map[replicate.ID]bool{}, beats: map[string]time.Time{}, tails: map[string]*tail{},
	}
	if text, err := os.ReadFile(u.path(clockName)); err == nil {
		_ = u.at.UnmarshalText(text) // it begins anew
	}
	u.report.start(s)
	return u
}

// sleep waits, or returns when ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run works until nothing is left.
func (u *uploader) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var others sync.WaitGroup
	defer others.Wait()
	defer cancel()
	if err := u.repeat(ctx, "open", func() (bool, error) { return true, u.open(ctx) }); err != nil {
		return err
	}
	others.Go(func() { _ = u.repeat(ctx, "beat", func() (bool, error) { return false, u.beatAll(ctx) }) })
	others.Go(func() {
		defer u.closeTails()
		_ = u.repeat(ctx, "tend", func() (bool, error) { return false, u.tend(ctx) })
	})
	err := u.repeat(ctx, "send", func() (bool, error) {
		if err := u.publishReady(ctx); err != nil {
			return false, err
		}
		return u.isEmpty(u.spool), nil
	})
	cancel()
	others.Wait()
	if err == nil {
		u.sweep()
	}
	u.report.end()
	return err
}

// repeat calls f until it is done, with a pause in between that grows with errors. Only the end of ctx ends it before.
func (u *uploader) repeat(ctx context.Context, what string, f func() (done bool, err error)) error {
	wait := retryFirst
	for {
		done, err := f()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		u.report.note(what, err)
		if done && err == nil {
			return nil
		}
		pause := lookEvery
		if err != nil {
			pause = wait/2 + rand.N(wait)
			wait = min(2*wait, retryLast)
		} else {
			wait = retryFirst
		}
		if err := u.rest(ctx, pause); err != nil {
			return err
		}
	}
}

// rest waits, but for somebody who asks to go on.
func (u *uploader) rest(ctx context.Context, d time.Duration) error {
	asked := u.asked()
	for {
		part := min(d, lookEvery)
		if err := u.pause(ctx, part); err != nil {
			return err
		}
		if d -= part; d <= 0 || !u.asked().Equal(asked) {
			return nil
		}
	}
}

// asked is when somebody asked to go on.
func (u *uploader) asked() time.Time {
	info, err := os.Stat(u.path(wakeName))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}

// Wake asks the uploader that may be at work to try now what it would try later.
func (s *Spool) Wake() {
	if s.outbox != nil {
		_ = os.WriteFile(s.outbox.path(wakeName), nil, 0o600) // it tries again in any case
	}
}

// open makes the repository if there is none.
func (u *uploader) open(ctx context.Context) error {
	_, err := readConfig(ctx, u.store)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := makeConfig(ctx, u.store); err != nil {
		return err
	}
	if err := u.pause(ctx, settle); err != nil {
		return err
	}
	_, err = readConfig(ctx, u.store)
	return err
}

// A batch is ready files that become visible together.
type batch struct {
	names   []string
	records [][]Record // by name
}

// all yields every record.
func (b *batch) all(f func(r *Record)) {
	for _, list := range b.records {
		for i := range list {
			f(&list[i])
		}
	}
}

// needs returns every pack that the batch needs.
func (b *batch) needs() []replicate.Hash {
	var list packList
	b.all(func(r *Record) {
		if row := r.row(); row != nil {
			for _, p := range row.Packs {
				list.add(p)
			}
		}
	})
	return list.names
}

// publishReady publishes all ready files, in order.
func (u *uploader) publishReady(ctx context.Context) error {
	if err := u.settleSending(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		b, err := u.nextBatch()
		if err != nil || len(b.names) == 0 {
			return err
		}
		if err := u.publishBatch(ctx, b); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// nextBatch reads the first ready files.
func (u *uploader) nextBatch() (*batch, error) {
	names, err := u.ready("")
	if err != nil {
		return nil, err
	}
	b := &batch{}
	var packs, text int64
	for _, name := range names {
		records, size, err := u.readReady(name)
		if err != nil {
			if err := u.setAside(name, err); err != nil {
				return nil, err
			}
			continue
		}
		b.names, b.records = append(b.names, name), append(b.records, records)
		packs += u.unsentBytes(records)
		if text += size; text > maxBatchRecords || packs > maxBatchPacks {
			break
		}
	}
	return b, nil
}

// readReady reads the records of a ready file.
func (o *outbox) readReady(name string) ([]Record, int64, error) {
	text, err := os.ReadFile(o.path(readyName, name))
	if err != nil {
		return nil, 0, err
	}
	records, err := parseLines(text)
	return records, int64(len(text)), err
}

// setAside takes a ready file that cannot be read out of the way of all others. It stays on the disk.
func (u *uploader) setAside(name string, cause error) error {
	if err := os.Rename(u.path(readyName, name), u.path(readyName, ".damaged-"+name)); err != nil {
		return err
	}
	u.report.warn(fmt.Sprintf("%s is damaged and cannot be sent: %v", u.path(readyName, ".damaged-"+name), cause))
	return nil
}

// unsentBytes is the size of the packs of records that wait here.
func (o *outbox) unsentBytes(records []Record) (n int64) {
	b := batch{records: [][]Record{records}}
	for _, p := range b.needs() {
		if info, err := os.Stat(o.path(packsName, p.String())); err == nil {
			n += info.Size()
		}
	}
	return n
}

// publishBatch is U1 to U5.
func (u *uploader) publishBatch(ctx context.Context, b *batch) error {
	needs := b.needs()
	if err := u.sendPacks(ctx, needs); err != nil { // U1
		return err
	}
	if err := u.announce(ctx, b); err != nil {
		return err
	}
	for range publishTries {
		checked, err := u.store.Now(ctx) // U2
		if err != nil {
			return err
		}
		err = u.far.checkPacks(ctx, needs, u.young(needs, checked))
		if gone, ok := errors.AsType[errDoubtful](err); ok {
			return u.restore(ctx, b, gone.packs) // they are published with the next batch
		}
		if err != nil {
			return err
		}
		before := checked.Add(LandWithin)
		key, object, err := u.decideSending(b, before)
		if err != nil {
			return err
		}
		landed, err := u.store.Put(ctx, key, bytes.NewReader(object), int64(len(object))) // U3
		if err != nil {
			return err
		}
		if !landed.After(before.Add(-frontClocks)) { // U4
			u.rely(needs)
			return u.forget(b.names) // U5
		}
	}
	return replicate.Errorf(replicate.Unavailable, "records take longer than an hour to reach %s", u.url)
}

// sendPacks puts the packs that wait here. An object of a pack's name and size has its content.
func (u *uploader) sendPacks(ctx context.Context, packs []replicate.Hash) error {
	var mu sync.Mutex // guards u.put
	return parallel(ctx, putsAtOnce, len(packs), func(ctx context.Context, i int) error {
		name := packs[i]
		mu.Lock()
		_, sent := u.put[name]
		mu.Unlock()
		if sent {
			return nil
		}
		f, err := os.Open(u.path(packsName, name.String()))
		if err != nil {
			return missingIsNil(err) // it is in the storage, or doubtful
		}
		defer f.Close()
		at, err := u.sendPack(ctx, packKey(name), f)
		if err == nil && !at.IsZero() {
			mu.Lock()
			u.put[name] = at
			mu.Unlock()
		}
		return err
	})
}

func (u *uploader) sendPack(ctx context.Context, key string, f *os.File) (time.Time, error) {
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	o, err := u.store.Stat(ctx, key)
	if err == nil && o.Size == info.Size() {
		u.report.sent(info.Size())
		return time.Time{}, nil // how old it is does not matter: it is checked
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, err
	}
	body := &counted{File: f, count: u.report.sent}
	at, err := u.store.Put(ctx, key, body, info.Size())
	if err != nil {
		body.takeBack()
	}
	return at, err
}

// counted is a file that tells how much of it was read.
type counted struct {
	*os.File
	count func(n int64)
	done  int64 // counted
	at    int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.File.Read(p)
	c.at += int64(n)
	if c.at > c.done {
		c.count(c.at - c.done)
		c.done = c.at
	}
	return n, err
}

func (c *counted) Seek(offset int64, whence int) (int64, error) {
	at, err := c.File.Seek(offset, whence)
	if err == nil {
		c.at = at
	}
	return at, err
}

func (c *counted) takeBack() { c.count(-c.done) }

// young returns the packs that cannot be condemned before a record lands that was checked at some time: own ones.
func (u *uploader) young(packs []replicate.Hash, checked time.Time) map[replicate.Hash]bool {
	young := map[replicate.Hash]bool{}
	for _, p := range packs {
		if put, ok := u.put[p]; ok && checked.Before(put.Add(u.far.timing.age-LandWithin)) {
			young[p] = true
		}
	}
	return young
}

// rely notes that packs were found sound.
func (u *uploader) rely(packs []replicate.Hash) {
	if len(packs) == 0 {
		return
	}
	now := u.now()
	for _, p := range packs {
		until := now.Add(u.spool.seenFor())
		if _, own := u.put[p]; own && u.seen[p].IsZero() {
			until = now.Add(u.far.timing.age - u.far.timing.wait)
		}
		if until.After(u.seen[p]) {
			u.seen[p] = until
		}
	}
	u.saveSeen(u.seen)
}

// decideSending gives records their times, and keeps the object that they become: whoever finds it knows what may be visible.
func (u *uploader) decideSending(b *batch, before time.Time) (key string, object []byte, err error) {
	var records []Record
	b.all(func(r *Record) {
		copied := *r
		if row := copied.copyRow(); row != nil {
			row.Before = before
		} else if s := copied.Set; s != nil && s.At.Equal(undecided) {
			set := *s
			set.At = u.nextAt(before.Add(-LandWithin))
			copied.Set = &set
		}
		records = append(records, copied)
	})
	if key, object, err = encodeAll(records); err != nil {
		return "", nil, err
	}
	head, err := json.Marshal(sending{Ready: b.names, Before: before})
	if err != nil {
		return "", nil, err
	}
	return key, object, replaceDurably(u.path(sendingName), append(append(head, '\n'), object...))
}

// copyRow makes the row of a record its own, and returns it.
func (r *Record) copyRow() *Row {
	switch {
	case r.Experiment != nil:
		row := *r.Experiment
		r.Experiment = &row
	case r.Commit != nil:
		row := *r.Commit
		r.Commit = &row
	case r.Stream != nil:
		row := *r.Stream
		r.Stream = &row
	}
	return r.row()
}

// nextAt is a time for a Set: that of the store, and later than any given before.
func (u *uploader) nextAt(now time.Time) time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	if next := u.at.Add(time.Millisecond); now.Before(next) {
		now = next
	}
	u.at = now
	text, _ := now.MarshalText()
	_ = replaceFile(u.path(clockName), text) // of use if another uploader begins within the second
	return now
}

// sending is the first line of the file sending.
type sending struct {
	Ready  []string  `json:"ready"`
	Before time.Time `json:"before"`
}

// settleSending finishes what an uploader before this one was sending: if it landed in time, its ready files are done.
func (u *uploader) settleSending(ctx context.Context) error {
	text, err := os.ReadFile(u.path(sendingName))
	if err != nil {
		return missingIsNil(err)
	}
	line, object, _ := bytes.Cut(text, []byte("\n"))
	var s sending
	if json.Unmarshal(line, &s) != nil { // it was not synced yet, so nothing was sent
		return os.Remove(u.path(sendingName))
	}
	o, err := u.store.Stat(ctx, logKey(object))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return os.Remove(u.path(sendingName))
	case err != nil:
		return err
	case o.Time.After(s.Before.Add(-frontClocks)):
		return os.Remove(u.path(sendingName))
	}
	return u.forget(s.Ready)
}

// forget is U5: packs that are sent are needed here no more, but for those that a running experiment's tree is in.
func (u *uploader) forget(names []string) error {
	kept := u.treePacks()
	for _, name := range names {
		records, _, err := u.readReady(name)
		if err != nil {
			if missingIsNil(err) != nil {
				return err
			}
			continue
		}
		b := batch{records: [][]Record{records}}
		for _, p := range b.needs() {
			from := u.path(packsName, p.String())
			if kept[p] {
				err = os.Rename(from, u.path(keptName, p.String()))
			} else {
				err = os.Remove(from)
			}
			if missingIsNil(err) != nil {
				return err
			}
		}
		if err := missingIsNil(os.Remove(u.path(readyName, name))); err != nil {
			return err
		}
	}
	u.dropKept(kept)
	if err := syncPath(u.path(readyName)); err != nil {
		return err
	}
	return missingIsNil(os.Remove(u.path(sendingName)))
}

// treePacks returns the packs in which the newest trees of experiments that go on lie.
func (u *uploader) treePacks() map[replicate.Hash]bool {
	packs := map[replicate.Hash]bool{}
	entries, _ := os.ReadDir(u.path(headName)) // no folder: none
	for _, e := range entries {
		st, err := u.standing(replicate.ID(e.Name()))
		if err != nil {
			continue
		}
		row := &st.Experiment.Row
		if st.Newest != nil {
			row = &st.Newest.Row
		}
		for _, ref := range row.Tree {
			packs[ref.Pack] = true
		}
	}
	return packs
}

// dropKept removes kept packs that no tree needs.
func (u *uploader) dropKept(kept map[replicate.Hash]bool) {
	entries, _ := os.ReadDir(u.path(keptName)) // no folder: none
	for _, e := range entries {
		if p, err := replicate.ParseHash(e.Name()); err != nil || !kept[p] {
			_ = os.Remove(u.path(keptName, e.Name())) // the next time
		}
	}
}

// isEmpty reports whether nothing is ready and no writer is left.
func (o *outbox) isEmpty(s *Spool) bool {
	names, err := o.ready("")
	if err != nil || len(names) > 0 {
		return false
	}
	for _, name := range s.writers() {
		if state, _ := s.stateOf(name); state != elsewhere {
			return false
		}
	}
	return true
}

// sweep removes what nobody needs when nothing is left: packs of commits that never were, and what was kept for experiments that ended.
func (u *uploader) sweep() {
	var stale []string
	for _, folder := range []string{packsName, keptName, headName} {
		entries, _ := os.ReadDir(u.path(folder)) // no folder: nothing
		for _, e := range entries {
			stale = append(stale, u.path(folder, e.Name()))
		}
	}
	hidden, _ := filepath.Glob(u.path(readyName, ".[0-9]*")) // a constant pattern
	stale = append(stale, hidden...)
	if !u.isEmpty(u.spool) || len(u.spool.writers()) > 0 { // looked at after the lists: whoever began since has nothing in them
		return
	}
	for _, path := range stale {
		_ = os.Remove(path) // the next time
	}
}

// writers lists the folders of writers.
func (s *Spool) writers() []string {
	entries, _ := os.ReadDir(s.path()) // no folder: none
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}
