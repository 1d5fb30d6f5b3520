package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/replicate/replicate"
)

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
			u.lookForMerges(b)
			return u.forget(b.names) // U5
		}
	}
	return replicate.Errorf(replicate.Unavailable, "records take longer than an hour to reach %s", u.url)
}

// lookForMerges does what writers do elsewhere, for a batch that was published.
func (u *uploader) lookForMerges(b *batch) {
	b.all(func(r *Record) {
		if r.Commit != nil && looksForMerges(r.Commit.Seq) {
			u.merges.Look(u.far, u.spool.random)
		}
	})
}

// young returns the packs that cannot be condemned before a record lands that was checked at some time: own ones.
func (u *uploader) young(packs []replicate.Hash, checked time.Time) map[replicate.Hash]bool {
	young := map[replicate.Hash]bool{}
	for _, p := range packs {
		if put, ok := u.puts.when(p); ok && checked.Before(put.Add(u.far.timing.age-LandWithin)) {
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
		if _, own := u.puts.when(p); own && u.seen[p].IsZero() {
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
	_ = ReplaceFile(u.path(clockName), text) // of use if another uploader begins within the second
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
