package job

import (
	"context"
	"io/fs"

	"github.com/replicate/replicate"
)

// A Signal is what one can ask of a job.
type Signal string

// The signals. A second one while the job is stopping kills it.
const (
	Stop      Signal = "stop"      // TERM to the job's processes, KILL after the grace: terminated
	Interrupt Signal = "interrupt" // the same with INT: interrupted
	Kill      Signal = "kill"      // at once
)

// An Op is a verb of the control socket.
type Op string

// The verbs. They are only ever added.
const (
	OpStatus  Op = "status"
	OpSignal  Op = "signal"  // with Signal
	OpSecrets Op = "secrets" // with Secrets, which replace those known
)

// A Request is one line to ctl.sock.
type Request struct {
	Op      Op       `json:"op"`
	Signal  Signal   `json:"signal,omitempty"`
	Secrets *Secrets `json:"secrets,omitempty"`
}

// An Answer is the line that comes back.
type Answer struct {
	State *State   `json:"state,omitempty"`
	Error *Refusal `json:"error,omitempty"`
}

// A Refusal is why a request was not carried out.
type Refusal struct {
	Kind    replicate.Kind `json:"kind"`
	Message string         `json:"message"`
}

// Control asks the supervisor of a directory. If none is alive the State is that of status.json, the error Unavailable.
func Control(ctx context.Context, dir string, r Request) (State, error) {
	return State{}, replicate.Errorf(replicate.Unavailable, "no supervisor")
}

// Asked reads the state of a job from its directory, from the supervisor if one is alive. A job whose supervisor is gone without an
// end has crashed.
func Asked(ctx context.Context, dir string) (State, error) {
	return State{}, fs.ErrNotExist
}
