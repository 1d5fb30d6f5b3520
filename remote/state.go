package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/job"
)

// maxStatus bounds what is read of a status.json.
const maxStatus = 1 << 20

// State says how a run is. The kind of the error is NotFound if the host has none of this id.
func (h *Host) State(ctx context.Context, id replicate.ID) (job.State, error) {
	state, _, err := h.state(ctx, id)
	return state, err
}

// endingTime is how long a supervisor may take from answering nobody any more until the engine knows that its container has stopped.
const endingTime = 10 * time.Second

// state also reports whether its container has stopped.
func (h *Host) state(ctx context.Context, id replicate.ID) (s job.State, stopped bool, err error) {
	end := time.Now().Add(endingTime)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		c, err := h.engine.Inspect(ctx, docker.RunName(id))
		if err != nil {
			return job.State{}, false, err
		}
		if hasStopped(c) {
			s, err = h.stateOfStopped(ctx, c, id)
			return s, true, err
		}
		s, err = h.control(ctx, id, string(job.OpStatus))
		if err == nil || h.lost(err) || time.Now().After(end) {
			return s, false, err
		}
		select { // it begins, or ends
		case <-ctx.Done():
			return s, false, err
		case <-time.After(wait):
		}
	}
}

// awaitStop waits for a supervisor that has nothing more to do.
func (h *Host) awaitStop(ctx context.Context, id replicate.ID) error {
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		if c, err := h.engine.Inspect(ctx, docker.RunName(id)); err != nil || hasStopped(c) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

// stopNews is how long after the end of what else ran in it a container may be known to have stopped.
const stopNews = 3 * time.Second

// stops reports whether the container of a run has stopped, or is about to.
func (h *Host) stops(ctx context.Context, id replicate.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, stopNews)
	defer cancel()
	return h.awaitStop(ctx, id) == nil
}

func hasStopped(c docker.State) bool {
	return c.Phase != docker.Running && c.Phase != docker.Restarting
}

// stateOfStopped reads what the supervisor left. One that left no end has crashed.
func (h *Host) stateOfStopped(ctx context.Context, c docker.State, id replicate.ID) (s job.State, err error) {
	var text bytes.Buffer
	_, err = h.engine.GetFile(ctx, docker.RunName(id), docker.RunDir+"/status.json", maxStatus, &text)
	if err == nil {
		s, err = job.ParseState(text.Bytes())
	}
	if err != nil && replicate.KindOf(err) != replicate.NotFound {
		return job.State{}, err
	}
	s.Experiment = id
	if s.Ended() || c.Phase == docker.Created {
		return s, nil
	}
	s.Unsent.Records = max(1, s.Unsent.Records) // that it has ended
	s.Status, s.Phase, s.ExitCode, s.OOM, s.Finished = replicate.Crashed, job.Exited, c.ExitCode, s.OOM || c.OOMKilled, c.Finished
	switch {
	case c.OOMKilled:
		s.Reason = "out of memory"
	case c.ExitCode == job.ExitSignal+9:
		s.Reason = "killed: the container was stopped from outside, or Docker restarted"
	default:
		s.Reason = "the supervisor is gone"
	}
	return s, nil
}

// Signal asks something of a job. One that has ended is left alone.
func (h *Host) Signal(ctx context.Context, id replicate.ID, s job.Signal) error {
	_, err := h.control(ctx, id, string(s))
	if replicate.KindOf(err) == replicate.Conflict { // the container does not run
		return nil
	}
	return err
}

// control asks the supervisor of a run.
func (h *Host) control(ctx context.Context, id replicate.ID, verb string) (job.State, error) {
	var out, words bytes.Buffer
	code, err := h.engine.Exec(ctx, docker.RunName(id), docker.Exec{
		Argv: []string{docker.ProgramPath, "supervise", "ctl", verb}, Stdout: &out, Stderr: &words,
	})
	if err != nil {
		return job.State{}, err
	}
	if code != 0 {
		return job.State{}, &replicate.Error{Op: "ask the supervisor of", Path: id.Short(), Kind: replicate.Internal, Err: complaint(code, words.String())}
	}
	var s job.State
	if err := json.Unmarshal(out.Bytes(), &s); err != nil {
		return s, replicate.Errorf(replicate.Corrupt, "the supervisor of %s says %.100q", id.Short(), out.Bytes())
	}
	s.Experiment = id
	return s, nil
}

// Remove removes a run from the host, with everything that was not fetched.
func (h *Host) Remove(ctx context.Context, id replicate.ID) error {
	return h.drop(ctx, docker.RunName(id))
}

// drop removes a container and the volume of its name.
func (h *Host) drop(ctx context.Context, name string) error {
	if err := h.engine.Remove(ctx, name); err != nil {
		return err
	}
	return h.engine.RemoveVolume(ctx, name)
}

// complaint is what a program that ended with a code had to say.
func complaint(code int, words string) error {
	if said := lastLine(words); said != "" {
		return errors.New(said)
	}
	return fmt.Errorf("it ended with exit code %d", code)
}

func lastLine(text string) string {
	lines := bytes.Split(bytes.TrimSpace([]byte(text)), []byte("\n"))
	return string(lines[len(lines)-1])
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
