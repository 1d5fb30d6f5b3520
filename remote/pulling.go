package remote

import (
	"context"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/job"
)

// firstLook is when it is first asked how far a job is: its first line comes before, and short ones are over.
const firstLook = time.Second

// pullEvery is how often commits, points and output are fetched while a run is followed.
const pullEvery = 5 * time.Second

// A pulling fetches commits beside the log.
type pulling struct {
	run    *Run
	ctx    context.Context // of who follows the run
	there  *serving        // stays open from one look to the next; nil if it is not. For who looks, and after stop for who called that
	cancel context.CancelFunc
	done   chan struct{}
}

// startPulling begins to fetch commits, unless they go to a bucket by themselves. What they are read from is opened at once: of a short job they are
// asked for soon, and to open it takes as long as everything else together.
func (r *Run) startPulling(ctx context.Context) *pulling {
	looking, cancel := context.WithCancel(ctx)
	p := &pulling{run: r, ctx: ctx, cancel: cancel, done: make(chan struct{})}
	if !r.pulls() {
		close(p.done)
		return p
	}
	p.there = r.host.serve(ctx, r.ID)
	go func() {
		defer close(p.done)
		tick := time.NewTicker(pullEvery)
		defer tick.Stop()
		said := replicate.Running
		for look := time.After(firstLook); ; look = tick.C {
			select {
			case <-looking.Done():
				return
			case <-look:
			}
			said = p.look(looking, said)
		}
	}()
	return p
}

// look fetches what is new, and records how far the job is, if that is not what was said last. It returns what is said now.
func (p *pulling) look(ctx context.Context, said replicate.Status) replicate.Status {
	host := p.run.currentHost()
	state, stopped, err := host.state(ctx, p.run.ID)
	if err == nil {
		if !stopped {
			said = p.run.sayStatus(ctx, state, said)
		}
		if stopped || state.Phase != job.Preparing { // else nothing is there yet
			_, err = p.pull(ctx, state, stopped)
		}
	}
	if err != nil && ctx.Err() == nil && !host.lost(err) {
		p.run.client.Warn(err)
	}
	return said
}

// pull brings home what there is of a run that was like this before.
func (p *pulling) pull(ctx context.Context, before job.State, stopped bool) (settled bool, err error) {
	host := p.run.currentHost()
	if p.there != nil && (stopped || p.there.host != host) {
		p.drop()
	}
	if p.there == nil {
		if p.there, err = host.openStore(p.ctx, p.run.ID, stopped); err != nil {
			return false, err
		}
	}
	settled, err = p.there.pull(ctx, p.run.project, before, stopped)
	if stopped || err != nil && ctx.Err() == nil {
		p.drop()
	}
	return settled, err
}

// sayStatus records how far the job is, where the supervisor cannot, if that is not what was said last. It returns what is said now.
func (r *Run) sayStatus(ctx context.Context, state job.State, said replicate.Status) replicate.Status {
	status := StatusOf(state)
	if status == said || r.session == nil {
		return said
	}
	facts := r.facts
	facts.Detail = state.Reason
	if err := r.session.SetStatus(ctx, status, facts); err != nil {
		return said
	}
	return status
}

// stop waits for the pull under way to end.
func (p *pulling) stop() {
	p.cancel()
	<-p.done
}

// close ends everything.
func (p *pulling) close() {
	p.stop()
	p.drop()
}

func (p *pulling) drop() {
	if p.there != nil {
		p.there.close()
		p.there = nil
	}
}
