package remote

import (
	"context"
	"errors"
	"runtime"
	"sync"

	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/image"
)

// A survey is what must be known of a host, and be there, before a container is made.
type survey struct {
	info    docker.Info
	program docker.Program
	gpus    gpus
	owner   owner
	env     environment
}

// survey asks a host everything at once, and has the program and the environment there.
func (h *Host) survey(ctx context.Context, j Job, plan *image.Plan) (s survey, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var all sync.WaitGroup
	errs := make([]error, 5)
	at := func(i int, f func() error) {
		all.Go(func() {
			if errs[i] = f(); errs[i] != nil {
				cancel()
			}
		})
	}
	at(0, func() (err error) { s.info, err = h.info(ctx); return err })
	at(1, func() (err error) { s.program, err = h.deliver(ctx); return err })
	at(2, func() (err error) { s.gpus, err = h.look.usual(ctx); return err })
	at(3, func() (err error) { s.owner, err = h.seeOwner(ctx, j); return err })
	at(4, func() (err error) { s.env, err = h.prepare(ctx, j, plan); return err })
	all.Wait()
	for _, err := range errs {
		if err != nil && !errors.Is(err, context.Canceled) {
			return s, err
		}
	}
	return s, errors.Join(errs...)
}

// deliver has our program on the host: that for its machine, which most often is like this one.
func (h *Host) deliver(ctx context.Context) (docker.Program, error) {
	program, err := h.client.program(runtime.GOARCH)
	if err == nil {
		err = h.engine.Deliver(ctx, program)
	}
	info, infoErr := h.info(ctx)
	if infoErr != nil {
		return program, infoErr
	}
	if info.Arch == runtime.GOARCH {
		return program, err
	}
	if program, err = h.client.program(info.Arch); err != nil {
		return program, err
	}
	return program, h.engine.Deliver(ctx, program)
}
