package remote

import (
	"context"
	"io"
	"path/filepath"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/storage/project"
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

// StartHere begins a run in place, without Docker: the same supervisor, in the working directory itself.
func (c *Client) StartHere(ctx context.Context, j Job) (*Run, error) {
	at := c.here(j.Project)
	r := &Run{client: c, project: j.Project, at: at}
	if err := r.begin(ctx, j); err != nil {
		return nil, r.abandon(ctx, err)
	}
	defer r.started()
	spec := job.Spec{
		Experiment: r.ID, Argv: j.Argv, Cwd: j.Dir, Storage: j.Project.StorageURL, Record: true, Commit: j.Commit, GPUs: j.GPUs,
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
