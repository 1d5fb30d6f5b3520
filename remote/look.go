package remote

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/job"
)

// knownFor is how long GPUs that a host had are believed to be there, before it has said so again: they come and go with a screwdriver, or a restart.
const knownFor = 24 * time.Hour

// A look is at the GPUs of a host, for one job. What the host said the last time is known at once; what it says now comes beside everything else, as asking may take
// longer than to start a job. A host that had none is asked each time: to run on the CPU what was meant for a GPU helps nobody.
type look struct {
	host   *Host
	wanted string
	known  gpus // of the last time; nothing is there if that is not known
	cancel context.CancelFunc

	done chan struct{} // closed when the others are set, and people were told
	said gpus
	err  error
}

// lookAtGPUs begins to ask the host, unless none are wanted. What uses them without a lease is told when it is known. The question outlives ctx; end takes it back.
func (h *Host) lookAtGPUs(ctx context.Context, wanted string) *look {
	l := &look{host: h, wanted: wanted, known: h.rememberedGPUs(), done: make(chan struct{})}
	ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	if wanted == noGPUs {
		l.known = gpus{}
		close(l.done)
		return l
	}
	go func() {
		var busy []busyGPU
		if l.said, busy, l.err = h.seeGPUs(ctx); l.err == nil {
			h.rememberGPUs(l.said)
			l.warn(busy)
		}
		close(l.done)
	}()
	return l
}

// end takes the question back.
func (l *look) end() { l.cancel() }

// await waits for the answer, but not for ever.
func (l *look) await(patience time.Duration) {
	select {
	case <-l.done:
	case <-time.After(patience):
	}
}

// now is what the host says.
func (l *look) now(ctx context.Context) (gpus, error) {
	select {
	case <-l.done:
		return l.said, l.err
	case <-ctx.Done():
		return gpus{}, ctx.Err()
	}
}

// usual is what the host says if it has said it, else what it said the last time, if that is known, else what it will say.
func (l *look) usual(ctx context.Context) (gpus, error) {
	if !l.answered() && l.known.there() {
		return l.known, nil
	}
	return l.now(ctx)
}

func (l *look) answered() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// confirm has a job that leases GPUs choose from those that are there now: one that is gone is in nobody's hands.
func (l *look) confirm(ctx context.Context, spec *job.Spec) error {
	if len(spec.Devices) == 0 || spec.GPUs == "" && !l.answered() {
		return nil
	}
	now, err := l.now(ctx)
	switch {
	case err != nil && spec.GPUs == "":
		return nil
	case err == nil && !now.there() && spec.GPUs != "":
		err = noDriver(l.host.Name())
	}
	spec.Devices = now.IDs
	return err
}

// newsPatience is how long a start that has failed waits for what the host says.
const newsPatience = 10 * time.Second

// changed reports whether the host has other GPUs than these, and which.
func (l *look) changed(ctx context.Context, from gpus) (gpus, bool) {
	ctx, cancel := context.WithTimeout(ctx, newsPatience)
	defer cancel()
	now, err := l.now(ctx)
	return now, err == nil && !now.equal(from)
}

// warn tells which GPUs the job may get are used by others.
func (l *look) warn(busy []busyGPU) {
	var list []string
	for _, b := range busy {
		if named := strings.Contains(l.wanted, "-"); !named || slices.Contains(strings.Split(l.wanted, ","), b.id) {
			list = append(list, fmt.Sprintf("%s of GPU %s (%s)", l.host.client.Size(b.used), b.index, b.id))
		}
	}
	if len(list) > 0 {
		l.host.client.Warn(replicate.Errorf(replicate.Conflict, "somebody who has leased nothing uses memory on %s: %s", l.host.where(), strings.Join(list, ", ")).
			WithHint("nvidia-smi there shows what it is; --gpus takes UUIDs of others"))
	}
}
