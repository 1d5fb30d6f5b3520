package remote

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
)

func startPath(p *project.Project, id replicate.ID) string {
	return filepath.Join(notesDir(p), string(id)+".lock")
}

// holdStart says to other commands on this machine that a run is being started, until release is called or this process is gone. The kind of the error is Conflict if
// another one says so.
func holdStart(p *project.Project, id replicate.ID) (release func(), err error) {
	f, release, err := lockStart(p, id)
	if err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid()) // for stopStart
	}
	return release, err
}

const (
	// lookTime is how long isStarting may hold a lock for others, at most, and lookPause is that between two tries.
	lookTime  = time.Second
	lookPause = 10 * time.Millisecond
)

// lockStart is holdStart for who ends a start: stopStart finds nobody to ask.
func lockStart(p *project.Project, id replicate.ID) (f *os.File, release func(), err error) {
	if err := os.MkdirAll(notesDir(p), 0o700); err != nil {
		return nil, nil, err
	}
	for waited := time.Duration(0); ; waited += lookPause {
		f, err = os.OpenFile(startPath(p, id), os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, nil, err
		}
		if tryLock(f) {
			return f, sync.OnceFunc(func() {
				_ = os.Remove(f.Name())
				f.Close()
			}), nil
		}
		f.Close()
		if waited > lookTime {
			return nil, nil, startedBy(id)
		}
		time.Sleep(lookPause)
	}
}

// startedBy says that a run is in the hands of another command of this machine.
func startedBy(id replicate.ID) error {
	return replicate.Errorf(replicate.Conflict, "another command is starting %s", id.Short()).
		WithHint("replicate attach %s shows it when its job has begun, replicate stop %s ends that", id.Short(), id.Short())
}

// tryLock reports whether the lock of a file was taken, and the file is still the one of its name. It is empty then.
func tryLock(f *os.File) bool {
	if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return false
	}
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(f.Name()) // who had it before removes it
	return err == nil && os.SameFile(opened, named) && f.Truncate(0) == nil
}

// isStarting reports whether a process of this machine is about to start a run.
func isStarting(p *project.Project, id replicate.ID) bool {
	f, err := os.Open(startPath(p, id))
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	return syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB) != nil
}

// stopStart asks the process of this machine that is about to start a run to give up. It reports whether there is one.
func stopStart(p *project.Project, id replicate.ID) bool {
	if !isStarting(p, id) {
		return false
	}
	text, err := os.ReadFile(startPath(p, id))
	if err != nil {
		return false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	return err == nil && syscall.Kill(pid, syscall.SIGTERM) == nil
}

const (
	// underWay is how long what a killed process has sent may be on its way, and be laid out there.
	underWay = 5 * time.Second
	// jobLook is how often it is looked meanwhile whether there is a job.
	jobLook = 250 * time.Millisecond
)

// killedStart is why an experiment has no job.
const killedStart = "the command that started it was killed before the job began"

// specPath is where a supervisor keeps its job: it is there from when it has one.
const specPath = docker.RunDir + "/spec.json"

// hasJob returns nil if the supervisor of a run has its job. The kind of the error is NotFound if it has not.
func (h *Host) hasJob(ctx context.Context, id replicate.ID) error {
	_, err := h.engine.Stat(ctx, docker.RunName(id), specPath)
	return err
}

// ErrAnotherEngine says that the name of a machine led to another one when a run was started there: nothing is known of the run.
var ErrAnotherEngine = errors.New("that leads to another machine now, or to another Docker")

// findJob returns nil if the supervisor of a run has its job, and waits for one that may be on its way. The kind of the error is NotFound if there is none: then c is its
// container, if it has one.
func (h *Host) findJob(ctx context.Context, id replicate.ID, note Note) (c docker.State, err error) {
	c, err = h.engine.Inspect(ctx, docker.RunName(id))
	switch {
	case err == nil:
		err = h.hasJob(ctx, id)
	case replicate.KindOf(err) == replicate.NotFound && note.Engine != "" && note.Engine != h.identity():
		return c, &replicate.Error{Op: "look for " + id.Short() + " on", Path: h.Name(), Kind: replicate.Unavailable, Err: ErrAnotherEngine,
			Hint: "if the one before is gone for good: replicate rm " + id.Short()}
	}
	for waited := time.Duration(0); replicate.KindOf(err) == replicate.NotFound && c.Phase == docker.Running && waited < underWay; waited += jobLook {
		select {
		case <-ctx.Done():
			return c, ctx.Err()
		case <-time.After(jobLook):
		}
		err = h.hasJob(ctx, id)
	}
	return c, err
}

// ErrCutOff says that the command that started a run was killed before the job began, and that Attach goes on.
var ErrCutOff = errors.New(killedStart)

// settleStart ends a run of this machine whose start was cut off and cannot go on, or whose container is gone: its experiment has crashed. A container that never got a
// job is removed; a volume without a container stays. It reports whether there is a job, or may be one: a run that others began, or that is being started, is left alone.
// ErrCutOff is in the chain of the error if somebody may go on.
func (h *Host) settleStart(ctx context.Context, p *project.Project, id replicate.ID) (bool, error) {
	note, ours := Notes(p)[id]
	if !ours || isStarting(p, id) {
		return true, nil
	}
	c, err := h.findJob(ctx, id, note)
	switch {
	case err == nil && note.Start != nil:
		note.Start = nil
		return true, writeNote(p, id, note)
	case replicate.KindOf(err) != replicate.NotFound:
		return true, err
	case note.Start.isKept(h.client.Now()):
		return false, &replicate.Error{Op: "take up", Path: id.Short(), Kind: replicate.Conflict, Err: ErrCutOff, Hint: GoesOn(id)}
	}
	_, release, err := lockStart(p, id)
	if err != nil {
		return true, err
	}
	defer release()
	return false, h.endStart(ctx, p, id, c, replicate.Crashed)
}

// GoesOn is what to do about a start that was cut off.
func GoesOn(id replicate.ID) string {
	return fmt.Sprintf("replicate attach %s goes on, replicate stop %s ends it", id.Short(), id.Short())
}

// stopCutOff ends a start that was cut off, if the run is one. It reports whether it did.
func (h *Host) stopCutOff(ctx context.Context, p *project.Project, id replicate.ID) (bool, error) {
	if Notes(p)[id].Start == nil {
		return false, nil
	}
	_, release, err := lockStart(p, id)
	if err != nil {
		return false, err
	}
	defer release()
	c, err := h.findJob(ctx, id, Notes(p)[id])
	if replicate.KindOf(err) != replicate.NotFound {
		return false, err
	}
	return true, h.endStart(ctx, p, id, c, replicate.Interrupted)
}

// endStart ends a run that has no job, of which c is the container, if it has one. It is called under the lock of the start.
func (h *Host) endStart(ctx context.Context, p *project.Project, id replicate.ID, c docker.State, status replicate.Status) error {
	note, why := Notes(p)[id], killedStart
	if c.Phase != "" {
		if err := h.Remove(ctx, id); err != nil {
			return err
		}
	} else if note.Start == nil {
		why = "its container is gone from " + h.Name()
		if note.Due { // whoever removed the container may have left the volume
			h.client.Warn(replicate.Errorf(replicate.NotFound, "%s: %s; what was not fetched may be in the volume %s there", id.Short(), why, docker.RunName(id)))
		}
	}
	home, err := openHome(ctx, p)
	if err == nil {
		err = recorder.Conclude(ctx, home, id, status, nil, why)
	}
	if err != nil && replicate.KindOf(err) != replicate.NotFound { // it was killed before the experiment was recorded
		return err
	}
	return removeNote(p, id)
}
