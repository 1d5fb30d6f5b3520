package job

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

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

const (
	socketName = "ctl.sock"
	// maxSocketPath is the longest path that every system lets a socket have.
	maxSocketPath = 100
	// talkTime bounds one request with its answer.
	talkTime = 10 * time.Second
	// acceptPause is after an error that may pass.
	acceptPause = time.Second
)

// Control asks the supervisor of a directory. If none is alive the error is Unavailable, with the State that Asked returns.
func Control(ctx context.Context, dir string, r Request) (State, error) {
	if !alive(dir) {
		state, err := left(dir)
		if err == nil {
			err = replicate.Errorf(replicate.Unavailable, "the supervisor is gone")
		}
		return state, err
	}
	answer, err := talk(ctx, dir, r)
	switch {
	case err != nil:
		return State{}, &replicate.Error{Op: "ask the supervisor", Kind: replicate.Unavailable, Err: err}
	case answer.Error != nil:
		return State{}, &replicate.Error{Kind: answer.Error.Kind, Err: errors.New(answer.Error.Message)}
	case answer.State == nil:
		return State{}, replicate.Errorf(replicate.Internal, "the supervisor answers nothing")
	}
	return *answer.State, nil
}

// Asked reads the state of a job from its directory, from the supervisor if one is alive. A job whose supervisor is gone without an
// end has crashed.
func Asked(ctx context.Context, dir string) (State, error) {
	if alive(dir) {
		if state, err := Control(ctx, dir, Request{Op: OpStatus}); err == nil {
			return state, nil
		}
		return ReadState(os.DirFS(dir)) // it begins, or ends just now
	}
	return left(dir)
}

// left is the state of a job whose supervisor is gone.
func left(dir string) (State, error) {
	state, err := ReadState(os.DirFS(dir))
	if err != nil {
		return State{}, err
	}
	return state.Gone(), nil
}

func talk(ctx context.Context, dir string, r Request) (answer Answer, err error) {
	text, err := json.Marshal(r)
	if err != nil {
		return answer, err
	}
	err = withShortPath(filepath.Join(dir, socketName), func(path string) error {
		conn, err := (&net.Dialer{Timeout: talkTime}).DialContext(ctx, "unix", path)
		if err != nil {
			return err
		}
		defer conn.Close()
		defer context.AfterFunc(ctx, func() { conn.Close() })()
		_ = conn.SetDeadline(time.Now().Add(talkTime))
		if _, err := conn.Write(append(text, '\n')); err != nil {
			return err
		}
		return json.NewDecoder(io.LimitReader(conn, maxLine)).Decode(&answer)
	})
	return answer, err
}

// withShortPath calls f with a path that leads to the given one and is short enough for a socket.
func withShortPath(path string, f func(string) error) error {
	if len(path) <= maxSocketPath {
		return f(path)
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return err
	}
	short, err := os.MkdirTemp("", "job")
	if err != nil {
		return err
	}
	defer os.RemoveAll(short)
	link := filepath.Join(short, "d")
	if err := os.Symlink(dir, link); err != nil {
		return err
	}
	return f(filepath.Join(link, filepath.Base(path)))
}

// A controller answers at the control socket of a job.
type controller struct {
	listener net.Listener
	answer   func(Request) Answer
	talks    sync.WaitGroup
}

// serve begins to answer. Only the owner of the directory, and root, may ask.
func serve(dir string, answer func(Request) Answer) (*controller, error) {
	path := filepath.Join(dir, socketName)
	if err := os.Remove(path); err != nil && !isMissing(err) { // of a dead supervisor
		return nil, err
	}
	c := &controller{answer: answer}
	err := withShortPath(path, func(path string) (err error) {
		c.listener, err = net.Listen("unix", path)
		return err
	})
	if err != nil {
		return nil, err
	}
	if l, ok := c.listener.(*net.UnixListener); ok {
		l.SetUnlinkOnClose(false) // its path may be one that is gone; the next one removes it
	}
	if err := os.Chmod(path, 0o600); err != nil {
		c.listener.Close()
		return nil, err
	}
	c.talks.Go(c.run)
	return c, nil
}

func (c *controller) run() {
	for {
		conn, err := c.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		} else if err != nil {
			time.Sleep(acceptPause) // out of descriptors
			continue
		}
		c.talks.Go(func() {
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(talkTime))
			_ = json.NewEncoder(conn).Encode(c.reply(conn))
		})
	}
}

func (c *controller) reply(r io.Reader) Answer {
	text, err := readLine(bufio.NewReader(r))
	var request Request
	if err == nil {
		err = json.Unmarshal(text, &request)
	}
	if err != nil {
		return refuse(replicate.Errorf(replicate.Usage, "no request: %w", err))
	}
	return c.answer(request)
}

func refuse(err error) Answer {
	return Answer{Error: &Refusal{Kind: replicate.KindOf(err), Message: err.Error()}}
}

// close stops answering and waits for what is being answered.
func (c *controller) close() {
	c.listener.Close()
	c.talks.Wait()
}
