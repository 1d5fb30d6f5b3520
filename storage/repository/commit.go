package repository

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// Commit snapshots the files and publishes a commit. When it returned, the commit and every point logged before it are durable.
func (w *Writer) Commit(ctx context.Context, c CommitRequest) (CommitRow, Snapshot, error) {
	select {
	case w.turn <- struct{}{}:
		defer func() { <-w.turn }()
	case <-ctx.Done():
		return CommitRow{}, Snapshot{}, w.spool.problem("commit", "", ctx.Err())
	}
	row, t, err := w.commit(ctx, c)
	if err != nil {
		return CommitRow{}, Snapshot{}, w.spool.problem("commit", "", err)
	}
	w.flushSoon(ctx)
	if row.ID != "" && looksForMerges(row.Seq) && w.spool.outbox == nil {
		w.merges.Look(w.spool.repository, w.spool.random)
	}
	return row, w.report(t), nil
}

func (w *Writer) commit(ctx context.Context, c CommitRequest) (CommitRow, *taken, error) {
	if w.closed {
		return CommitRow{}, nil, replicate.Errorf(replicate.Usage, "the experiment has ended")
	}
	id, err := replicate.NewID(w.spool.random)
	if err != nil {
		return CommitRow{}, nil, err
	}
	synced := make(chan error, 1)
	go func() { synced <- w.streams.sync() }()
	row := CommitRow{Commit: replicate.Commit{
		ID: id, Experiment: w.own.meta.Experiment, Parent: w.parent, Seq: w.seq, Time: c.Time, Step: w.nextStep(c.Step), Metrics: c.Metrics, Message: c.Message,
	}}
	fill := func(t *Tree, added int64) Record {
		row.Files, row.Bytes, row.Added = t.Files, t.Bytes, added
		return Record{Commit: &row}
	}
	t, err := w.snapshot(ctx, w.paths(c.Paths), c.Extra, c.Time, fill, func(r Row, t *taken) *Record {
		if c.IfChanged && t.same {
			return nil
		}
		row.Row = r
		record := fill(t.tree, t.added)
		return &record
	})
	unsynced := <-synced
	if err != nil {
		return CommitRow{}, nil, err
	}
	if c.IfChanged && t.same {
		return CommitRow{}, t, unsynced
	}
	w.parent, w.seq = id, w.seq+1
	if unsynced != nil { // the commit is there, but not as durable as was promised
		return CommitRow{}, nil, unsynced
	}
	if len(c.Metrics) > 0 {
		// The metrics are in the commit's own record: a point that cannot be written is no reason to call the commit lost.
		_ = w.Log(Point{Step: row.Step, Time: c.Time, Metrics: c.Metrics, Commit: id})
	} else {
		w.stepDone(row.Step, nil)
	}
	return row, t, nil
}

// snapshot takes a snapshot and publishes the record that record makes of it, if it makes one. What it needs that was removed from the storage
// meanwhile is stored again. note makes the record for the pack.
func (w *Writer) snapshot(ctx context.Context, paths selection, extra map[string][]byte, now time.Time,
	note func(*Tree, int64) Record, record func(Row, *taken) *Record) (*taken, error) {
	avoid := w.spool.doubtful()
	for again := false; ; again = true {
		s := &snapshot{project: w.project, parent: &w.state, paths: paths.paths, extra: extra, now: now, avoid: avoid}
		t, err := s.take(ctx, note)
		if err != nil {
			return nil, err
		}
		t.leftOut = append(t.leftOut, paths.leftOut...)
		if record(t.row, t) != nil {
			err = w.spool.publish(ctx, w.own.meta.Experiment, t.packs, t.row.Packs, func(before time.Time) ([]Record, error) {
				if err := w.own.begun(); err != nil {
					return nil, err
				}
				t.row.Before = before
				return []Record{*record(t.row, t)}, nil
			})
		}
		if err != nil {
			t.discard()
		}
		if gone, ok := errors.AsType[errDoubtful](err); ok && !again {
			for _, p := range gone.packs {
				avoid[p] = true
			}
			continue
		}
		if err != nil {
			return nil, err
		}
		w.settle(t)
		return t, nil
	}
}

// discard removes what was built and is not in the storage.
func (t *taken) discard() {
	for _, p := range t.packs {
		os.Remove(p.path)
	}
}

// settle makes a published snapshot what the next one builds on.
func (w *Writer) settle(t *taken) {
	if !slices.EqualFunc(w.files, t.files, func(a, b cachedFile) bool { return a.path == b.path && a.hash == b.hash && a.ctime == b.ctime }) {
		_ = saveStatCache(statCachePath(w.project.root, w.spool.repository.ID()), t.files) // without it the next process reads everything
	}
	w.project.recipes.putRecipes(t.recipes)
	w.state = t.state
	for _, x := range t.chunks {
		w.recent.add(x)
	}
}

// report says what was saved, and notes what could not be, each path once.
func (w *Writer) report(t *taken) Snapshot {
	for _, l := range t.leftOut {
		if !l.ruled {
			w.note(l.Path, "is not saved: "+l.Why)
		}
	}
	for _, path := range t.torn {
		w.note(path, "changed while it was read: what is saved may be a mixture")
	}
	return Snapshot{
		Files: t.tree.Files, Bytes: t.tree.Bytes, Changed: t.changed, Added: t.added, LeftOut: w.sizes.measure(t.leftOut), Torn: t.torn,
	}
}

func (w *Writer) note(path, text string) {
	text = path + " " + text
	if w.o.Note != nil && !w.noted[text] && len(w.noted) < maxNotes {
		w.noted[text] = true
		w.o.Note(text)
	}
}

// maxNotes bounds what a writer says about files, and remembers having said.
const maxNotes = 100

// flushSoon publishes the streams in the background if that was not done lately: a commit's points become visible with it, but it does not
// wait for them.
func (w *Writer) flushSoon(ctx context.Context) {
	if w.spool.outbox != nil || w.spool.now().Sub(w.flushed) < flushAfter {
		return
	}
	w.flushed = w.spool.now()
	ctx = context.WithoutCancel(ctx)
	w.flushes.Go(func() {
		_ = w.streams.flush(ctx) // the next flush says what is wrong
	})
}

// A selection is what a snapshot looks at, and the names that it cannot look at.
type selection struct {
	paths   []string
	leftOut []LeftOut
}

// paths returns what a commit looks at, given the paths of its request.
func (w *Writer) paths(request []string) selection {
	if request == nil {
		request = w.o.Paths
	}
	if request == nil {
		return selection{paths: []string{""}}
	}
	var s selection
	for _, path := range request {
		if rel, ok := w.project.relative(path); ok {
			s.paths = append(s.paths, rel)
		} else {
			s.leftOut = append(s.leftOut, LeftOut{Path: path, Why: "outside the project"})
		}
	}
	return s
}

// relative returns a path as a tree names it. Symlinks on the way are followed, the last name is not; "" is the root.
func (p *project) relative(path string) (string, bool) {
	if !filepath.IsAbs(path) {
		path = filepath.Join(p.root, path)
	}
	path = filepath.Clean(path)
	if path == p.root {
		return "", true
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	rel, err := filepath.Rel(p.root, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return "", false
	}
	if rel == "." {
		rel = ""
	}
	return rel, true
}
