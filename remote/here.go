package remote

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
)

// A place is where runs are, as those who follow them see it.
type place interface {
	Name() string
	// Logs returns frames of the log of a run.
	Logs(ctx context.Context, id replicate.ID, from int64, follow bool) (io.ReadCloser, error)
	// Signal asks something of a job.
	Signal(ctx context.Context, id replicate.ID, s job.Signal) error
	// state says how a run is, and whether nothing of it runs any more.
	state(ctx context.Context, id replicate.ID) (s job.State, stopped bool, err error)
	// lost reports whether an error means that the line is gone.
	lost(err error) bool
	Close()
}

var (
	_ place = (*Host)(nil)
	_ place = here{}
)

// here is this machine without Docker.
type here struct{ *job.Local }

// here returns the runs of a project that are carried out in place.
func (c *Client) here(p *project.Project) here {
	return here{&job.Local{Runs: filepath.Join(p.Private(), "run"), Supervisor: c.Supervisor, Env: c.Environ}}
}

func (here) Name() string    { return "this machine" }
func (here) lost(error) bool { return false }
func (here) Close()          {}

func (h here) state(ctx context.Context, id replicate.ID) (job.State, bool, error) {
	s, err := job.Asked(ctx, h.Dir(id))
	return s, s.Ended(), err
}

// endingHere is how long a supervisor on this machine may take to be gone after the end of its job: what it has to send to a bucket it sends alone.
const endingHere = time.Second

// SettleHere ends a run in place whose start was cut off, or whose supervisor is gone. It reports whether there is a job, or may be one.
func (c *Client) SettleHere(ctx context.Context, p *project.Project, id replicate.ID) (bool, error) {
	if note, ours := Notes(p)[id]; !ours || note.Target != "" || isStarting(p, id) {
		return true, nil
	}
	dir := c.here(p).Dir(id)
	s, err := job.Asked(ctx, dir)
	for waited := time.Duration(0); errors.Is(err, fs.ErrNotExist) && waited < underWay; waited += jobLook {
		select { // its supervisor may have been started just before
		case <-ctx.Done():
			return true, ctx.Err()
		case <-time.After(jobLook):
		}
		s, err = job.Asked(ctx, dir)
	}
	begun, code := err == nil, &s.ExitCode
	switch {
	case errors.Is(err, fs.ErrNotExist):
		s, code = job.State{Status: replicate.Crashed, Reason: killedStart}, nil
	case err != nil || !s.Ended():
		return true, err
	}
	home, err := openHome(ctx, p)
	if err == nil {
		err = recorder.Conclude(ctx, home, id, s.Status, code, s.Reason)
	}
	if err != nil && replicate.KindOf(err) != replicate.NotFound { // it was killed before the experiment was recorded
		return begun, err
	}
	return begun, removeNote(p, id)
}

// StartHere begins a run in place, without Docker: the same supervisor, in the working directory itself.
func (c *Client) StartHere(ctx context.Context, j Job) (*Run, error) {
	at := c.here(j.Project)
	devices, err := c.gpusHere(ctx, j.GPUs)
	if err != nil {
		return nil, err
	}
	r := &Run{client: c, project: j.Project, at: at}
	if err := r.begin(ctx, j); err != nil {
		return nil, r.abandon(ctx, err)
	}
	defer r.started()
	spec := job.Spec{
		Experiment: r.ID, Argv: j.Argv, Cwd: j.Dir, Storage: j.Project.StorageURL, Record: true, Commit: j.Commit, GPUs: j.GPUs, Devices: devices,
		Timeout: job.Duration(j.Timeout), Retries: j.Retries, User: c.User, Host: c.Name, Command: j.Command,
		Created: r.session.Created(), After: c.Now(),
	}
	for name := range j.Env {
		spec.Env = append(spec.Env, name)
	}
	c.Say("Running '%s' as %s...", commandText(j.Command), r.ID.Short())
	if err := at.Start(ctx, r.ID, spec, job.Secrets{Env: j.Env}); err != nil {
		return nil, r.abandon(ctx, err)
	}
	session := r.session
	r.session = nil
	return r, session.Leave(ctx)
}
