package job

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/replicate/replicate"
)

// Local runs jobs right here, in place, each with a supervisor of its own that outlives the caller.
type Local struct {
	Runs string // the directory with one directory for each job, .replicate/run
	// Supervisor is the command line of a supervisor; "--dir DIR" is added. Env is its environment, of which that of the job is made.
	Supervisor []string
	Env        []string
}

const (
	// startPatience is how long a supervisor may take until it has its job, which is a few files.
	startPatience = 30 * time.Second
	startLook     = 10 * time.Millisecond
)

// Dir is the directory of a job.
func (l *Local) Dir(id replicate.ID) string { return filepath.Join(l.Runs, string(id)) }

// Start starts a job and returns when its supervisor has it. A job that runs or has ended is left alone; one whose supervisor was killed gets
// another, which says what became of it.
func (l *Local) Start(ctx context.Context, id replicate.ID, spec Spec, s Secrets) error {
	dir := l.Dir(id)
	if state, err := ReadState(os.DirFS(dir)); alive(dir) || err == nil && state.Phase == Exited {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("start a job: %w", err)
	}
	text, err := Line{Job: &spec, Secrets: &s}.Encode()
	if err != nil {
		return err
	}
	ended, err := l.spawn(dir, text)
	if err != nil {
		return fmt.Errorf("start a supervisor: %w", err)
	}
	return started(ctx, dir, ended)
}

// spawn starts a supervisor in a session of its own. The channel is closed when it ends.
func (l *Local) spawn(dir string, line []byte) (<-chan struct{}, error) {
	log, err := os.OpenFile(filepath.Join(dir, "supervisor.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(l.Supervisor[0], append(l.Supervisor[1:len(l.Supervisor):len(l.Supervisor)], "--dir", dir)...)
	cmd.Env, cmd.Stdin, cmd.Stderr = l.Env, bytes.NewReader(line), log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() { // ends with the supervisor, or with this process
		defer close(ended)
		_ = cmd.Wait()
	}()
	return ended, nil
}

// started waits until a supervisor has its job.
func started(ctx context.Context, dir string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, startPatience)
	defer cancel()
	look := time.NewTicker(startLook)
	defer look.Stop()
	for {
		if _, err := os.Stat(filepath.Join(dir, specName)); err == nil && alive(dir) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the supervisor: %w", ctx.Err())
		case <-ended:
			if state, err := ReadState(os.DirFS(dir)); err == nil && state.Ended() {
				return nil // a short job
			}
			return replicate.Errorf(replicate.Internal, "the supervisor ended before it had its job").
				WithHint("%s may say why", filepath.Join(dir, "supervisor.log"))
		case <-look.C:
		}
	}
}

// Status returns the states of jobs; none given: of all, in no order. One that is not known is left out.
func (l *Local) Status(ctx context.Context, ids ...replicate.ID) ([]State, error) {
	if len(ids) == 0 {
		entries, err := os.ReadDir(l.Runs)
		if err != nil && !isMissing(err) {
			return nil, err
		}
		for _, e := range entries {
			if id, err := replicate.ParseID(e.Name()); err == nil {
				ids = append(ids, id)
			}
		}
	}
	var states []State
	var errs []error
	for _, id := range ids {
		state, err := Asked(ctx, l.Dir(id))
		switch {
		case isMissing(err):
		case err != nil:
			errs = append(errs, fmt.Errorf("job %s: %w", id.Short(), err))
		default:
			states = append(states, state)
		}
	}
	return states, errors.Join(errs...)
}

// Logs returns frames from an offset on; with follow, until the job has ended.
func (l *Local) Logs(ctx context.Context, id replicate.ID, from int64, follow bool) (io.ReadCloser, error) {
	if follow {
		return FollowLog(ctx, l.Dir(id), from)
	}
	return OpenLog(os.DirFS(l.Dir(id)), from)
}

// Signal asks something of a job. One that has ended is left alone.
func (l *Local) Signal(ctx context.Context, id replicate.ID, sig Signal) error {
	state, err := Control(ctx, l.Dir(id), Request{Op: OpSignal, Signal: sig})
	if state.Ended() {
		return nil
	}
	return err
}

// Refresh gives a job newer secrets.
func (l *Local) Refresh(ctx context.Context, id replicate.ID, s Secrets) error {
	_, err := Control(ctx, l.Dir(id), Request{Op: OpSecrets, Secrets: &s})
	return err
}

// lastLook is how often it is looked whether a supervisor that has nothing more to do is gone.
const lastLook = 2 * time.Millisecond

// AwaitEnd waits for the supervisor of a job that has ended, until ctx ends.
func (l *Local) AwaitEnd(ctx context.Context, id replicate.ID) {
	for alive(l.Dir(id)) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(lastLook):
		}
	}
}

// Remove deletes the directory of a job that has ended.
func (l *Local) Remove(_ context.Context, id replicate.ID) error {
	if alive(l.Dir(id)) {
		return replicate.Errorf(replicate.Conflict, "job %s has not ended", id.Short())
	}
	return os.RemoveAll(l.Dir(id))
}
