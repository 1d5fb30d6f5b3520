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
		return replicate.Errorf(replicate.Conflict, "%s has crashed: nothing of it runs on %s", r.ID.Short(), r.host.Name()).
			WithHint("replicate show %s tells more", r.ID.Short())
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

// acknowledge leaves word in the volume of a run that everything in it was fetched.
func (h *Host) acknowledge(ctx context.Context, id replicate.ID) error {
	return h.engine.PutFiles(ctx, docker.RunName(id), docker.RunDir, docker.File{Name: job.FetchedName, Mode: 0o600})
}

// attachAndStart attaches to a container that was created, and starts it.
func (h *Host) attachAndStart(ctx context.Context, c docker.Container) (*docker.Stream, error) {
	for {
		stream, err := h.engine.Attach(context.WithoutCancel(ctx), c.Name)
		if err != nil {
			return nil, err
		}
		again, err := h.engine.Start(ctx, c)
		if again {
			h.rememberLimits()
		}
		if err == nil && !again {
			return stream, nil
		}
		stream.Close()
		if err != nil {
			return nil, err
		}
	}
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
