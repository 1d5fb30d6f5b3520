package recorder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/repository"
)

// Options are what a session knows of the process around it.
type Options struct {
	StorageFlag string            // the value of -S
	Env         map[string]string // variables of this process; those that a client sends win over them
	Now         func() time.Time
	Random      io.Reader // for ids

	// Upload starts an uploader for the outboxes of a project, a process of its own that outlives this one. It is called when something is
	// to be sent and nobody does. Nil: somebody else sees to that.
	Upload func(*project.Project)
	// Opened is told the project as soon as it is known. It may be nil.
	Opened func(*project.Project)
	// Tell is told what people should know: warnings, and notes. It may be called from several goroutines and must not block.
	Tell func(Remark)
}

// A place is a storage and the project that uses it.
type place struct {
	project *project.Project
	store   storage.Store
	repo    *repository.Repository // nil as long as nobody needed to ask a storage that is not local
	spool   *repository.Spool
}

// openPlace finds the project of a directory and its storage. In a local one it makes the repository if there is none, and finishes what dead processes
// of this machine left; any other is not asked: a training needs it for nothing.
func openPlace(ctx context.Context, dir string, env environment, o Options) (*place, error) {
	p, err := project.Find(dir, project.Options{
		StorageFlag: o.StorageFlag, StorageEnv: env["REPLICATE_STORAGE"], WorkingDir: dir, Home: env["HOME"],
	})
	if err != nil {
		return nil, err
	}
	if o.Opened != nil {
		o.Opened(p)
	}
	store, err := storage.Open(ctx, p.StorageURL)
	if err != nil {
		return nil, err
	}
	found := &place{project: p, store: store}
	if found.away() {
		found.spool = repository.OpenOutbox(store, p.Spool())
		return found, nil
	}
	if found.repo, err = repository.Create(ctx, store); err != nil {
		return nil, err
	}
	found.spool = repository.OpenSpool(found.repo, p.Spool())
	if _, err := found.spool.Recover(ctx); err != nil {
		o.Tell(Remark{Warning: "finish what an earlier process left: " + err.Error()})
	}
	return found, nil
}

// away reports whether the storage is not a folder of this machine, so that a training does not wait for it.
func (p *place) away() bool {
	_, local := p.store.(storage.Local)
	return !local
}

// askFor is how long a storage that is not local may take to answer a question that cannot be answered here.
const askFor = 30 * time.Second

// repository opens the repository of the place, for questions about what is not on this machine. cancel must be called when they are answered.
func (p *place) repository(ctx context.Context) (repo *repository.Repository, asking context.Context, cancel context.CancelFunc, err error) {
	if !p.away() {
		return p.repo, ctx, func() {}, nil
	}
	ctx, cancel = context.WithTimeout(ctx, askFor)
	if p.repo == nil {
		if p.repo, err = repository.Open(ctx, p.store); err != nil {
			cancel()
			return nil, nil, nil, err
		}
	}
	return p.repo, ctx, cancel, nil
}

// A Session records one experiment. Its methods are called by one goroutine, after each other.
type Session struct {
	o          Options
	place      *place
	options    repository.WriterOptions
	writer     *repository.Writer
	experiment replicate.ID
	metric     *replicate.Metric
	guest      bool          // somebody else ends the experiment
	alive      bool          // it sends the heartbeat all the same
	created    time.Time     // of a run
	ahead      time.Duration // of the clock that told created
	look       *look
	points     backlog
	stopBeat   context.CancelFunc
	beats      sync.WaitGroup
	ready      chan struct{} // something is to be uploaded
	uploads    sync.Mutex    // guards started
	started    time.Time     // when an uploader was started last
	free       int64         // on the disk at the beginning
}

// begin starts what a client's init asks for: a new experiment, one that goes on, or a part in one that somebody else began.
func begin(ctx context.Context, r *request, o Options) (*Session, *started, error) {
	env := environment{}
	for _, from := range []map[string]string{o.Env, r.Env} {
		for name, value := range from {
			env[name] = value
		}
	}
	p, err := openPlace(ctx, r.Cwd, env, o)
	if err != nil {
		return nil, nil, err
	}
	s := &Session{o: o, place: p}
	b := &beginning{request: r, env: env, place: p, session: s}
	answer, err := b.begin(ctx)
	if err != nil {
		return nil, nil, err
	}
	answer.Root, answer.Storage = p.project.Root, p.store.URL()
	answer.Experiment = s.experiment
	if s.metric != nil {
		answer.Metric = []string{s.metric.Name, string(s.metric.Goal)}
	}
	s.look = startLook(s, r.Python)
	s.Keep()
	return s, answer, nil
}

// Join takes part in an experiment that somebody else began and ends. ref is its id, a prefix of it or its name; dir is where the search
// for the project starts.
func Join(ctx context.Context, ref, dir string, o Options) (*Session, error) {
	p, err := openPlace(ctx, dir, o.Env, o)
	if err != nil {
		return nil, err
	}
	s := &Session{o: o, place: p}
	found, err := p.findExperiment(ctx, ref)
	if err != nil {
		return nil, err
	}
	if status := found.row.Status; status.Final() {
		o.Tell(Remark{Warning: fmt.Sprintf("experiment %s has ended already: %s", found.row.ID.Short(), status)})
	}
	if err := s.attach(ctx, found, nil, true); err != nil {
		return nil, err
	}
	return s, nil
}

// JoinToLog is Join for points with steps alone: it reads no records where the experiment is known to run.
func JoinToLog(ctx context.Context, ref, dir string, o Options) (*Session, error) {
	id, err := replicate.ParseID(ref)
	if err != nil {
		return Join(ctx, ref, dir, o)
	}
	p, err := openPlace(ctx, dir, o.Env, o)
	if err != nil {
		return nil, err
	}
	s := &Session{o: o, place: p, experiment: id, guest: true}
	if p.away() {
		return Join(ctx, ref, dir, o)
	}
	beats, err := p.repo.Heartbeats(ctx)
	if err != nil {
		return nil, err
	}
	if _, running := beats[id]; !running {
		return Join(ctx, ref, dir, o)
	}
	s.setOptions([]string{})
	s.options.Guest = true
	s.writer, err = p.spool.Attach(ctx, id, repository.Resume{Step: replicate.NoStep}, s.options)
	return s, err
}

// attach makes the session another writer of an experiment.
func (s *Session) attach(ctx context.Context, found *standing, saved []string, guest bool) (err error) {
	s.experiment, s.metric, s.guest = found.row.ID, found.row.Metric, guest
	s.setOptions(saved)
	s.options.Guest = guest
	s.writer, err = s.place.spool.Attach(ctx, s.experiment, found.resume(), s.options)
	return err
}

// setOptions says what commits save: the paths given, all of the root for nil.
func (s *Session) setOptions(saved []string) {
	p := s.place.project
	if p.NotSaved != "" && saved == nil {
		s.o.Tell(Remark{Warning: fmt.Sprintf("files of %s are not saved: %s; a replicate.yaml in the folder of the project says what to save", p.Root, p.NotSaved)})
		saved = []string{}
	}
	s.options = repository.WriterOptions{
		Root: p.Root, Ignore: p.Config.Ignore, Paths: saved,
		Note:   func(text string) { s.o.Tell(Remark{Note: text}) },
		Opened: func() { go s.upload() }, // it connects while the first snapshot is taken
	}
}

// InRoot returns paths relative to the project root; cwd is what relative ones start from. Those outside are left out with a
// warning. Nil stays nil.
func (s *Session) InRoot(cwd string, given []string) []string {
	if given == nil {
		return nil
	}
	root := s.place.project.Root
	inside := []string{}
	for _, path := range given {
		if !filepath.IsAbs(path) {
			path = filepath.Join(cwd, path)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || !filepath.IsLocal(rel) {
			s.o.Tell(Remark{Warning: fmt.Sprintf("%s is not saved: it is outside of %s", path, root)})
			continue
		}
		inside = append(inside, rel)
	}
	return inside
}

// Log records points. It returns nothing: points that cannot be written are kept and tried again, and that is told.
func (s *Session) Log(points ...repository.Point) {
	if err := s.points.write(s.writer, points); err != nil {
		s.o.Tell(Remark{Warning: "points are kept in memory: " + err.Error()})
	}
}

// Commit snapshots the files and records a commit. A commit that depends on a change is compared with the newest commit of whoever
// takes part in the experiment.
func (s *Session) Commit(ctx context.Context, c repository.CommitRequest) (repository.CommitRow, repository.Snapshot, error) {
	s.Log()
	defer s.uploadSoon()
	if !c.IfChanged {
		return s.writer.Commit(ctx, c)
	}
	found, err := s.place.findExperiment(ctx, string(s.experiment))
	if err != nil {
		return repository.CommitRow{}, repository.Snapshot{}, err
	}
	options := s.options
	options.Guest = true
	w, err := s.place.spool.Attach(ctx, s.experiment, found.resume(), options)
	if err != nil {
		return repository.CommitRow{}, repository.Snapshot{}, err
	}
	row, snapshot, err := w.Commit(ctx, c)
	return row, snapshot, errors.Join(err, w.End(ctx, "", nil))
}

// Committed reports whether the experiment has a commit, of whoever takes part in it.
func (s *Session) Committed(ctx context.Context) (bool, error) {
	found, err := s.place.findExperiment(ctx, string(s.experiment))
	return err == nil && len(found.commits) > 0, err
}

// End ends the session, and with it the experiment unless somebody else ends it. Fields are facts that are stored with the end.
func (s *Session) End(ctx context.Context, status replicate.Status, fields map[string]json.RawMessage) error {
	defer s.startUpload(0)
	s.stop()
	s.Log()
	if fields == nil {
		fields = map[string]json.RawMessage{}
	}
	if s.look != nil {
		s.look.finish(fields)
	}
	if s.guest {
		if len(fields) > 0 {
			if err := s.writer.Set(ctx, fields); err != nil {
				s.o.Tell(warningOf(err))
			}
		}
		return errors.Join(s.points.lost(), s.writer.End(ctx, "", nil))
	}
	fields["ended"] = raw(s.o.Now().Add(-s.ahead).UTC().Format(time.RFC3339Nano))
	return errors.Join(s.points.lost(), s.writer.End(ctx, status, fields))
}

// Stop ends an experiment that the session joined.
func (s *Session) Stop(ctx context.Context, status replicate.Status, exitCode *int) error {
	s.guest = false
	fields := map[string]json.RawMessage{}
	if exitCode != nil {
		fields["exit_code"] = raw(*exitCode)
	}
	return s.End(ctx, status, fields)
}

// leave closes a session whose experiment somebody else ends or has ended.
func (s *Session) leave(ctx context.Context) error {
	s.guest = true
	return s.End(ctx, "", nil)
}

// beating reports whether the experiment may go on: nobody on this machine ended it, and it has a heartbeat. Its end takes the heartbeat away.
func (s *Session) beating(ctx context.Context) bool {
	if s.place.away() {
		return !s.writer.Over()
	}
	beats, err := s.place.repo.Heartbeats(ctx)
	_, ok := beats[s.experiment]
	return ok || err != nil
}

// endedElsewhere reports whether another process has ended the experiment.
func (s *Session) endedElsewhere(ctx context.Context) bool {
	if s.place.away() {
		return s.writer.Over()
	}
	found, err := s.place.findExperiment(ctx, string(s.experiment))
	return err == nil && found.row.Status.Final()
}

// setMetric declares the primary metric of a running experiment. The first one stays.
func (s *Session) setMetric(ctx context.Context, m replicate.Metric) error {
	switch {
	case s.metric == nil:
		s.metric = &m
		return s.writer.Set(ctx, map[string]json.RawMessage{"metric": raw([]string{m.Name, string(m.Goal)})})
	case *s.metric != m:
		s.o.Tell(Remark{Warning: fmt.Sprintf("the primary metric stays %s (%s), not %s (%s)", s.metric.Name, s.metric.Goal, m.Name, m.Goal)})
	}
	return nil
}

// Keep publishes points every half minute from now on, and says that the experiment is alive if it ends with this session.
func (s *Session) Keep() {
	ctx, cancel := context.WithCancel(context.Background())
	s.stopBeat = cancel
	s.ready = make(chan struct{}, 1)
	s.beats.Go(func() {
		tick := time.NewTicker(replicate.HeartbeatEvery)
		defer tick.Stop()
		for {
			s.upload()
			select {
			case <-ctx.Done():
				return
			case <-s.ready:
				continue
			case <-tick.C:
			}
			err := s.writer.Flush(ctx)
			if !s.guest || s.alive { // whoever ends the experiment says that it lives
				err = errors.Join(err, s.writer.Beat(ctx))
			}
			if err != nil && ctx.Err() == nil {
				s.o.Tell(warningOf(err))
			}
			s.watchUpload()
		}
	})
}

// stop ends the beats and waits for the one under way.
func (s *Session) stop() {
	if s.stopBeat != nil {
		s.stopBeat()
		s.beats.Wait()
		s.stopBeat = nil
	}
}

// raw returns v as JSON. It is for values that cannot fail to be one.
func raw(v any) json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err)
	}
	return bytes.TrimSpace(b.Bytes())
}

// User returns who acts: what `run` says in REPLICATE_USER, else what the system says.
func User(getenv func(string) string) string {
	if name := getenv("REPLICATE_USER"); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	if name := getenv("USER"); name != "" {
		return name
	}
	return fmt.Sprint(os.Getuid())
}

// hostOf returns the name of the machine: what `run` says, else what the system says.
func hostOf(env environment) string {
	if name := env["REPLICATE_HOST"]; name != "" {
		return name
	}
	name, _ := os.Hostname()
	return strings.TrimSpace(name)
}
