package remote

import (
	"context"
	"errors"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/remote/ssh"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
	"github.com/replicate/replicate/storage/repository"
)

// Pull brings home what the repository of a run holds and the storage of the project does not, and the end of the experiment. It can be cut off at any moment and
// begun again. settled means that the job has ended and everything is here.
func (h *Host) Pull(ctx context.Context, p *project.Project, id replicate.ID) (settled bool, err error) {
	for {
		before, stopped, err := h.state(ctx, id)
		if err != nil {
			return false, err
		}
		if before.Phase == job.Preparing && !stopped {
			return false, nil // nothing is there yet
		}
		there, err := h.openStore(ctx, id, stopped)
		if err != nil {
			return false, err
		}
		settled, err := there.pull(ctx, p, before, stopped)
		there.close()
		if err != nil && !stopped && h.stops(ctx, id) { // with what was read from
			continue
		}
		return settled, err
	}
}

// pull brings home what there is of a run that was like this before. If that is all, the host is told, and drops what was fetched: whoever is killed before that fetches
// it again.
func (s *serving) pull(ctx context.Context, p *project.Project, before job.State, stopped bool) (settled bool, err error) {
	home, err := openHome(ctx, p)
	if err != nil {
		return false, err
	}
	if settled, err = pullFrom(ctx, s.store, p, home, s.id, before, stopped); err == nil && settled {
		return true, s.forget(ctx)
	}
	if err != nil && before.Ended() && s.host.isAcknowledged(ctx, s.id) == nil { // another command was faster
		return true, nil
	}
	return settled, err
}

// pullFrom copies what there is of a run that was like this before.
func pullFrom(ctx context.Context, store storage.Store, p *project.Project, home *repository.Repository, id replicate.ID, before job.State, stopped bool) (settled bool, err error) {
	from, err := repository.Open(ctx, repository.Ahead(ctx, store))
	if replicate.KindOf(err) == replicate.NotFound && stopped && before.Ended() { // it never got as far as recording anything, or all of it was fetched
		return true, conclude(ctx, home, id, before)
	}
	if err != nil {
		return false, err
	}
	var damage []error
	e, err := recorder.Bring(ctx, repository.OpenSpool(home, p.Spool()), home, from, id, func(err error) { damage = append(damage, err) })
	if err != nil {
		return false, err
	}
	final := e.Status.Final()
	if !final && stopped && before.Ended() { // its supervisor cannot say so any more
		err := conclude(ctx, home, id, before)
		damage, final = append(damage, err), err == nil
	}
	err = errors.Join(damage...)
	return final && before.Ended() && err == nil, err
}

// conclude records the end of a run that is not recorded where it ran.
func conclude(ctx context.Context, home *repository.Repository, id replicate.ID, end job.State) error {
	return recorder.Conclude(ctx, home, id, end.Status, &end.ExitCode, end.Reason)
}

func openHome(ctx context.Context, p *project.Project) (*repository.Repository, error) {
	store, err := storage.Open(ctx, p.StorageURL)
	if err != nil {
		return nil, err
	}
	return repository.Open(ctx, store)
}

// StatusOf is the status of an experiment whose job is like this.
func StatusOf(s job.State) replicate.Status {
	switch {
	case s.Ended():
		return s.Status
	case s.Phase == job.Preparing:
		return replicate.Building
	case s.Phase == job.Waiting:
		return replicate.Waiting
	}
	return replicate.Running
}

// uploadLook is how often a supervisor is asked how its uploads get on.
const uploadLook = 100 * time.Millisecond

// awaitUpload waits a while for what a run sends to a bucket, and says what is still on its way then. It goes on without us; left says that it does not: its
// container has stopped.
func (r *Run) awaitUpload(ctx context.Context) (left bool, err error) {
	waiting, cancel := context.WithTimeout(ctx, r.client.ExitWait)
	defer cancel()
	var last job.State
	for r.host != nil {
		state, stopped, err := r.at.state(waiting, r.ID)
		if waiting.Err() == nil && (err != nil || stopped || state.Phase == job.Exited) {
			return err == nil && stopped && !isSent(state), err
		}
		if err == nil {
			last = state
		}
		select {
		case <-time.After(uploadLook):
			continue
		case <-waiting.Done():
		}
		if ctx.Err() == nil {
			r.client.Say("%s (%s) on the way to %s; replicate ps shows how it gets on", plural(int64(last.Unsent.Commits), "commit"),
				r.client.Size(last.Unsent.Bytes), r.project.StorageURL)
		}
		return false, nil
	}
	return false, nil
}

// homePatience is how long an ended run may be out of reach before its commits are left to replicate pull.
const homePatience = 30 * time.Second

// bringHome pulls a run that has ended: while its supervisor lingers, or when that is gone. That the line is lost, or the engine just restarts, is
// waited for.
func (r *Run) bringHome(ctx context.Context, p *pulling, end job.State, stopped bool) (settled bool, err error) {
	if settled, err = p.pull(ctx, end, stopped); err == nil && settled {
		return true, nil
	}
	waiting, cancel := context.WithTimeout(ctx, homePatience)
	defer cancel()
	for pause := (ssh.Backoff{}); ; {
		if err = r.host.awaitStop(ctx, r.ID); err == nil {
			settled, err = r.host.Pull(ctx, r.project, r.ID)
		}
		switch replicate.KindOf(err) {
		case replicate.Unavailable, replicate.Internal:
		default:
			return settled, err
		}
		if pause.Wait(waiting) != nil {
			return false, err
		}
		if host, openErr := r.client.Open(waiting, r.target); openErr == nil {
			r.host.Close()
			r.setHost(host)
		}
	}
}

// finish brings the rest home and closes what this machine has of the run.
func (r *Run) finish(ctx context.Context, p *pulling, end job.State, stopped bool) error {
	if at, inPlace := r.at.(here); inPlace {
		ending, cancel := context.WithTimeout(ctx, endingHere)
		defer cancel()
		at.AwaitEnd(ending, r.ID)
	} else {
		defer r.host.tidy(ctx)()
	}
	if !r.pulls() {
		left, err := r.awaitUpload(ctx)
		if left = left || r.host != nil && end.ExitCode == ExitBroken; err != nil || !left {
			return errors.Join(err, removeNote(r.project, r.ID))
		}
		return r.sendLeft(ctx)
	}
	settled, err := r.bringHome(ctx, p, end, stopped)
	if r.session != nil {
		err = errors.Join(err, r.session.Leave(ctx))
		r.session = nil
	}
	if err != nil || !settled { // how it ended is known all the same
		home, openErr := openHome(ctx, r.project)
		if openErr == nil {
			openErr = conclude(ctx, home, r.ID, end)
		}
		return errors.Join(err, openErr, r.note(true))
	}
	return removeNote(r.project, r.ID)
}

// Fetch is Pull for somebody who does not follow the run: once everything is here the host is told, and this machine forgets what it noted. A run whose start
// was cut off is ended.
func (h *Host) Fetch(ctx context.Context, p *project.Project, id replicate.ID) (settled bool, err error) {
	begun, err := h.settleStart(ctx, p, id)
	if err != nil || !begun {
		return err == nil, err
	}
	if !Pulls(p) {
		return h.sendLeft(ctx, p, id, sendPatience)
	}
	settled, err = h.Pull(ctx, p, id)
	if err != nil || !settled {
		return settled, err
	}
	return true, removeNote(p, id)
}
