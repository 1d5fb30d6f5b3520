package remote

import (
	"context"
	"fmt"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/storage/pipe"
)

// serveArgv serves the repository of a run to whoever executes it, and forgetArgv drops it when everything was fetched.
var (
	serveArgv  = []string{docker.ProgramPath, "supervise", "store", storageDir}
	forgetArgv = []string{docker.ProgramPath, "supervise", "forget"}
)

// A serving is the repository of a run, as a container serves it.
type serving struct {
	store  *pipe.Store
	host   *Host
	id     replicate.ID
	reader string // the container, "" for that of the run itself
	close  func()
}

// openStore opens the repository of a run for reading, in its container, or if that has stopped in one that is made for this.
func (h *Host) openStore(ctx context.Context, id replicate.ID, stopped bool) (*serving, error) {
	if !stopped {
		return h.serve(ctx, id), nil
	}
	c, err := h.engine.Inspect(ctx, docker.RunName(id))
	if err != nil {
		return nil, err
	}
	s := &serving{host: h, id: id}
	return s, s.openStopped(ctx, c)
}

// serve has the container of a run serve its repository. That it has stopped is told by what is asked of the store.
func (h *Host) serve(ctx context.Context, id replicate.ID) *serving {
	s := &serving{host: h, id: id}
	s.store = pipe.Open(h.execute(ctx, docker.RunName(id), serveArgv), s.url())
	s.close = func() { s.store.Close() }
	return s
}

func (s *serving) url() string { return "run://" + s.host.Name() + "/" + s.id.Short() }

// openStopped starts a container beside the stopped one that serves its volume. It ends when nobody asks it for a while.
func (s *serving) openStopped(ctx context.Context, c docker.State) error {
	h := s.host
	info, err := h.info(ctx)
	if err != nil {
		return err
	}
	program, err := h.client.program(info.Arch)
	if err == nil {
		err = h.engine.Deliver(ctx, program)
	}
	if err != nil {
		return err
	}
	s.reader = fmt.Sprintf("replicate-pull-%s-%x", s.id, h.client.Now().UnixNano())
	reader := docker.Container{
		Name: s.reader, Image: c.Image, Argv: serveArgv, Network: "none",
		Labels:  map[string]string{docker.LabelKind: docker.KindPull, docker.LabelExperiment: string(s.id)},
		Volumes: []docker.Mount{{Volume: docker.RunName(s.id), Target: docker.RunDir}, program.Mount()},
	}
	remove := func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
		defer cancel()
		if err := h.engine.Remove(ctx, reader.Name); err != nil && !h.isDead() {
			h.client.Warn(err)
		}
	}
	if _, err := h.engine.Create(ctx, reader); err != nil {
		return err
	}
	stream, err := h.attachAndStart(ctx, reader)
	if err != nil {
		remove()
		return err
	}
	s.store = pipe.Open(newAttached(stream), s.url())
	s.close = func() { s.store.Close(); remove() }
	return nil
}

// forget leaves word in the volume of a run that everything in it was fetched, and then has the repository dropped: by the supervisor, which lingers for that, or here. What
// stays for want of time goes with the run.
func (s *serving) forget(ctx context.Context) error {
	if err := s.host.acknowledge(ctx, s.id); err != nil || s.reader == "" {
		return err
	}
	_, err := s.host.engine.Exec(ctx, s.reader, docker.Exec{Argv: forgetArgv})
	return err
}
