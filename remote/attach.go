package remote

import (
	"context"
	"io"
	"sync"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
)

// Attach takes up a run that somebody began, from where this machine stopped to show its log. secrets are sent again if the job waits for them, or its
// uploader does.
func (c *Client) Attach(ctx context.Context, p *project.Project, t Target, e replicate.Experiment, secrets func(context.Context) (job.Secrets, error)) (*Run, error) {
	r := &Run{ID: e.ID, client: c, target: t, project: p, secrets: secrets, log: newLog(c, Notes(p)[e.ID].Offset)}
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
	host, err := c.Open(ctx, t)
	if err != nil {
		return nil, err
	}
	r.setHost(host)
	if err := r.takeUp(ctx, e); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

func (r *Run) takeUp(ctx context.Context, e replicate.Experiment) error {
	begun, err := r.host.settleStart(ctx, r.project, r.ID)
	if err != nil {
		return err
	}
	if !begun {
		return hasCrashed(r.ID, r.host)
	}
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
	options := r.client.Recorder
	options.StorageFlag = r.project.StorageURL
	r.session, err = recorder.AttachRun(ctx, recorder.Run{ID: r.ID, Dir: r.project.Root, Command: e.Command, User: e.User, Host: e.Host,
		Created: e.Created, Facts: r.facts}, options)
	if err != nil {
		return err
	}
	return r.session.SetStatus(ctx, replicate.Running, r.facts)
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
