package job

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/replicate/replicate"
)

// A Phase says what the supervisor is doing.
type Phase string

// The phases in their order. A retry goes back from Running to Waiting.
const (
	Preparing Phase = "laying out"
	Waiting   Phase = "waiting" // Reason says for what: "secrets", a GPU and who holds it, the next attempt
	Running   Phase = "running"
	Stopping  Phase = "stopping"  // the job was asked to end
	Uploading Phase = "uploading" // the job has ended, commits are on their way
	Exited    Phase = "exited"    // nothing is left to do
)

// ReasonSecrets is the Reason of a job that waits for a client to send its secrets again.
const ReasonSecrets = "secrets"

// A State is what a supervisor says of its job: status.json, and the answer to OpStatus.
type State struct {
	Protocol   int          `json:"protocol"`
	Experiment replicate.ID `json:"experiment,omitempty"`
	Phase      Phase        `json:"phase"`
	Reason     string       `json:"reason,omitempty"` // why it waits, or what made it end
	Created    time.Time    `json:"created,omitzero"`
	Started    time.Time    `json:"started,omitzero"` // of the first attempt
	Attempt    int          `json:"attempt,omitempty"`
	GPUs       []string     `json:"gpus,omitempty"` // leased

	// The end. Status is "" before it.
	Status   replicate.Status `json:"status,omitempty"`
	Finished time.Time        `json:"finished,omitzero"`
	ExitCode int              `json:"exit_code"`        // that of the supervisor too
	Signal   string           `json:"signal,omitempty"` // that killed the job
	OOM      bool             `json:"oom,omitempty"`    // the kernel killed a process of it for want of memory

	Log    int64  `json:"log"` // payload bytes of all frames
	Unsent Unsent `json:"unsent,omitzero"`
}

// Unsent is what waits on the machine of a job to be sent to a bucket.
type Unsent struct {
	Records int    `json:"records,omitempty"` // commits, the end, streams
	Commits int    `json:"commits,omitempty"` // among them
	Bytes   int64  `json:"bytes,omitempty"`
	Problem string `json:"problem,omitempty"` // why it is not sent
	// Attach is set when newer credentials would help, which a client can send.
	Attach bool `json:"attach,omitempty"`
}

// Ended reports whether the job has ended; its commits may still be on their way.
func (s State) Ended() bool { return s.Status != "" }

// Gone returns what the state of a job is if its supervisor is gone: it has crashed, unless it had ended.
func (s State) Gone() State {
	if !s.Ended() {
		s.Status, s.ExitCode, s.Reason = replicate.Crashed, ExitSignal+int(syscall.SIGKILL), reasonGone
	}
	s.Phase = Exited
	return s
}

const reasonGone = "the supervisor was killed"

const (
	statusName = "status.json"
	specName   = "spec.json"
)

// ParseState reads a status.json.
func ParseState(text []byte) (State, error) {
	var s State
	if err := json.Unmarshal(text, &s); err != nil {
		return State{}, replicate.Errorf(replicate.Corrupt, "the status of a job: %w", err)
	}
	return s, nil
}

// ReadState reads the status.json of a job's directory. If there is none the error is fs.ErrNotExist.
func ReadState(dir fs.FS) (State, error) {
	text, err := fs.ReadFile(dir, statusName)
	if err != nil {
		return State{}, err
	}
	return ParseState(text)
}

// replace writes a file of JSON so that it is the old one or the new one at any time. On a full disk, where there is no room for another
// file, the old one is overwritten.
func replace(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err = swap(path, append(text, '\n')); errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		err = overwrite(path, append(text, '\n'))
	}
	return err
}

func overwrite(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(text, 0)
	if err == nil {
		err = f.Truncate(int64(len(text)))
	}
	return errors.Join(err, f.Close())
}

func swap(path string, text []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone if it was renamed
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
