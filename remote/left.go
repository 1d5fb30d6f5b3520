package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/storage/project"
)

// isSent reports whether a run whose container has stopped left nothing that was to go to a bucket. Of one that was killed together with its supervisor the end is left, at
// least.
func isSent(s job.State) bool { return s.Ended() && s.Unsent == (job.Unsent{}) }

// sendLeft is Host.sendLeft for a run that was followed, for as long as the end of a run waits.
func (r *Run) sendLeft(ctx context.Context) error {
	sent, err := r.host.sendLeft(ctx, r.project, r.ID, r.client.ExitWait)
	if err == nil && !sent {
		err = fmt.Errorf("they are on the way from %s to %s", r.host.Name(), r.project.StorageURL)
	}
	return err
}

// sendLeft has a run whose commits go to a bucket send what it left, if its container has stopped before everything was sent: somebody killed its supervisor, or sent that
// away. That is waited for as long as patience lasts, and goes on without us. Sent means that nothing is left.
func (h *Host) sendLeft(ctx context.Context, p *project.Project, id replicate.ID, patience time.Duration) (sent bool, err error) {
	s, stopped, err := h.state(ctx, id)
	switch {
	case err != nil:
		return false, err
	case !stopped && s.Ended() && s.Unsent.Attach: // a job that is to be tried again has variables too
		return false, h.giveCredentials(ctx, p, id)
	case !stopped:
		return false, nil
	}
	if !isSent(s) {
		if err = h.revive(ctx, p, id); err == nil {
			sent, err = h.awaitSent(ctx, id, patience)
		}
	} else if sent = true; s.ExitCode != job.ExitBroken { // else it may not have got as far as recording anything
		return true, removeNote(p, id)
	}
	home, openErr := openHome(ctx, p)
	if openErr == nil {
		openErr = conclude(ctx, home, id, s)
	}
	err = errors.Join(err, openErr)
	switch note, ours := Notes(p)[id]; {
	case !ours:
	case sent && err == nil:
		return true, removeNote(p, id)
	default:
		note.Due = true
		err = errors.Join(err, writeNote(p, id, note))
	}
	return sent && err == nil, err
}

// revive starts the supervisor of a run again, which runs nothing any more and sends what is there, and gives it the credentials of now.
func (h *Host) revive(ctx context.Context, p *project.Project, id replicate.ID) error {
	name := docker.RunName(id)
	if err := h.engine.PutFiles(ctx, name, docker.RunDir, docker.File{Name: job.SettleName, Mode: 0o600}); err != nil {
		return err
	}
	if err := h.engine.Restart(ctx, name); err != nil {
		return err
	}
	return h.giveCredentials(ctx, p, id)
}

// giveCredentials gives a supervisor the credentials of now, unless its machine has its own.
func (h *Host) giveCredentials(ctx context.Context, p *project.Project, id replicate.ID) error {
	if h.target.Credentials == "host" {
		return nil
	}
	found, err := h.client.Credentials(ctx, p.StorageURL)
	if err != nil {
		return err
	}
	return h.giveSecrets(ctx, id, job.Secrets{Storage: found})
}

// giveArgv gives a supervisor what comes on stdin.
var giveArgv = []string{docker.ProgramPath, "supervise", "ctl", string(job.OpSecrets)}

// giveSecrets gives a supervisor newer secrets, in no file and no list of processes. One that only begins is waited for.
func (h *Host) giveSecrets(ctx context.Context, id replicate.ID, secrets job.Secrets) error {
	line, err := job.Line{Secrets: &secrets}.Encode()
	if err != nil {
		return err
	}
	for end := time.Now().Add(endingTime); ; {
		var words strings.Builder
		code, err := h.engine.Exec(ctx, docker.RunName(id), docker.Exec{Argv: giveArgv, Stdin: bytes.NewReader(line), Stdout: io.Discard, Stderr: &words})
		if err == nil && code != 0 {
			err = &replicate.Error{Op: "send credentials to", Path: id.Short(), Kind: replicate.Unavailable, Err: complaint(code, words.String())}
		}
		if err == nil || ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		time.Sleep(uploadLook)
	}
}

// troubleTime is how long a supervisor may have trouble with its uploads before that is told: it may have no credentials yet.
const troubleTime = 5 * time.Second

// awaitSent waits until a supervisor has sent everything. That it cannot is an error.
func (h *Host) awaitSent(ctx context.Context, id replicate.ID, patience time.Duration) (sent bool, err error) {
	over := time.After(patience)
	for begin := time.Now(); ; {
		s, stopped, err := h.state(ctx, id)
		if err != nil || stopped {
			return err == nil && isSent(s), err
		}
		if s.Unsent.Problem != "" && time.Since(begin) > troubleTime {
			return false, &replicate.Error{Op: "send the commits of", Path: id.Short(), Kind: replicate.Unavailable, Err: errors.New(s.Unsent.Problem)}
		}
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-over:
			return false, nil
		case <-time.After(uploadLook):
		}
	}
}

// sendPatience is how long a command waits that only comes by.
const sendPatience = 10 * time.Second
