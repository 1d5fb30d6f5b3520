package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// ctx is that of actors, which end when their store says so.
var simContext = context.Background()

// A simView is the union of all records that a reader accepts.
type simView struct {
	rows, deletes []Record
	known         map[string]bool
}

func (v *simView) add(records []Record) {
	for _, r := range records {
		switch {
		case r.row() != nil:
			v.rows = append(v.rows, r)
		case r.Delete != nil:
			v.deletes = append(v.deletes, r)
		}
	}
}

// read syncs v.
func (a *simActor) read(v *simView) error {
	if v.known == nil {
		v.known = map[string]bool{}
	}
	var settled []string
	for batch, err := range a.repository().Sync(simContext, func(key string) bool { return v.known[key] }) {
		if err != nil {
			return err
		}
		if batch.Err != nil && !a.dead {
			a.w.failed("%s: damage: %v", a.name, batch.Err)
		}
		v.add(batch.Records)
		if batch.Settled {
			settled = append(append(settled, batch.Inputs...), batch.Key)
		}
	}
	for _, key := range settled {
		v.known[key] = true
	}
	if a.dead {
		return errSimCrash
	}
	return nil
}

// commits returns the row to read of each living commit.
func (v *simView) commits(mut string) map[replicate.ID]Record {
	living := alive(slices.Clone(v.rows), v.deletes)
	found := map[replicate.ID]Record{}
	for _, r := range living {
		if r.Commit == nil {
			continue
		}
		if old, ok := found[r.Commit.ID]; !ok || later(r, old) {
			found[r.Commit.ID] = r
		}
	}
	if mut == "oldrows" {
		for _, r := range v.rows {
			if r.Commit == nil {
				continue
			}
			if now, ok := found[r.Commit.ID]; ok && later(now, r) {
				found[r.Commit.ID] = r
			}
		}
	}
	return found
}

// stretches returns the rows of streams that none supersedes.
func (v *simView) stretches() []Record {
	return slices.DeleteFunc(effective(alive(slices.Clone(v.rows), v.deletes)), func(r Record) bool { return r.Stream == nil })
}

// covered returns how many bytes of a stream from 0 on the rows hold, counting those that use accepts.
func covered(rows []Record, key streamKey, use func(Record) bool) (n int64) {
	for again := true; again; {
		again = false
		for _, r := range rows {
			if r.Stream.key() == key && r.Stream.From <= n && r.Stream.To > n && use(r) {
				n, again = r.Stream.To, true
			}
		}
	}
	return n
}

func sortedIDs[V any](m map[replicate.ID]V) []replicate.ID { return slices.Sorted(maps.Keys(m)) }

// pack makes a pack of its own.
func (a *simActor) pack() builtPack {
	a.w.seq++
	path := filepath.Join(a.w.dir, fmt.Sprint(a.w.seq))
	f, err := os.Create(path)
	if err != nil {
		a.w.t.Fatal(err)
	}
	defer f.Close()
	var nonce [nonceSize]byte
	a.w.Read(nonce[:])
	p := newPackWriter(f, nonce)
	name, err := p.finish()
	if err != nil {
		a.w.t.Fatal(err)
	}
	return builtPack{name: name, path: path}
}

// publish publishes a commit as Writer.snapshot does: what is doubtful is stored again.
func (a *simActor) publish(c CommitRow, own []builtPack) (CommitRow, error) {
	r := a.repository()
	if a.w.mut == "staleown" {
		r.timing.age = 1000 * simAge
	}
	for {
		err := publish(simContext, r, own, c.Packs, func(before time.Time) ([]Record, error) {
			c.Before = before
			return []Record{{Commit: &c}}, nil
		})
		gone, ok := err.(errDoubtful)
		if !ok {
			return c, err
		}
		a.w.stats["stored again"]++
		own = nil
		c.Packs = slices.Clone(c.Packs)
		for i, p := range c.Packs {
			if slices.Contains(gone.packs, p) {
				again := a.pack()
				own = append(own, again)
				c.Packs[i] = again.name
			}
		}
	}
}

func (w *simWorld) writer(a *simActor) {
	for range 8 {
		v := &simView{}
		if a.read(v) != nil {
			return
		}
		own := a.pack()
		packs := []replicate.Hash{own.name}
		m := v.commits("")
		for _, id := range sortedIDs(m) {
			if w.r.Intn(2) == 0 && len(packs) < 4 {
				packs = append(packs, m[id].Commit.Packs...)
			}
		}
		slices.SortFunc(packs[1:], func(a, b replicate.Hash) int { return slices.Compare(a[:], b[:]) })
		c := CommitRow{Commit: replicate.Commit{ID: w.newID(), Experiment: replicate.ID(strings.Repeat("e", 32))}}
		c.Packs = slices.Compact(packs)
		row, err := a.publish(c, []builtPack{own})
		if a.dead {
			return
		}
		if err == nil {
			w.acked[row.ID] = row.Packs
			w.stats["acknowledged"]++
		}
	}
}

// simPiece is what a stream is appended at a time: too much for a record.
const simPiece = maxInlineFrame + 100

// streamer appends to a stream, publishes and seals it. A second process publishes and seals copies of what the first has on its disk, in parts the
// same ranges.
func (w *simWorld) streamer(a *simActor) {
	experiment, writer := w.newID(), "00000000000000aa"
	key := streamKey{experiment, OutputStream, writer}
	w.points[key] = 0
	st := a.openStreams(experiment, writer)
	defer st.close()
	data := make([]byte, simPiece)
	for range 8 {
		w.Read(data)
		if err := st.list[1].append(data); err != nil {
			w.t.Fatal(err)
		}
		if st.flush(simContext) == nil {
			w.points[key] = st.list[1].published.Position
		}
		if a.dead {
			return
		}
		if w.r.Intn(3) == 0 {
			if a.takeOver(st); a.dead {
				return
			}
		}
		if w.r.Intn(3) == 0 && st.seal(simContext) == nil {
			w.stats["sealed"]++
		}
	}
}

func (a *simActor) openStreams(experiment replicate.ID, writer string) *streams {
	a.w.seq++
	dir := filepath.Join(a.w.dir, fmt.Sprint("w", a.w.seq))
	if err := os.MkdirAll(filepath.Join(dir, buildName), 0o700); err != nil {
		a.w.t.Fatal(err)
	}
	r := a.repository()
	if a.w.mut == "staleown" {
		r.timing.age = 1000 * simAge
	}
	st, err := openStreams(&Spool{repository: r, dir: dir, random: a.w, now: time.Now}, experiment, writer, dir)
	if err != nil {
		a.w.t.Fatal(err)
	}
	return st
}

// takeOver publishes and seals a copy, from the beginning, as one does who found an old or no mark.
func (a *simActor) takeOver(st *streams) {
	copied := a.openStreams(st.experiment, st.writer)
	defer copied.close()
	whole := make([]byte, st.list[1].size)
	if _, err := st.list[1].file.ReadAt(whole, 0); err != nil {
		a.w.t.Fatal(err)
	}
	if err := copied.list[1].append(whole); err != nil {
		a.w.t.Fatal(err)
	}
	if copied.finish(simContext) == nil {
		a.w.stats["taken over"]++
	}
}

func (w *simWorld) merger(a *simActor) {
	for range 30 {
		g := w.r.Intn(3)
		prefix := logPrefix
		if g > 0 {
			prefix = generationPrefix(g)
		}
		r := a.repository()
		objects, err := r.list(simContext, prefix)
		if err != nil {
			return
		}
		if len(objects) < 2 {
			continue
		}
		w.r.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
		m := merger{repository: r, generation: g, limit: []int{600, MaxObject}[w.r.Intn(2)]}
		err = m.merge(simContext, objects[:2+w.r.Intn(len(objects)-1)])
		if a.dead {
			return
		}
		if errors.Is(err, fs.ErrNotExist) {
			continue // somebody has merged the output already
		}
		if err != nil {
			w.failed("merge: %v", err)
		}
		for i := range m.records {
			if m.late[m.records[i].Hash] {
				w.stats["believed"]++
				w.accept(m.records[i])
			}
		}
		w.stats["merged"]++
	}
}

// accept notes that somebody relies on a row from now on.
func (w *simWorld) accept(r Record) {
	if r.Commit == nil {
		return
	}
	for _, records := range w.records {
		for _, d := range records {
			if d.Delete != nil && d.Delete.ID == r.Commit.ID && d.Delete.Kills(r.Commit.Row) {
				return
			}
		}
	}
	w.seen[r.Commit.ID] = r.Commit.Packs
}

// reader syncs again and again: reader0 from nothing, reader1 what is new.
func (w *simWorld) reader(a *simActor) {
	v := &simView{}
	for range 12 {
		want := map[replicate.ID]int{}
		for id := range w.acked {
			if !w.gone[id] {
				want[id] = w.delreq[id]
			}
		}
		points := maps.Clone(w.points)
		if a.name == "reader0" {
			v = &simView{}
		}
		if a.read(v) != nil {
			return
		}
		m := v.commits(w.mut)
		for _, id := range sortedIDs(m) {
			if w.mut == "oldrows" {
				w.seen[id] = m[id].Commit.Packs
			}
			w.accept(m[id])
		}
		if w.late > 0 {
			continue // it may miss what is new
		}
		for id, n := range want {
			if _, ok := m[id]; !ok && w.delreq[id] == n {
				w.failed("reader missed commit: %s", id.Short())
			}
		}
		stretches := v.stretches()
		for key, n := range points {
			if got := covered(stretches, key, func(Record) bool { return true }); got < n {
				w.failed("reader missed bytes: %s has %d of %d", key.experiment.Short(), got, n)
			}
		}
	}
}

func (w *simWorld) deleter(a *simActor) {
	for range 14 {
		v := &simView{}
		if a.read(v) != nil {
			return
		}
		m := v.commits("")
		for _, id := range sortedIDs(m) {
			if w.r.Intn(3) > 0 {
				continue
			}
			w.gone[id] = true
			w.delreq[id]++
			r := a.repository()
			at, err := r.store.Now(simContext)
			if err != nil {
				return
			}
			if least := m[id].Commit.Before.Add(-LandWithin + time.Millisecond); least.After(at) {
				at = least
			}
			record, err := Record{Delete: &Delete{ID: id, At: at}}.Encode()
			if err != nil {
				w.t.Fatal(err)
			}
			if r.Append(simContext, record) != nil {
				return
			}
			break
		}
	}
}

func (w *simWorld) undeleter(a *simActor) {
	for range 10 {
		reqs := maps.Clone(w.delreq)
		v := &simView{}
		if a.read(v) != nil {
			return
		}
		alive := v.commits("")
		at := map[replicate.ID]time.Time{}
		for _, d := range v.deletes {
			if d.Delete.At.After(at[d.Delete.ID]) {
				at[d.Delete.ID] = d.Delete.At
			}
		}
		rows := slices.Clone(v.rows)
		slices.SortFunc(rows, func(a, b Record) int { return slices.Compare(a.Hash[:], b.Hash[:]) })
		rows = slices.DeleteFunc(rows, func(r Record) bool {
			return r.Commit == nil || alive[r.Commit.ID].Commit != nil || at[r.Commit.ID].IsZero()
		})
		if len(rows) == 0 {
			continue
		}
		row := rows[w.r.Intn(len(rows))]
		err := a.repository().Undelete(simContext, []Record{row}, at[row.Commit.ID])
		if a.dead {
			return
		}
		if id := row.Commit.ID; err == nil && w.delreq[id] == reqs[id] {
			w.gone[id] = false
			w.acked[id] = row.Commit.Packs
			delete(w.seen, id)
			w.stats["undeleted"]++
		}
	}
}

func (w *simWorld) collector(a *simActor) {
	for range 12 {
		report, err := a.repository().GC(simContext, GCOptions{Random: w})
		if a.dead {
			return
		}
		if err != nil {
			w.failed("gc: %v", err)
		}
		w.stats["deleted"] += int(report.Deleted.Count)
		w.stats["condemned"] += int(report.Condemned.Count)
		w.stats["young"] += int(report.Young.Count)
		for until := w.now + w.r.Int63n(int64(simWait/simTick)); w.now < until; {
			if a.turn() != nil {
				return
			}
		}
	}
}

// observe checks what must hold between any two operations.
func (w *simWorld) observe() {
	have := map[replicate.ID]bool{}
	var stretches, deletes []Record
	for key, records := range w.records {
		o := w.objects[key]
		for _, r := range records {
			switch {
			case r.Commit != nil:
				have[r.Commit.ID] = true
			case r.Delete != nil:
				deletes = append(deletes, r)
			case r.Stream != nil:
				late := strings.HasPrefix(key, logPrefix) && simTime(o.mod).After(r.Stream.Before)
				if !late || w.mut == "nolate" || w.mut == "nocheck" {
					stretches = append(stretches, r)
				}
			}
		}
	}
	for _, m := range []map[replicate.ID][]replicate.Hash{w.acked, w.seen} {
		for id, packs := range m {
			if w.gone[id] {
				continue
			}
			if !have[id] {
				w.failed("record lost: %s", id.Short())
			}
			for _, p := range packs {
				if _, ok := w.objects[packKey(p)]; !ok {
					w.failed("pack lost: %s of %s", p.String()[:7], id.Short())
				}
			}
		}
	}
	rows := effective(alive(stretches, deletes))
	for key, n := range w.points {
		got := covered(rows, key, func(r Record) bool {
			for _, p := range r.Stream.Packs {
				if _, ok := w.objects[packKey(p)]; !ok {
					return false
				}
			}
			return true
		})
		if got < n {
			w.failed("bytes lost: %s has %d of %d", key.experiment.Short(), got, n)
		}
	}
}
