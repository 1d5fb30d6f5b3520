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

// holdStart says to other commands on this machine that a run is being started, until release is called or this process is gone.
func holdStart(p *project.Project, id replicate.ID) (release func(), err error) {
	if err := os.MkdirAll(notesDir(p), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(startPath(p, id), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, &replicate.Error{Op: "lock", Path: f.Name(), Kind: replicate.Conflict, Err: err}
	}
	_, _ = fmt.Fprintf(f, "%d\n", os.Getpid()) // for stopStart
	return func() {
		_ = os.Remove(f.Name())
		f.Close()
	}, nil
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

// settleStart ends a run of this machine whose start was cut off, or whose container is gone: its experiment has crashed. A container that never got a job is
// removed; a volume without a container stays. It reports whether there is a job, or may be one: a run that others began, or that is being started, is left alone.
func (h *Host) settleStart(ctx context.Context, p *project.Project, id replicate.ID) (bool, error) {
	note, ours := Notes(p)[id]
	if !ours || isStarting(p, id) {
		return true, nil
	}
	why := "its container is gone from " + h.Name()
	c, err := h.engine.Inspect(ctx, docker.RunName(id))
	if err == nil {
		why = killedStart
		err = h.hasJob(ctx, id)
	} else if replicate.KindOf(err) == replicate.NotFound && note.Engine != "" && note.Engine != h.identity() {
		return true, &replicate.Error{Op: "look for " + id.Short() + " on", Path: h.Name(), Kind: replicate.Unavailable, Err: ErrAnotherEngine,
			Hint: "if the one before is gone for good: replicate rm " + id.Short()}
	}
	for waited := time.Duration(0); replicate.KindOf(err) == replicate.NotFound && c.Phase == docker.Running && waited < underWay; waited += jobLook {
		select { // the job may be on its way
		case <-ctx.Done():
			return true, ctx.Err()
		case <-time.After(jobLook):
		}
		err = h.hasJob(ctx, id)
	}
	if replicate.KindOf(err) != replicate.NotFound {
		return true, err
	}
	if c.Phase != "" {
		if err := h.Remove(ctx, id); err != nil {
			return false, err
		}
	} else if note.Due { // whoever removed the container may have left the volume
		h.client.Warn(replicate.Errorf(replicate.NotFound, "%s: %s; what was not fetched may be in the volume %s there", id.Short(), why, docker.RunName(id)))
	}
	home, err := openHome(ctx, p)
	if err == nil {
		err = recorder.Conclude(ctx, home, id, replicate.Crashed, nil, why)
	}
	if err != nil && replicate.KindOf(err) != replicate.NotFound { // it was killed before the experiment was recorded
		return false, err
	}
	return false, removeNote(p, id)
}
