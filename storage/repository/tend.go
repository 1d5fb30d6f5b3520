package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

// flushFirst is how soon the points of a new writer are published, and flushEvery how often from then on.
const (
	flushFirst = 5 * time.Second
	flushEvery = replicate.HeartbeatEvery
)

// A writerState says what is known of a writer's folder.
type writerState int

const (
	living    writerState = iota
	dead                  // its process is gone, or has left
	elsewhere             // of another machine, as far as can be told
)

// stateOf returns the state of a writer, and what its folder says of it.
func (s *Spool) stateOf(name string) (writerState, meta) {
	own := &writerDir{dir: s.path(name)}
	lock, err := os.OpenFile(filepath.Join(own.dir, lockName), os.O_RDWR, 0)
	if err != nil {
		return elsewhere, meta{} // gone
	}
	own.lock = lock
	defer own.close()
	text, err := os.ReadFile(filepath.Join(own.dir, metaName))
	if err == nil {
		own.meta, err = parseMeta(text)
	}
	switch {
	case err != nil:
		return elsewhere, meta{}
	case unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil:
		return living, own.meta
	case s.surelyDead(own):
		return dead, own.meta
	}
	return elsewhere, own.meta
}

// A tail is what a living writer's streams are published by.
type tail struct {
	*streams
	due time.Time
}

// tend publishes the streams of living writers, and finishes dead ones. What goes wrong with one keeps it from none of the others.
func (u *uploader) tend(ctx context.Context) error {
	var errs []error
	for _, name := range u.spool.writers() {
		state, m := u.spool.stateOf(name)
		var err error
		switch state {
		case living:
			err = u.flushTail(ctx, name, m)
		case dead:
			u.closeTail(name)
			err = u.finishDead(ctx, name, m)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	for name := range u.tails {
		if _, err := os.Stat(u.spool.path(name)); err != nil {
			u.closeTail(name)
		}
	}
	return errors.Join(errs...)
}

func (u *uploader) closeTail(name string) {
	if t := u.tails[name]; t != nil {
		t.close()
		delete(u.tails, name)
	}
}

func (u *uploader) closeTails() {
	for name := range u.tails {
		u.closeTail(name)
	}
}

// flushTail publishes what a living writer appended, if it is due.
func (u *uploader) flushTail(ctx context.Context, name string, m meta) error {
	t := u.tails[name]
	if t == nil {
		st, err := u.openTail(name, m)
		if err != nil {
			return err
		}
		t = &tail{st, u.now().Add(flushFirst)}
		u.tails[name] = t
	}
	if u.now().Before(t.due) || !m.Begun {
		return nil
	}
	t.due = u.now().Add(flushEvery)
	if err := t.grow(); err != nil {
		return err
	}
	return t.flush(ctx)
}

func (u *uploader) openTail(name string, m meta) (*streams, error) {
	st, err := openStreams(u.spool, m.Experiment, m.Writer, u.spool.path(name))
	if err != nil {
		return nil, err
	}
	st.repo = u.far
	return st, nil
}

// grow takes notice of what another process appended.
func (s *streams) grow() error {
	for _, st := range s.list {
		info, err := st.file.Stat()
		if err != nil {
			return err
		}
		st.mu.Lock()
		st.dirty = st.dirty || info.Size() > st.size
		st.size = info.Size()
		st.mu.Unlock()
	}
	return nil
}

// finishDead publishes what a dead writer left, when all that it had ready is published, and ends its experiment if nobody else does.
func (u *uploader) finishDead(ctx context.Context, name string, m meta) error {
	if waiting, err := u.ready(m.Experiment); err != nil || len(waiting) > 0 {
		return err
	}
	own, err := u.spool.seize(name)
	if own == nil {
		return err
	}
	if err := u.finishWriter(ctx, own); err != nil {
		own.close()
		return err
	}
	if err := own.remove(); err != nil {
		return err
	}
	u.dropHead(m.Experiment)
	return nil
}

func (u *uploader) finishWriter(ctx context.Context, own *writerDir) error {
	if !own.meta.Begun {
		return nil // nobody can know of it
	}
	if err := clearFolder(filepath.Join(own.dir, buildName)); err != nil {
		return err
	}
	st, err := u.openTail(filepath.Base(own.dir), own.meta)
	if err != nil {
		return err
	}
	defer st.close()
	if err := st.finish(ctx); err != nil {
		return err
	}
	end, err := os.ReadFile(filepath.Join(own.dir, endName))
	switch {
	case err == nil && len(end) == 0:
		return nil
	case err == nil:
		return u.publishEnd(ctx, own, end)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	return u.crash(ctx, own)
}

func clearFolder(dir string) error {
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	return os.Mkdir(dir, 0o700)
}

// publishEnd publishes the end that a writer decided on. Its time is decided first, so that it is the same whoever publishes it. If another writer goes
// on with the experiment, nothing of it is an end any more; as that is looked at last, a writer that comes later has the later time.
func (u *uploader) publishEnd(ctx context.Context, own *writerDir, line []byte) error {
	r, err := ParseRecord(bytes.TrimSuffix(line, []byte("\n")))
	if err != nil || r.Set == nil {
		return errors.Join(err, os.Rename(filepath.Join(own.dir, endName), filepath.Join(own.dir, endName+".damaged")))
	}
	if r.Set.At.Equal(undecided) {
		now, err := u.store.Now(ctx)
		if err != nil {
			return err
		}
		r.Set.At = u.nextAt(now)
		if r, err = r.Encode(); err != nil {
			return err
		}
		if err := own.decide(r.Line); err != nil {
			return err
		}
	}
	resumed := exists(own.dir, resumedName)
	if resumed {
		r = r.withoutEnd()
	}
	if len(r.Set.Fields) > 0 {
		if _, err := putRecords(ctx, u.store, []Record{r}); err != nil {
			return err
		}
	}
	if resumed {
		return nil
	}
	return u.dropBeat(ctx, own.meta)
}

// withoutEnd is a Set without what says how an experiment ended.
func (r Record) withoutEnd() Record {
	set := *r.Set
	set.Fields = maps.Clone(set.Fields)
	for _, name := range []string{"status", "ended", "exit_code", "error"} {
		delete(set.Fields, name)
	}
	return Record{Set: &set}
}

// crash ends the experiment of a writer that died as crashed, unless somebody else records it or has ended it: then the heartbeat is
// another's, or gone.
func (u *uploader) crash(ctx context.Context, own *writerDir) error {
	m := own.meta
	if m.Guest || exists(own.dir, overName) || exists(own.dir, resumedName) || u.spool.othersLive(m) {
		return nil
	}
	beat, err := u.repo.Heartbeat(ctx, m.Experiment)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case err != nil && !missing:
		return err
	case missing && exists(own.dir, aliveName), err == nil && beat.Writer != m.Writer:
		return nil
	}
	now, err := u.store.Now(ctx)
	if err != nil {
		return err
	}
	fields := map[string]json.RawMessage{}
	setDefault(fields, "status", replicate.Crashed)
	setDefault(fields, "ended", own.lastSeen().UTC())
	set := Record{Set: &Set{Experiment: m.Experiment, At: u.nextAt(now), Fields: fields}}
	if _, err := putRecords(ctx, u.store, []Record{set}); err != nil {
		return err
	}
	return u.dropBeat(ctx, m)
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// dropHead forgets where an experiment stands, if no writer of it is left here.
func (u *uploader) dropHead(experiment replicate.ID) {
	if left, _ := filepath.Glob(u.spool.path(string(experiment) + "-*")); len(left) == 0 { // of hex digits
		_ = os.Remove(u.path(headName, string(experiment))) // sweep does
	}
}

// beatAll sends the heartbeats that are due, of living writers. Who says that an experiment lives need not be who ends it: a run elsewhere is a guest's until
// its supervisor has it.
func (u *uploader) beatAll(ctx context.Context) error {
	var errs []error
	for _, name := range u.spool.writers() {
		if u.now().Sub(u.beats[name]) < replicate.HeartbeatEvery {
			continue
		}
		state, m := u.spool.stateOf(name)
		if state != living || !m.Begun || !exists(u.spool.path(name), beatName) {
			continue
		}
		if err := u.beat(ctx, name, m); err != nil {
			errs = append(errs, err)
			continue
		}
		u.beats[name] = u.now()
	}
	return errors.Join(errs...)
}

// beat sends the heartbeat of a writer, with what waits here.
func (u *uploader) beat(ctx context.Context, name string, m meta) error {
	select {
	case u.turn <- struct{}{}:
		defer func() { <-u.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	dir := u.spool.path(name)
	h, err := readBeat(filepath.Join(dir, beatName))
	if err != nil || u.ended[m.Writer] || exists(dir, overName) || exists(dir, endName) {
		return missingIsNil(err)
	}
	waiting := u.spool.Waiting()
	h.Unsent, h.Ready = waiting.Bytes, waiting.Records
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if _, err := u.store.Put(ctx, liveKey(m.Experiment), bytes.NewReader(text), int64(len(text))); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, aliveName), nil, 0o600)
}

func readBeat(path string) (h Heartbeat, err error) {
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &h)
	}
	return h, err
}

// announce sends the first heartbeat of every experiment in a batch: one that is visible and has none counts as lost.
func (u *uploader) announce(ctx context.Context, b *batch) error {
	var errs []error
	b.all(func(r *Record) {
		if r.Experiment == nil {
			return
		}
		dirs, _ := filepath.Glob(u.spool.path(string(r.Experiment.ID) + "-*")) // of hex digits
		for _, dir := range dirs {
			if state, m := u.spool.stateOf(filepath.Base(dir)); state != elsewhere && !exists(dir, aliveName) {
				errs = append(errs, u.beat(ctx, filepath.Base(dir), m))
			}
		}
	})
	return errors.Join(errs...)
}

// dropBeat removes the heartbeat of an experiment that a writer has ended. Who may not delete leaves it: readers look at the end, and it grows old.
func (u *uploader) dropBeat(ctx context.Context, m meta) error {
	select {
	case u.turn <- struct{}{}:
		defer func() { <-u.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	u.ended[m.Writer] = true
	err := u.store.Delete(ctx, liveKey(m.Experiment))
	if replicate.KindOf(err) == replicate.Permission {
		u.report.warn(fmt.Sprintf("everything of %s is sent, but its heartbeat stays: %v", m.Experiment.Short(), err))
		return nil
	}
	return err
}
