package job

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/replicate/replicate"
)

// Exit codes of a supervisor that are not the job's own.
const (
	ExitTimeout       = 124 // Spec.Timeout is over
	ExitBroken        = 125 // the supervisor could not do its work, no job ran
	ExitNotExecutable = 126
	ExitNotFound      = 127
	ExitSignal        = 128 // and the number of the signal
)

// A Recorder writes a job's life into its experiment. It is called by one goroutine at a time; an error is told to people and stops nothing.
type Recorder interface {
	// Status says how far the job is: waiting, running.
	Status(replicate.Status) error
	// Output adds to the recorded output. It must wait for local disk at most.
	Output([]byte) error
	// Commit makes one commit of the working directory, if the experiment has none.
	Commit(context.Context) error
	// End records the end and releases the recorder.
	End(status replicate.Status, exitCode int) error
}

// An Outbox is what the commits of a job go through when its storage is a bucket.
type Outbox interface {
	// Uploader returns a command, not started, that sends what is there and what comes, and ends when nothing is left and nobody writes.
	Uploader() (*exec.Cmd, error)
	// Unsent says what is left. Of an empty outbox it is zero.
	Unsent() Unsent
}

// Options are what a supervisor knows of the process around it.
type Options struct {
	Dir    string // the job's
	Locks  string // of leases, shared by all jobs of the machine
	Self   string // directory of our own binary and, beside it, of the Python package: for PATH and PYTHONPATH
	Stdin  io.Reader
	Stdout io.Writer // gets the first frames; may be nil
	Env    []string  // name=value: what the job's environment is made of

	// Record begins recording, when the job is known; nil records nothing. It is called as the job's user.
	Record func(context.Context, Spec) (Recorder, error)
	// Outbox opens what the commits of a job go through, nil if its storage is local.
	Outbox func(context.Context, Spec) (Outbox, error)
	// Now is the clock.
	Now func() time.Time
	// Signals of the process: TERM stops, INT interrupts.
	Signals <-chan os.Signal
}

// Supervise gets a job, runs it to its end and returns its exit code. It returns when nothing is left to do: the end is
// recorded and commits are sent. Called again in the same directory it goes on: after the end it returns the same code at once.
func Supervise(ctx context.Context, o Options) (int, error) {
	return ExitBroken, errors.ErrUnsupported
}
