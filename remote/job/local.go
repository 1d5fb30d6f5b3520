package job

import (
	"context"
	"errors"
	"io"
	"path/filepath"

	"github.com/replicate/replicate"
)

// Local runs jobs right here, in place, each with a supervisor of its own that outlives the caller.
type Local struct {
	Runs string // the directory with one directory for each job, .replicate/run
	// Supervisor is the command line of a supervisor; "--dir DIR" is added. Env is its environment, and that of the jobs.
	Supervisor []string
	Env        []string
}

// Dir is the directory of a job.
func (l *Local) Dir(id replicate.ID) string { return filepath.Join(l.Runs, string(id)) }

// Start starts a job and returns when its supervisor has it. A job that was started already is left alone.
func (l *Local) Start(ctx context.Context, id replicate.ID, spec Spec, s Secrets) error {
	return errors.ErrUnsupported
}

// Status returns the states of jobs; none given: of all, in no order. One that is not known is left out.
func (l *Local) Status(ctx context.Context, ids ...replicate.ID) ([]State, error) {
	return nil, errors.ErrUnsupported
}

// Logs returns frames from an offset on; with follow, until the job has ended.
func (l *Local) Logs(ctx context.Context, id replicate.ID, from int64, follow bool) (io.ReadCloser, error) {
	if follow {
		return FollowLog(ctx, l.Dir(id), from)
	}
	return OpenLog(nil, from)
}

// Signal asks something of a job. One that has ended is left alone.
func (l *Local) Signal(ctx context.Context, id replicate.ID, sig Signal) error {
	_, err := Control(ctx, l.Dir(id), Request{Op: OpSignal, Signal: sig})
	return err
}
