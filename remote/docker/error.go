package docker

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/replicate/replicate"
)

// ErrNoProgram is in the chain of the error of Start when the container's program is not there: its volume was filled only in
// part. Redeliver fills it again.
var ErrNoProgram = errors.New("the program is not in its volume")

// statusKey is the key of a context under which a call finds the status of the engine's answer.
type statusKey struct{}

// A dialError is why a connection could not be opened. It hides its cause and its words from the client, which looks for some that it knows, and
// then tells its own.
type dialError struct{ err error }

func (e *dialError) Error() string { return "no connection" }

// A localError is what went wrong with a reader or a writer that the caller gave.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }

// call runs one call of the API and explains its error.
func (e *Engine) call(ctx context.Context, op, path string, f func(context.Context) error) error {
	var status atomic.Int64
	err := f(context.WithValue(ctx, statusKey{}, &status))
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return explain(op, path, int(status.Load()), err)
}

// explain turns an error of the client into ours. The status is that of the engine's answer, 0 if there was none.
func explain(op, path string, status int, err error) error {
	if _, ok := errors.AsType[*replicate.Error](err); ok {
		return err
	}
	if dial, ok := errors.AsType[*dialError](err); ok {
		return &replicate.Error{Op: op, Path: path, Kind: dialKind(dial.err), Err: dial.err}
	}
	if local, ok := errors.AsType[*localError](err); ok {
		return &replicate.Error{Op: op, Path: path, Kind: replicate.KindOf(local.err), Err: local.err}
	}
	e := &replicate.Error{Op: op, Path: path, Kind: kindOf(status), Err: err}
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e.Kind = replicate.Unavailable
		return e
	case status < http.StatusBadRequest && !isSaid(err):
		e.Kind, e.Err = replicate.Unavailable, lost{err}
		return e
	}
	text := saying(err)
	e.Err = errors.New(text)
	for _, cause := range causes {
		at := strings.Index(strings.ToLower(text), strings.ToLower(cause.text))
		if at < 0 {
			continue
		}
		e.Kind, e.Hint = cause.kind, cause.hint
		if cause.words != "" {
			e.Err = errors.New(strings.ReplaceAll(cause.words, "%s", text[at+len(cause.text):]))
		}
		if cause.err != nil {
			e.Err = cause.err
		}
		break
	}
	return e
}

// A said is an error that the engine tells after it has answered that all is well.
type said string

func (s said) Error() string { return string(s) }

func isSaid(err error) bool {
	_, ok := errors.AsType[said](err)
	return ok
}

// lost says that the connection to the engine broke, for a cause that is kept but not told: it names URLs nobody typed.
type lost struct{ err error }

func (l lost) Error() string { return "the connection to Docker was lost" }
func (l lost) Unwrap() error { return l.err }

// dialKind is the kind of what stopped a connection.
func dialKind(err error) replicate.Kind {
	if kind := replicate.KindOf(err); kind != replicate.Internal {
		return kind
	}
	return replicate.Unavailable
}

// kindOf is the kind of an answer of which nothing but its status is known.
func kindOf(status int) replicate.Kind {
	switch status {
	case 0, http.StatusServiceUnavailable, http.StatusBadGateway, http.StatusGatewayTimeout:
		return replicate.Unavailable
	case http.StatusNotFound:
		return replicate.NotFound
	case http.StatusConflict:
		return replicate.Conflict
	case http.StatusUnauthorized, http.StatusForbidden:
		return replicate.Permission
	case http.StatusBadRequest:
		return replicate.Usage
	}
	return replicate.Internal
}

// saying is what the engine said, as it is put behind a colon: without the client's words around it, in one line, beginning in lower
// case, without a full stop, and without the layers of the runtime that pass an error on.
func saying(err error) string {
	text := err.Error()
	if _, after, ok := strings.Cut(text, "Error response from daemon: "); ok {
		text = after
	}
	text = strings.Join(strings.Fields(text), " ")
	text = strings.TrimSuffix(strings.TrimSuffix(text, ": unknown"), ".")
	if first := strings.ToLower(text[:min(1, len(text))]); len(text) > 1 && strings.ToLower(text[1:2]) == text[1:2] {
		text = first + text[1:]
	}
	return text
}

// causes are the words by which engines of all versions name what people meet, and ours for it.
var causes = []struct {
	text  string // the first that occurs counts, in whatever case
	kind  replicate.Kind
	words string // instead of the engine's; %s is what it says behind text
	err   error  // instead of words
	hint  string
}{
	{text: "no space left on device", kind: replicate.Full, words: "no space left on the host's disk",
		hint: "replicate prune removes what is not needed any more"},
	{text: "could not select device driver \"cdi\"", kind: replicate.Usage, words: "this Docker is too old for GPUs by CDI",
		hint: "install nvidia-container-toolkit on the host and restart Docker"},
	{text: "could not select device driver", kind: replicate.NotFound, words: "Docker on the host has no driver for GPUs",
		hint: "install nvidia-container-toolkit on the host and restart Docker, or run with --gpus none"},
	{text: "unresolvable CDI devices", kind: replicate.NotFound, words: "Docker on the host does not know the GPU",
		hint: "sudo nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml on the host"},
	{text: "nvidia-container-cli: initialization error", kind: replicate.Unavailable, words: "the GPU driver of the host does not answer",
		hint: "nvidia-smi on the host says why"},
	{text: "unsatisfied condition: cuda", kind: replicate.Usage, words: "the GPU driver of the host is too old for the image's CUDA",
		hint: "update the driver, or set an older cuda in replicate.yaml"},
	{text: "exec: \"" + ProgramPath, kind: replicate.Corrupt, err: ErrNoProgram},
	{text: "bind source path does not exist: ", kind: replicate.NotFound, words: "%s does not exist on the host"},
	{text: "pull access denied", kind: replicate.NotFound, words: "the registry has no such image, or it is private"},
	{text: "manifest unknown", kind: replicate.NotFound, words: "the registry has no such image"},
	{text: "no matching manifest", kind: replicate.NotFound, words: "the registry has no such image for this machine's architecture"},
	{text: "toomanyrequests", kind: replicate.Unavailable, words: "the registry wants fewer requests"},
	{text: "Client.Timeout exceeded", kind: replicate.Unavailable, words: "the registry does not answer"},
	{text: "dial tcp", kind: replicate.Unavailable, words: "the host cannot reach the registry"},
	{text: "No such image", kind: replicate.NotFound, words: "no such image on the host"},
	{text: "No such container", kind: replicate.NotFound, words: "no such container on the host"},
	{text: "unable to upgrade to tcp, received 404", kind: replicate.NotFound, words: "no such container on the host"},
	{text: "unable to upgrade to tcp, received 409", kind: replicate.Conflict, words: "the container is not running"},
	{text: "is not running", kind: replicate.Conflict, words: "the container is not running"},
	{text: "no such volume", kind: replicate.NotFound, words: "no such volume on the host"},
	{text: "invalid reference format", kind: replicate.Usage, words: "not the name of an image"},
}
