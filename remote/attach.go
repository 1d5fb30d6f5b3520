package remote

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
	"github.com/replicate/replicate/storage/repository"
)

// An Again is what only the process of now can say of a run that an earlier one began.
type Again struct {
	Secrets func(context.Context) (job.Secrets, error) // they are sent again if the job waits for them, or its uploader does
	// Complete gives a job what is in no note, and of its variables those that this process has.
	Complete func(j *Job, variables []string) error
	Code     func(context.Context) (*repository.Tree, error) // the working directory as it was recorded
}

// Attach takes up a run that somebody began, from where this machine stopped to show its log. It goes on with a start that was cut off on this machine.
func (c *Client) Attach(ctx context.Context, p *project.Project, t Target, e replicate.Experiment, a Again) (*Run, error) {
	r := &Run{ID: e.ID, client: c, target: t, project: p, secrets: a.Secrets, log: newLog(c, Notes(p)[e.ID].Offset)}
	if e.Run != nil {
		r.facts = *e.Run
	}
	if r.facts.Target == "" {
		r.at = c.here(p)
		begun, err := c.SettleHere(ctx, p, e.ID)
		if err == nil && !begun {
			err = hasCrashed(e.ID, r.at)
		}
		if err != nil {
			return nil, err
		}
		return r, nil
	}
	if e.Status.Final() {
		if err := GiveUp(p, e.ID); err != nil {
			return nil, err
		}
	}
	host, err := c.Open(ctx, t)
	if err != nil {
		return nil, err
	}
	r.setHost(host)
	begun, err := host.settleStart(ctx, p, e.ID)
	switch {
	case errors.Is(err, ErrCutOff):
		err = r.goOn(ctx, e, a)
	case err == nil && begun:
		if err = r.takeUp(ctx, e); replicate.KindOf(err) == replicate.NotFound && isStarting(p, e.ID) {
			err = startedBy(e.ID)
		}
	case err == nil:
		err = hasCrashed(e.ID, host)
	}
	if err != nil {
		r.Close()
	}
	return r, err
}

func (r *Run) takeUp(ctx context.Context, e replicate.Experiment) error {
	state, stopped, err := r.host.state(ctx, r.ID)
	if err != nil {
		return err
	}
	if !stopped && (state.Reason == job.ReasonSecrets || state.Unsent.Attach) {
		if err := r.sendSecrets(ctx); err != nil {
			return err
		}
	}
	if !stopped {
		if err := r.ports.open(ctx, r); err != nil {
			return err
		}
	}
	if !r.pulls() || e.Status.Final() || state.Ended() {
		return nil
	}
	return r.join(ctx, e, replicate.Running)
}

// join takes part in the experiment of the run again, and says how it is.
func (r *Run) join(ctx context.Context, e replicate.Experiment, status replicate.Status) (err error) {
	options := r.client.Recorder
	options.StorageFlag = r.project.StorageURL
	r.session, err = recorder.AttachRun(ctx, recorder.Run{ID: r.ID, Dir: r.project.Root, Command: e.Command, User: e.User, Host: e.Host,
		Created: e.Created, Facts: r.facts, Git: status == replicate.Building && e.Git == nil}, options)
	if err != nil {
		return err
	}
	return r.session.SetStatus(ctx, status, r.facts)
}

func hasCrashed(id replicate.ID, at place) error {
	return replicate.Errorf(replicate.Conflict, "%s has crashed: nothing of it runs on %s", id.Short(), at.Name()).
		WithHint("replicate show %s tells more", id.Short())
}

// isAcknowledged returns nil if acknowledge has left word of a run.
func (h *Host) isAcknowledged(ctx context.Context, id replicate.ID) error {
	_, err := h.engine.Stat(ctx, docker.RunName(id), docker.RunDir+"/"+job.FetchedName)
	return err
}

// acknowledge leaves word in the volume of a run that everything in it was fetched.
func (h *Host) acknowledge(ctx context.Context, id replicate.ID) error {
	return h.engine.PutFiles(ctx, docker.RunName(id), docker.RunDir, docker.File{Name: job.FetchedName, Mode: 0o600})
}

// attachAndStart starts a container that was created, attached to it.
func (h *Host) attachAndStart(ctx context.Context, c docker.Container) (stream *docker.Stream, err error) {
	for again := true; again && err == nil; {
		if again, err = h.engine.StartAttached(ctx, c, func(s *docker.Stream) { stream = s }); again {
			h.rememberLimits()
		}
	}
	return stream, err
}

// An attached is the stdin and stdout of a container's process 1.
type attached struct {
	stream *docker.Stream
	out    *io.PipeReader
	once   sync.Once
}

func newAttached(s *docker.Stream) *attached {
	out, to := io.Pipe()
	go func() { to.CloseWithError(s.Output(to, io.Discard)) }()
	return &attached{stream: s, out: out}
}

func (a *attached) Read(p []byte) (int, error)  { return a.out.Read(p) }
func (a *attached) Write(p []byte) (int, error) { return a.stream.Write(p) }

func (a *attached) Close() (err error) {
	a.once.Do(func() {
		err = a.stream.Close()
		a.out.CloseWithError(io.ErrClosedPipe)
	})
	return err
}
