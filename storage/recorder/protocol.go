package recorder

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

const (
	// Protocol is the newest version of the line protocol, and the only one so far.
	Protocol = 1
	// MaxLine is the longest line, both ways. The largest honest one is an init with a megabyte of parameters.
	MaxLine = 16 << 20
)

// A request is one line of the client. Which fields count depends on Op; unknown keys are ignored.
type request struct {
	ID json.RawMessage `json:"id"` // none: no answer
	Op string          `json:"op"`

	// hello
	Protocol int    `json:"protocol"`
	Client   string `json:"client"`
	PID      int    `json:"pid"`
	Detached bool   `json:"detached"` // the end of the pipe means nothing: the experiment lives as long as PID

	// init
	Params replicate.Values  `json:"params"`
	Tags   []string          `json:"tags"`
	Metric *goal             `json:"metric"`
	Resume resume            `json:"resume"`
	Parent string            `json:"parent"`
	Cwd    string            `json:"cwd"`
	Argv   []string          `json:"argv"`
	Env    map[string]string `json:"env"`
	Python *Python           `json:"python"`

	// init, set
	Name string `json:"name"`
	Note string `json:"note"`

	// init, commit
	Path paths `json:"path"`

	// log, commit
	Step    *replicate.Value `json:"step"`
	Time    float64          `json:"time"` // seconds since 1970
	Metrics replicate.Values `json:"metrics"`

	// dropped
	Points int64 `json:"points"`

	// commit
	Message   string `json:"message"`
	Cells     string `json:"cells"`      // what a notebook executed
	IfChanged bool   `json:"if_changed"` // no commit if no file changed

	// commit, end
	Modules []string `json:"modules"` // imported so far

	// end
	Status    replicate.Status `json:"status"`
	ExitCode  *int             `json:"exit_code"`
	Traceback string           `json:"traceback"`
	Wait      float64          `json:"wait"` // seconds, for an upload
}

// wanted reports whether the client waits for an answer.
func (r *request) wanted() bool { return len(r.ID) > 0 && string(r.ID) != "null" }

// step returns the step that was given, NoStep if none was.
func (r *request) step() (replicate.Step, error) {
	if r.Step == nil || r.Step.IsNull() {
		return replicate.NoStep, nil
	}
	if i, ok := r.Step.Int64(); ok {
		return replicate.Step(i), nil
	}
	if f := r.Step.Float(); f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		return replicate.Step(f), nil
	}
	return 0, replicate.Errorf(replicate.Usage, "step %s is not a whole number", r.Step)
}

// at returns the time that was given, else now.
func (r *request) at(now func() time.Time) time.Time {
	if r.Time <= 0 || r.Time > 1e11 {
		return now()
	}
	return time.UnixMicro(int64(math.Round(r.Time * 1e6))).UTC()
}

// maxPatience bounds how long an end waits for an upload.
const maxPatience = 24 * time.Hour

// patience is how long an end waits for an upload.
func (r *request) patience() time.Duration {
	return time.Duration(min(max(r.Wait, 0), maxPatience.Seconds()) * float64(time.Second))
}

// paths is null (nil: no paths were given), one path, or a list of them.
type paths []string

func (p *paths) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*p = make(paths, 1)
		return json.Unmarshal(data, &(*p)[0])
	}
	return json.Unmarshal(data, (*[]string)(p))
}

// resume is null or false, true for the newest experiment that is not finished, or an id.
type resume struct {
	newest bool
	id     string
}

func (r *resume) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		return json.Unmarshal(data, &r.id)
	}
	return json.Unmarshal(data, &r.newest)
}

// goal is ["val_loss", "minimize"].
type goal replicate.Metric

func (g *goal) UnmarshalJSON(data []byte) error {
	var pair []string
	if err := json.Unmarshal(data, &pair); err != nil || len(pair) != 2 || pair[0] == "" {
		return replicate.Errorf(replicate.Usage, `metric is a pair like ["loss", "minimize"]`)
	}
	parsed, err := replicate.ParseGoal(pair[1])
	*g = goal{Name: pair[0], Goal: parsed}
	return err
}

// Python is what a client says of its interpreter.
type Python struct {
	Version    string   `json:"version"`
	Executable string   `json:"executable"`
	Path       []string `json:"path"` // sys.path
}

// What the answer to a request holds beside "id" and "ok".

type greeting struct { // hello
	Protocol int    `json:"protocol"`
	Version  string `json:"version"`
}

type started struct { // init
	Experiment replicate.ID         `json:"experiment"`
	Created    string               `json:"created"`
	Resumed    bool                 `json:"resumed"`
	Root       string               `json:"root"`
	Storage    string               `json:"storage"`
	Files      int64                `json:"files"`
	Bytes      int64                `json:"bytes"`
	LeftOut    []repository.LeftOut `json:"left_out"`
	Metric     []string             `json:"metric,omitempty"` // the primary one and its goal
}

type committed struct { // commit
	Commit  replicate.ID   `json:"commit"` // "" if nothing changed and if_changed was set
	Step    replicate.Step `json:"step"`
	Files   int64          `json:"files"`
	Changed int64          `json:"changed"`
	Bytes   int64          `json:"bytes"`
	MS      int64          `json:"ms"`
}

type ended struct { // end
	Left int64 `json:"left"` // bytes not sent yet
}

// underWay is a line before the final one.
type underWay struct {
	ID       json.RawMessage `json:"id"`
	Progress ended           `json:"progress"`
}

// encodeAnswer returns the final line for a request that was carried out. result is one of the types above, or nil.
func encodeAnswer(id json.RawMessage, result any) []byte {
	line := encode(struct {
		ID json.RawMessage `json:"id"`
		OK bool            `json:"ok"`
	}{id, true})
	if result == nil {
		return line
	}
	line[len(line)-2] = ',' // for "}\n"
	return append(line[:len(line)-1], encode(result)[1:]...)
}

// refusal is the final line for a request that could not be carried out.
type refusal struct {
	ID    json.RawMessage `json:"id"`
	Error refused         `json:"error"`
}

type refused struct {
	Kind    replicate.Kind `json:"kind"`
	Message string         `json:"message"`
	Hint    string         `json:"hint,omitempty"`
}

// A Remark is what people should know: a note or a warning, and what they can do.
type Remark struct {
	Note    string `json:"note,omitempty"`
	Warning string `json:"warning,omitempty"`
	Hint    string `json:"hint,omitempty"`
}

func warningOf(err error) Remark {
	return Remark{Warning: err.Error(), Hint: replicate.HintOf(err)}
}

// encode returns v as one line.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // none of the types above can fail
	}
	return b.Bytes()
}

// parseRequest reads one line. The request has its ID also when the rest is not understood.
func parseRequest(line []byte) (*request, error) {
	if line[0] == tooLong {
		return &request{ID: idOf(line[1:])}, replicate.Errorf(replicate.Usage, "line is longer than %d MiB", MaxLine>>20)
	}
	r := new(request)
	err := json.Unmarshal(line, r)
	if err == nil {
		return r, nil
	}
	var wanted struct{ ID json.RawMessage }
	if json.Unmarshal(line, &wanted) != nil {
		wanted.ID = idOf(line)
	}
	if e, ok := errors.AsType[*replicate.Error](err); !ok || e.Kind != replicate.Usage {
		err = replicate.Errorf(replicate.Usage, "line is not understood: %w", err)
	}
	return &request{ID: wanted.ID}, err
}

// idOf finds the id at the beginning of a line that cannot be read as a whole.
func idOf(line []byte) json.RawMessage {
	rest, ok := bytes.CutPrefix(bytes.TrimLeft(line, " \t"), []byte(`{"id":`))
	digits := 0
	for ok && digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
		digits++
	}
	id, err := strconv.ParseUint(string(rest[:digits]), 10, 64)
	if err != nil {
		return nil
	}
	return strconv.AppendUint(nil, id, 10)
}
