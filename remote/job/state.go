package job

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
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
	Commits int    `json:"commits,omitempty"`
	Bytes   int64  `json:"bytes,omitempty"`
	Problem string `json:"problem,omitempty"` // why it is not sent
	// Attach is set when newer credentials would help, which a client can send.
	Attach bool `json:"attach,omitempty"`
}

// Ended reports whether the job has ended; its commits may still be on their way.
func (s State) Ended() bool { return s.Status != "" }

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

// replace writes a file of JSON so that it is the old one or the new one at any time.
func replace(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // gone if it was renamed
	_, err = f.Write(append(text, '\n'))
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
