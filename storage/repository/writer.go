package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/replicate/replicate"
)

// WriterOptions says what a Writer records.
type WriterOptions struct {
	Root   string            // the project root: paths of a tree are relative to it
	Ignore []string          // gitignore patterns of replicate.yaml
	Paths  []string          // what commits save, relative to Root; nil: all of Root; empty: nothing
	Note   func(text string) // told about files that no rule leaves out and that cannot be saved, or are torn; may be nil
	After  time.Time         // facts that it sets count as later than this
	Guest  bool              // somebody else ends the experiment: if this process dies, Recover publishes what is left and ends nothing
	Opened func()            // called before the first snapshot, when an uploader would have something to stay for; may be nil
}

// A Writer records one experiment from one process. Its methods may be called from several goroutines.
// Nothing it returned successfully from Begin, Commit and End is lost by a crash, of the process or of the machine.
type Writer struct {
	spool   *Spool
	own     *writerDir
	o       WriterOptions
	project *project
	streams *streams
	sizes   *measurer

	turn chan struct{} // held by who takes a snapshot: guards what follows
	state
	parent  replicate.ID
	seq     int64
	closed  bool
	flushed time.Time
	flushes sync.WaitGroup
	merges  Merges
	noted   map[string]bool

	mu      sync.Mutex // guards what follows
	step    replicate.Step
	metrics replicate.Values // of the last point
	at      time.Time        // the highest of a Set record
}

// flushAfter is how long after a flush a commit begins another one.
const flushAfter = 5 * time.Second

// Begin makes a new experiment: it snapshots the code tree and publishes the experiment's row. e.ID and e.Created must be set.
func (s *Spool) Begin(ctx context.Context, e replicate.Experiment, o WriterOptions) (*Writer, Snapshot, error) {
	w, err := s.newWriter(e.ID, o)
	if err != nil {
		return nil, Snapshot{}, s.problem("begin experiment", e.ID.Short(), err)
	}
	w.step, w.tree, w.at = replicate.NoStep, &Tree{}, o.After
	t, err := w.begin(ctx, e)
	if err != nil {
		w.abandon(ctx)
		return nil, Snapshot{}, s.problem("begin experiment", e.ID.Short(), err)
	}
	return w, w.report(t), nil
}

// begin publishes the experiment, behind its first heartbeat: an experiment that is visible and has none counts as lost.
func (w *Writer) begin(ctx context.Context, e replicate.Experiment) (*taken, error) {
	if err := w.beat(ctx); err != nil {
		return nil, err
	}
	return w.snapshot(ctx, w.paths(nil), nil, e.Created,
		func(*Tree, int64) Record { return Record{Experiment: &ExperimentRow{Experiment: e}} },
		func(row Row, _ *taken) *Record { return &Record{Experiment: &ExperimentRow{Experiment: e, Row: row}} })
}

// Resume says where an experiment stands that gets another writer.
type Resume struct {
	Parent   Row            // the row that the next commit builds on: that of the newest commit, else of the experiment
	ParentID replicate.ID   // the newest commit, "" if there is none
	Seq      int64          // of the next commit
	Step     replicate.Step // the last one that was recorded, NoStep if there is none
	At       time.Time      // the highest At among the experiment's Set records

	Standing // what others on this machine should know without asking the storage
}

// Attach makes another writer of an experiment that exists: a resumed run, or one command of the shell way.
func (s *Spool) Attach(ctx context.Context, experiment replicate.ID, from Resume, o WriterOptions) (*Writer, error) {
	w, err := s.attach(ctx, experiment, from, o)
	return w, s.problem("attach to experiment", experiment.Short(), err)
}

func (s *Spool) attach(ctx context.Context, experiment replicate.ID, from Resume, o WriterOptions) (*Writer, error) {
	tree, err := s.remote.Tree(ctx, from.Parent)
	if err != nil {
		return nil, err
	}
	w, err := s.newWriter(experiment, o)
	if err != nil {
		return nil, err
	}
	if s.outbox != nil {
		s.outbox.introduce(from.Standing)
	}
	w.row, w.tree, w.parent, w.seq, w.step, w.at = from.Parent, tree, from.ParentID, from.Seq, from.Step, from.At
	if err := w.own.begun(); err != nil {
		w.abandon(ctx)
		return nil, err
	}
	if s.outbox != nil && !o.Guest {
		w.markOthers(resumedName)
	}
	return w, nil
}

func (s *Spool) newWriter(experiment replicate.ID, o WriterOptions) (*Writer, error) {
	if _, err := replicate.ParseID(string(experiment)); err != nil {
		return nil, err
	}
	root, err := filepath.EvalSymlinks(o.Root)
	if err != nil {
		return nil, err
	}
	if root, err = filepath.Abs(root); err != nil {
		return nil, err
	}
	if local := s.repository.local; local != nil && local.Dir() == root {
		return nil, replicate.Errorf(replicate.Usage, "%s is the storage and cannot be the project as well", root)
	}
	if s.outbox != nil {
		if err := s.outbox.make(root); err != nil {
			return nil, err
		}
	}
	own, err := s.newWriterDir(experiment, o.Guest)
	if err != nil {
		return nil, err
	}
	st, err := openStreams(s, experiment, own.meta.Writer, own.dir)
	if err != nil {
		return nil, errors.Join(err, own.remove())
	}
	w := &Writer{
		noted: map[string]bool{}, spool: s, own: own, o: o, streams: st, turn: make(chan struct{}, 1), flushed: s.now(),
		project: s.project(root, o.Ignore, own.dir),
		sizes:   &measurer{root: root, now: s.now, sizes: map[string]LeftOut{}},
	}
	if o.Opened != nil {
		o.Opened()
	}
	w.files = s.trusted(loadStatCache(statCachePath(root, s.repository.ID())))
	w.recipes, w.recent = map[Ref]*recipe{}, &recentChunks{}
	return w, nil
}

// project says where snapshots are taken of. The spool, and with it a local storage, is no part of it.
func (s *Spool) project(root string, ignore []string, dir string) *project {
	skip := map[fileID]bool{}
	for _, path := range []string{s.dir, filepath.Dir(s.dir)} {
		if st, err := lstat(path); err == nil {
			skip[fileID{st.device, st.inode}] = true
		}
	}
	hidden := filepath.Join(root, ".replicate")
	var early func()
	if s.outbox != nil {
		early = s.outbox.tell
	}
	var recipes *Cache
	if s.outbox != nil {
		recipes = s.outbox.recipes
	}
	return &project{
		root: root, ignore: ignore, skip: skip, build: filepath.Join(dir, buildName), repository: s.repository, random: s.random, hooked: s.hooked,
		room: s.hasRoom, recipes: recipes, early: early, leaveCarried: s.outbox != nil,
		clock: func() time.Time {
			_ = os.Mkdir(hidden, 0o700) // it is there, or nothing can be kept in it: then fileClock fails too
			t, err := fileClock(hidden)
			if err != nil {
				return time.Time{}
			}
			return t
		},
	}
}

// abandon gives up a writer that could not begin. If its experiment may be visible, Recover ends that.
func (w *Writer) abandon(ctx context.Context) {
	w.streams.close()
	if w.own.meta.Begun {
		w.own.close()
		return
	}
	if w.spool.outbox == nil {
		_ = w.spool.repository.store.Delete(context.WithoutCancel(ctx), liveKey(w.own.meta.Experiment)) // it lapses by itself
	}
	_ = w.own.remove() // Recover removes it
}

// A Snapshot says what was saved.
type Snapshot struct {
	Files   int64
	Bytes   int64
	Changed int64 // files that were read
	Added   int64 // bytes added to the storage
	LeftOut []LeftOut
	Torn    []string // files that changed while they were read, three times: they may be a mixture of two states
}

// LeftOut is a path that a snapshot did not save.
type LeftOut struct {
	Path  string `json:"path"` // with "/" at the end for a directory
	Bytes int64  `json:"bytes"`
	More  bool   `json:"more,omitempty"` // the directory is too large to be measured: Bytes is a part of it
	Why   string `json:"why"`            // ".gitignore:3", "secret", "socket", "unreadable", …

	ruled bool // by an ignore rule: it is as somebody wants it
}

// A CommitRequest is one call of commit.
type CommitRequest struct {
	Step    replicate.Step // NoStep: the previous one + 1, from 0
	Time    time.Time
	Metrics replicate.Values
	Message string
	Paths   []string          // nil: those of the writer; else only these are looked at, and everything else is the parent's
	Extra   map[string][]byte // files added to the tree that are not on disk, by path

	// IfChanged makes no commit when the tree would be the parent's: the row returned has no ID.
	IfChanged bool
}

// Log appends points to the metrics stream, in order. It does one write to a local file and never waits for anything else.
func (w *Writer) Log(points ...Point) error {
	var lines []byte
	for _, p := range points {
		p.Step = w.nextStep(p.Step)
		start := len(lines)
		lines = appendPoint(lines, p)
		if len(lines)-start > maxPoint {
			return w.spool.problem("log", "", replicate.Errorf(replicate.Usage, "metrics of more than %d bytes", maxPoint))
		}
		w.stepDone(p.Step, p.Metrics)
	}
	return w.spool.problem("log", "", w.streams.list[0].append(lines))
}

// nextStep returns the step of a point or commit for which one was given or not.
func (w *Writer) nextStep(given replicate.Step) replicate.Step {
	if given != replicate.NoStep {
		return given
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.step == replicate.NoStep {
		return 0
	}
	return w.step + 1
}

// stepDone notes a step that was recorded, and its metrics for the heartbeat.
func (w *Writer) stepDone(step replicate.Step, metrics replicate.Values) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.step = step
	if len(metrics) > 0 {
		w.metrics = metrics
	}
}

// Output appends bytes to the output stream.
func (w *Writer) Output(p []byte) error {
	return w.spool.problem("keep output", "", w.streams.list[1].append(p))
}

// Set publishes facts about the experiment, with fields as in a Set record.
func (w *Writer) Set(ctx context.Context, fields map[string]json.RawMessage) error {
	record, err := w.set(ctx, fields)
	if err == nil {
		err = w.spool.append(ctx, w.own.meta.Experiment, record)
	}
	return w.spool.problem("set", w.own.meta.Experiment.Short(), err)
}

// set makes a record that is later than all that this writer made or knows of.
func (w *Writer) set(ctx context.Context, fields map[string]json.RawMessage) (Record, error) {
	if w.spool.outbox != nil {
		return Record{Set: &Set{Experiment: w.own.meta.Experiment, At: undecided, Fields: fields}}, nil
	}
	now, err := w.spool.repository.store.Now(ctx)
	if err != nil {
		return Record{}, err
	}
	w.mu.Lock()
	if next := w.at.Add(time.Millisecond); now.Before(next) {
		now = next
	}
	w.at = now
	w.mu.Unlock()
	return Record{Set: &Set{Experiment: w.own.meta.Experiment, At: now, Fields: fields}}, nil
}

// Flush publishes what was appended to the streams, or makes it durable for who does.
func (w *Writer) Flush(ctx context.Context) error {
	if w.spool.outbox != nil {
		return w.spool.problem("keep points", "", w.streams.sync())
	}
	return w.spool.problem("publish", "", w.streams.flush(ctx))
}

// Beat writes the heartbeat.
func (w *Writer) Beat(ctx context.Context) error {
	return w.spool.problem("send the heartbeat of", w.own.meta.Experiment.Short(), w.beat(ctx))
}

func (w *Writer) beat(ctx context.Context) error {
	now := w.spool.now()
	w.mu.Lock()
	h := Heartbeat{Experiment: w.own.meta.Experiment, Writer: w.own.meta.Writer, Time: now, Step: w.step, Metrics: w.metrics}
	w.mu.Unlock()
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	_ = os.Chtimes(w.own.lock.Name(), now, now) // only a hint of when a dead writer was alive
	if w.spool.outbox != nil {
		return ReplaceFile(filepath.Join(w.own.dir, beatName), text)
	}
	_, err = w.spool.repository.store.Put(ctx, liveKey(h.Experiment), bytes.NewReader(text), int64(len(text)))
	return err
}

// End publishes the rest of the streams and the end of the experiment, removes the heartbeat and closes the writer.
// A zero status closes the writer without ending the experiment. After an error Recover does what is left.
func (w *Writer) End(ctx context.Context, status replicate.Status, fields map[string]json.RawMessage) error {
	w.turn <- struct{}{}
	defer func() { <-w.turn }()
	if w.closed {
		return nil
	}
	w.closed = true
	w.merges.Stop()
	w.flushes.Wait()
	err := w.end(ctx, status, fields)
	w.streams.close()
	if err != nil {
		w.own.close()
		return w.spool.problem("end experiment", w.own.meta.Experiment.Short(), err)
	}
	if w.spool.outbox != nil {
		w.own.close()
		return nil
	}
	_ = w.own.remove() // Recover removes it
	return nil
}

func (w *Writer) end(ctx context.Context, status replicate.Status, fields map[string]json.RawMessage) error {
	if status == "" {
		return w.finish(ctx, nil)
	}
	fields = maps.Clone(fields)
	if fields == nil {
		fields = map[string]json.RawMessage{}
	}
	setDefault(fields, "status", status)
	setDefault(fields, "ended", w.spool.now().UTC())
	record, err := w.set(ctx, fields)
	if err != nil {
		return err
	}
	if record, err = record.Encode(); err != nil {
		return err
	}
	return w.finish(ctx, &record)
}

// finish publishes the rest of the streams and then the end, or leaves both to the uploader.
func (w *Writer) finish(ctx context.Context, end *Record) error {
	if w.spool.outbox != nil {
		return w.leave(end)
	}
	if end == nil {
		return w.streams.finish(ctx)
	}
	if err := w.own.decide(end.Line); err != nil {
		return err
	}
	if err := w.streams.finish(ctx); err != nil {
		return err
	}
	store := w.spool.repository.store
	if _, err := putRecords(ctx, store, []Record{*end}); err != nil {
		return err
	}
	return store.Delete(ctx, liveKey(w.own.meta.Experiment))
}

func setDefault(fields map[string]json.RawMessage, name string, value any) {
	if fields[name] == nil {
		text, _ := json.Marshal(value) // texts and times
		fields[name] = text
	}
}
