package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/image"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
	"github.com/replicate/replicate/storage/repository"
)

// A jobRecorder records a supervised job into its experiment.
type jobRecorder struct {
	session *recorder.Session
	facts   replicate.Run
	quiet   bool // whoever fetches what is recorded says how far the job is, by a clock of his own
}

var _ job.Recorder = (*jobRecorder)(nil)

// recordJob begins to record a job, or goes on. A storage that is the machine's own has not heard of the experiment yet.
func (w *world) recordJob(ctx context.Context, spec job.Spec, tell func(string)) (job.Recorder, error) {
	o := w.recorderOptions(spec.Storage)
	o.Upload = nil // the supervisor sees to that
	o.Tell = func(r recorder.Remark) { tell(remark(r)) }
	facts := replicate.Run{Target: spec.Target, Image: spec.Image}
	if spec.Target != "" { // else this is no container
		facts.Installed = installed(image.InstalledPath)
	}
	run := recorder.Run{
		ID: spec.Experiment, Created: spec.Created, Dir: spec.Cwd, Command: spec.Command, User: spec.User, Host: spec.Host,
		Facts: facts, Ended: true, Here: true, After: spec.After, Ahead: spec.Ahead(),
	}
	if len(run.Command) == 0 {
		run.Command = spec.Argv
	}
	local, err := isLocal(ctx, spec.Storage)
	if err != nil {
		return nil, err
	}
	var session *recorder.Session
	fetched := local && spec.Target != ""
	if fetched {
		session, _, err = recorder.BeginRun(ctx, run, o)
	} else {
		session, err = recorder.AttachRun(ctx, run, o)
	}
	if err != nil {
		return nil, err
	}
	return &jobRecorder{session, facts, fetched}, nil
}

// installed is what the image of this container says of itself, nil if that is nothing.
func installed(file string) *replicate.Installed {
	var i replicate.Installed
	text, err := os.ReadFile(file)
	if err != nil || json.Unmarshal(text, &i) != nil {
		return nil
	}
	return &i
}

// remark is what a recorder has to say, as one line.
func remark(r recorder.Remark) string {
	text := r.Note
	if r.Warning != "" {
		text = "warning: " + r.Warning
	}
	if r.Hint != "" {
		text = strings.TrimSpace(text + " (" + r.Hint + ")")
	}
	return oneLine(text)
}

func isLocal(ctx context.Context, url string) (bool, error) {
	store, err := storage.Open(ctx, url)
	if err != nil {
		return false, err
	}
	_, local := store.(storage.Local)
	return local, nil
}

func (r *jobRecorder) Status(ctx context.Context, status replicate.Status, detail string) error {
	if r.quiet {
		return nil
	}
	return r.session.SetStatus(ctx, status, r.detailed(detail))
}

func (r *jobRecorder) detailed(detail string) replicate.Run {
	facts := r.facts
	facts.Detail = detail
	return facts
}

func (r *jobRecorder) Output(p []byte) { r.session.Output(p) }

func (r *jobRecorder) Commit(ctx context.Context) error {
	if committed, err := r.session.Committed(ctx); err != nil || committed {
		return err
	}
	_, _, err := r.session.Commit(ctx, repository.CommitRequest{Step: replicate.NoStep})
	return err
}

func (r *jobRecorder) End(ctx context.Context, status replicate.Status, code int, detail string) error {
	fields := map[string]json.RawMessage{}
	var errs []error
	for name, value := range map[string]any{"exit_code": code, "run": r.detailed(detail)} {
		text, err := json.Marshal(value)
		fields[name], errs = text, append(errs, err)
	}
	return errors.Join(append(errs, r.session.End(ctx, status, fields))...)
}

// A jobOutbox is what a supervised job's commits go through.
type jobOutbox struct{ outbox }

var _ job.Outbox = jobOutbox{}

// jobOutbox opens the outbox of a job, nil if its storage is local. The recorder has made it.
func (w *world) jobOutbox(ctx context.Context, spec job.Spec) (job.Outbox, error) {
	if local, err := isLocal(ctx, spec.Storage); err != nil || local {
		return nil, err
	}
	p, err := project.Find(spec.Cwd, project.Options{StorageFlag: spec.Storage, WorkingDir: spec.Cwd, Home: w.getenv("HOME")})
	if err != nil {
		return nil, err
	}
	list, err := outboxes(ctx, p)
	for _, o := range list {
		if o.Storage == p.StorageURL {
			return jobOutbox{o}, nil
		}
	}
	return nil, cmp.Or(err, error(replicate.Errorf(replicate.Internal, "no outbox for %s", p.StorageURL)))
}

func (o jobOutbox) Uploader() (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.Command(self, "uploader", o.Dir), nil
}

func (o jobOutbox) Unsent() job.Unsent {
	waiting := o.Waiting()
	if waiting.Done() {
		return job.Unsent{}
	}
	left := job.Unsent{Records: max(1, waiting.Records), Commits: waiting.Commits, Bytes: waiting.Bytes}
	if status, running := o.Status(); running && status.Obstacle != nil {
		left.Problem = oneLine(status.Obstacle.Text)
		left.Attach = status.Obstacle.Kind == replicate.Permission
	}
	return left
}

// setStorage makes credentials of a storage known to this process, which opens it. The job's environment was taken before.
func setStorage(secrets job.Secrets) {
	for name, value := range secrets.Storage {
		os.Setenv(name, value)
	}
	useGoogleCredentials(os.Getenv)
}
