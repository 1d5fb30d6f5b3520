package job

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/replicate/replicate"
)

// Protocol is the version of line, frames, status and control that this package speaks.
const Protocol = 1

// maxLine is the longest line that is read. Credentials have a few kB.
const maxLine = 16 << 20

// A Spec is everything about a job but its secrets. Zero values mean: not wanted, or as it is.
type Spec struct {
	Experiment replicate.ID `json:"experiment,omitempty"` // "" for a step of a build
	Argv       []string     `json:"argv"`
	Cwd        string       `json:"cwd,omitempty"` // the supervisor's own if ""
	Tree       string       `json:"tree,omitempty"`
	UID        int          `json:"uid,omitempty"` // who the job runs as; 0: who the supervisor runs as
	GID        int          `json:"gid,omitempty"`
	Storage    string       `json:"storage,omitempty"` // URL, as the job sees it
	Env        []string     `json:"env,omitempty"`     // names of variables whose values are secrets
	Record     bool         `json:"record,omitempty"`  // false for a step of a build: no experiment has heard of it
	Commit     bool         `json:"commit,omitempty"`  // one commit at the end if the job made none

	// GPUs is what --gpus says: "" all that nobody has leased, "none", "all", a number, or UUIDs with commas. Devices are the UUIDs
	// of the machine, of which it is chosen.
	GPUs    string   `json:"gpus,omitempty"`
	Devices []string `json:"devices,omitempty"`

	Timeout Duration `json:"timeout,omitzero"`
	Grace   Duration `json:"grace,omitzero"` // from TERM to KILL; 0: DefaultGrace
	Retries int      `json:"retries,omitempty"`

	User    string   `json:"user,omitempty"` // who typed the command
	Host    string   `json:"host,omitempty"` // the host as typed
	Target  string   `json:"target,omitempty"`
	Command []string `json:"command,omitempty"` // as it is recorded; Argv if empty
	Image   string   `json:"image,omitempty"`   // of the container

	// Created is when the experiment began by the client's clock; what is recorded here counts as later than After.
	Created time.Time `json:"created,omitzero"`
	After   time.Time `json:"after,omitzero"`
	// Came is when the job came to its supervisor, by the clock there, which sets it.
	Came time.Time `json:"came,omitzero"`

	// Linger is set when somebody follows who fetches what the job leaves: an ended supervisor waits for FetchedName then, for a moment, as from a
	// container that has stopped everything takes longer.
	Linger bool `json:"linger,omitempty"`

	// Secrets is set when the job cannot run without secrets: a supervisor that was started again waits for them.
	Secrets bool `json:"secrets,omitempty"`
}

// onItsWay is how long a job may be on its way to its supervisor: a smaller difference of two clocks is not seen.
const onItsWay = time.Minute

// Ahead is how far the clock of the supervisor is before that of the client, who looked at its own when it sent the job.
func (s *Spec) Ahead() time.Duration {
	if d := s.Came.Sub(s.After); d.Abs() > onItsWay && !s.Came.IsZero() && !s.After.IsZero() {
		return d
	}
	return 0
}

// ParseSpec reads a spec.json.
func ParseSpec(text []byte) (Spec, error) {
	var s Spec
	if err := json.Unmarshal(text, &s); err != nil {
		return Spec{}, replicate.Errorf(replicate.Corrupt, "the description of a job: %w", err)
	}
	return s, s.check()
}

// check says why a job cannot be run, or nil.
func (s Spec) check() error {
	if len(s.Argv) == 0 || s.Argv[0] == "" {
		return replicate.Errorf(replicate.Usage, "the job has no command")
	}
	return nil
}

// DefaultGrace is how long a job has to end by itself after it was asked to: enough to save a checkpoint.
const DefaultGrace = 30 * time.Second

// Secrets are the values that are in no file: variables of the job, and those of the uploader alone.
type Secrets struct {
	Env     map[string]string `json:"env,omitempty"`
	Storage map[string]string `json:"storage,omitempty"`
}

// A Line is what a client sends on stdin: a job and its secrets, or newer secrets alone.
type Line struct {
	Replicate int      `json:"replicate"` // Protocol
	Job       *Spec    `json:"job,omitempty"`
	Secrets   *Secrets `json:"secrets,omitempty"`
}

// Encode returns the bytes to send, with the newline before.
func (l Line) Encode() ([]byte, error) {
	l.Replicate = Protocol
	text, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encode a job: %w", err)
	}
	return fmt.Appendf(nil, "\n%s\n", text), nil
}

// ReadLines calls f for every Line of r until r ends. Lines that are none are dropped. The error is that of reading, nil at the end.
func ReadLines(r io.Reader, f func(Line)) error {
	buffered := bufio.NewReaderSize(r, lineBuffer)
	for {
		if err := readOne(buffered, f); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// lineBuffer is that of who reads lines.
const lineBuffer = 64 << 10

// readOne reads a line, and calls f if it is a Line. Nothing is read beyond, but into the buffer.
func readOne(r *bufio.Reader, f func(Line)) error {
	text, err := readLine(r)
	if line, ok := parseLine(text); ok {
		f(line)
	}
	return err
}

// readLine returns the next line; of one that is too long, nothing. A last line without newline is nothing: it is half a line.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line) <= maxLine {
			line = append(line, part...)
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err != nil:
			return nil, err
		case len(line) > maxLine:
			return nil, nil
		}
		return line, nil
	}
}

func parseLine(text []byte) (Line, bool) {
	var line Line
	if len(bytes.TrimSpace(text)) == 0 || json.Unmarshal(text, &line) != nil || line.Replicate < 1 {
		return Line{}, false
	}
	if line.Job == nil && line.Secrets == nil || line.Job != nil && line.Job.check() != nil {
		return Line{}, false
	}
	return line, true
}

// A Duration is a time.Duration that JSON writes as text: "12h0m0s".
type Duration time.Duration

// MarshalText writes what UnmarshalText reads.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads "90s", "12h".
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	if err == nil && parsed < 0 {
		err = fmt.Errorf("%s is negative", text)
	}
	if err != nil {
		return err
	}
	*d = Duration(parsed)
	return nil
}
