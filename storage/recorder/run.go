package recorder

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// A Run is an experiment that is a command, which another machine may carry out: whoever asks for it begins it, and whoever supervises the
// command records and ends it.
type Run struct {
	ID      replicate.ID // "" for a new one
	Created time.Time    // zero for now
	Dir     string       // where the search for the project starts
	Command []string
	User    string
	Host    string // where the command runs
	Facts   replicate.Run
	Status  replicate.Status // at the beginning, "" for running
	Ended   bool             // whoever has this session ends the experiment; else it lives on when the session dies
	Git     bool             // the project is that of whoever asked for the run, with the state of git
	Here    bool             // the command runs on this machine, which is looked at
	After   time.Time        // facts count as later than this: the clock of this machine may be behind the one that began the experiment

	// Ahead is how far the clock of this machine is before the one that began the experiment. The end is told by that one, so that a run took as long as it took.
	Ahead time.Duration
}

// BeginRun records the beginning of a run in the storage of its project, with the files of the project as its code. If the storage has an experiment
// of that id already, the one that is stored first stays.
func BeginRun(ctx context.Context, run Run, o Options) (*Session, repository.Snapshot, error) {
	s, e, err := openRun(ctx, &run, o)
	if err != nil {
		return nil, repository.Snapshot{}, err
	}
	if e.ID == "" {
		if e.ID, err = replicate.NewID(o.Random); err != nil {
			return nil, repository.Snapshot{}, err
		}
	}
	s.experiment = e.ID
	s.options.Guest = !run.Ended
	writer, snapshot, err := s.place.spool.Begin(ctx, e, s.options)
	if err != nil {
		return nil, repository.Snapshot{}, err
	}
	s.writer, s.free = writer, s.place.spool.Free()
	s.start(run)
	return s, snapshot, nil
}

// AttachRun takes part in a run that another machine began. It asks the storage for nothing: what it must know of the experiment is in run.
func AttachRun(ctx context.Context, run Run, o Options) (*Session, error) {
	s, e, err := openRun(ctx, &run, o)
	if err != nil {
		return nil, err
	}
	s.experiment = e.ID
	s.options.Guest = !run.Ended
	known := repository.Standing{Experiment: &repository.ExperimentRow{Experiment: e}, Last: replicate.NoStep}
	resume := repository.Resume{Step: replicate.NoStep, At: run.After, Standing: known}
	if s.writer, err = s.place.spool.Attach(ctx, e.ID, resume, s.options); err != nil {
		return nil, err
	}
	if err := s.writer.Beat(ctx); err != nil { // the last one may be of who began it, and that is gone
		return nil, errors.Join(err, s.writer.End(ctx, "", nil))
	}
	s.start(run)
	return s, nil
}

// openRun opens the place of a run, and says what its experiment is.
func openRun(ctx context.Context, run *Run, o Options) (*Session, replicate.Experiment, error) {
	env := environment(o.Env)
	p, err := openPlace(ctx, run.Dir, env, o)
	if err != nil {
		return nil, replicate.Experiment{}, err
	}
	s := &Session{o: o, place: p, guest: !run.Ended, metric: p.project.Config.Primary(), ahead: run.Ahead}
	s.setOptions(nil)
	s.options.After = run.After
	if run.Created.IsZero() {
		run.Created = o.Now()
	}
	b := beginning{request: &request{}, env: env, place: p, session: s}
	parent, err := b.parent(ctx)
	if err != nil {
		return nil, replicate.Experiment{}, err
	}
	return s, replicate.Experiment{
		ID: run.ID, Created: run.Created.UTC(), User: run.User, Host: run.Host, Directory: p.project.Root, Command: maskArgs(slices.Clone(run.Command)),
		Metric: s.metric, Parent: parent, Status: run.Status, Run: &run.Facts, Environment: env.captured(p.project.Config.Env),
	}, nil
}

// start looks around and keeps the session going.
func (s *Session) start(run Run) {
	s.alive, s.created = true, run.Created
	s.look = startLookAt(s, run.Git, run.Here, nil)
	s.Keep()
}

// Created is when the experiment of a run began.
func (s *Session) Created() time.Time { return s.created }

// ID is the experiment of the session.
func (s *Session) ID() replicate.ID { return s.experiment }

// Root is the folder of the project, and StorageURL names its storage.
func (s *Session) Root() string { return s.place.project.Root }

// StorageURL names the storage of the project.
func (s *Session) StorageURL() string { return s.place.store.URL() }

// Output records bytes that the command of a run printed. It returns nothing: what cannot be kept is told.
func (s *Session) Output(p []byte) {
	if err := s.writer.Output(p); err != nil {
		s.o.Tell(Remark{Warning: "output is not recorded: " + err.Error()})
	}
}

// SetStatus says how far the experiment has come, and what it waits for.
func (s *Session) SetStatus(ctx context.Context, status replicate.Status, facts replicate.Run) error {
	defer s.uploadSoon()
	return s.writer.Set(ctx, map[string]json.RawMessage{"status": raw(status), "run": raw(facts)})
}

// Fail ends the experiment of a run that never ran.
func (s *Session) Fail(ctx context.Context, status replicate.Status, exitCode int, why replicate.Failure) error {
	s.guest = false
	return s.End(ctx, status, map[string]json.RawMessage{"exit_code": raw(exitCode), "error": raw(why)})
}

// Leave closes the session and leaves the experiment to whoever ends it.
func (s *Session) Leave(ctx context.Context) error { return s.leave(ctx) }

// Bring copies the experiment of a run, with its commits, from where it was recorded to the repository home, whose spool is given, and gives it the end that it has there,
// if it has none here. Both go by one reading of from: there is no end without all that was recorded before it. Facts are ordered by time, and those of a machine
// whose clock is behind count for nothing beside what was said here meanwhile. What cannot be read is told to warn and left out. It returns the experiment as it
// stands then.
func Bring(ctx context.Context, spool *repository.Spool, home, from *repository.Repository, id replicate.ID, warn func(error)) (replicate.Experiment, error) {
	there := newStanding()
	var deletes []repository.Delete
	_, err := spool.Copy(ctx, from, repository.CopyOptions{
		Only: func(e replicate.ID) bool { return e == id }, Distrust: true, Warn: warn,
		Read: func(r *repository.Record) {
			if r.Delete != nil {
				deletes = append(deletes, *r.Delete)
			} else if experimentOf(r) == id {
				there.add(r)
			}
		},
	})
	if err != nil {
		return replicate.Experiment{}, err
	}
	if there.bury(deletes); there.row.ID == "" {
		return replicate.Experiment{}, notFound(string(id))
	}
	here, err := findExperiment(ctx, home, string(id))
	if err != nil {
		return replicate.Experiment{}, err
	}
	end := there.row.Experiment
	if !end.Status.Final() || here.row.Status.Final() {
		return here.row.Experiment, nil
	}
	fields := map[string]json.RawMessage{
		"status": raw(end.Status), "ended": raw(end.Ended), "exit_code": raw(end.ExitCode), "error": raw(end.Failure), "run": raw(end.Run),
	}
	if err := here.set(ctx, home, fields); err != nil {
		return replicate.Experiment{}, err
	}
	here.row.Status, here.row.Ended, here.row.ExitCode, here.row.Failure, here.row.Run = end.Status, end.Ended, end.ExitCode, end.Failure, end.Run
	return here.row.Experiment, nil
}

// Conclude ends an experiment whose end nobody else will record any more, unless it has one. code is nil where none is known, and why is empty where the
// status says all.
func Conclude(ctx context.Context, r *repository.Repository, id replicate.ID, status replicate.Status, code *int, why string) error {
	found, err := findExperiment(ctx, r, string(id))
	if err != nil || found.row.Status.Final() {
		return err
	}
	at, err := r.Now(ctx)
	if err != nil {
		return err
	}
	fields := map[string]json.RawMessage{"status": raw(status), "ended": raw(at.UTC())}
	if why != "" {
		fields["error"] = raw(replicate.Failure{Type: "run", Message: why})
	}
	if code != nil {
		fields["exit_code"] = raw(*code)
	}
	return found.set(ctx, r, fields)
}

// set says something of the experiment that counts for more than what was said before, by whatever clock.
func (s *standing) set(ctx context.Context, r *repository.Repository, fields map[string]json.RawMessage) error {
	at, err := r.Now(ctx)
	if err != nil {
		return err
	}
	if last := s.resume().At; !at.After(last) {
		at = last.Add(time.Millisecond)
	}
	record, err := repository.Record{Set: &repository.Set{Experiment: s.row.ID, At: at, Fields: fields}}.Encode()
	if err != nil {
		return err
	}
	return r.Append(ctx, record)
}
