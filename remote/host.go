package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/image"
	"github.com/replicate/replicate/remote/ssh"
)

// A Host is a connection to an engine. It lives until Close; when the line is lost its calls fail, and Dead is closed.
type Host struct {
	client *Client
	target Target
	conn   *ssh.Conn // nil on this machine
	engine *docker.Engine
	socket string
	dial   docker.Dialer
	look   *look // at its GPUs, for the job that the host was opened for; nil for none

	mu   sync.Mutex // guards said
	said *docker.Info
}

// info is what the engine says of itself, asked once.
func (h *Host) info(ctx context.Context) (docker.Info, error) {
	h.mu.Lock()
	defer h.mu.Unlock() // who asks at the same time wants the same answer
	if h.said == nil {
		info, err := h.engine.Info(ctx)
		if err != nil {
			return info, err
		}
		h.said = &info
	}
	return *h.said, nil
}

// A ConnectError is why a host did not let us in. Nothing was asked of it.
type ConnectError struct{ Err error }

func (e *ConnectError) Error() string { return e.Err.Error() }

// Unwrap is for errors.Is and errors.As.
func (e *ConnectError) Unwrap() error { return e.Err }

// Open connects to a target and finds its engine. A ConnectError says that there is no connection.
func (c *Client) Open(ctx context.Context, t Target) (*Host, error) {
	h, err := c.dial(ctx, t)
	if err != nil {
		return nil, err
	}
	if err := h.findEngine(ctx); err != nil {
		h.Close()
		return nil, err
	}
	return h, nil
}

// openFor is Open for a job, and asks what a container for that needs. If there is a host, the error is one of that.
func (c *Client) openFor(ctx context.Context, j Job, plan *image.Plan) (*Host, survey, error) {
	h, err := c.dial(ctx, j.Target)
	if err != nil {
		return nil, survey{}, err
	}
	h.look = h.lookAtGPUs(ctx, j.GPUs)
	if h.assumeEngine() {
		said := make(chan bool, 1)
		go func() { said <- h.speaksAsAssumed(ctx) }()
		s, err := h.survey(ctx, j, plan)
		if <-said {
			return h, s, err
		}
		h.engine.Close()
	}
	if err := h.findEngine(ctx); err != nil {
		h.Close()
		return nil, survey{}, err
	}
	s, err := h.survey(ctx, j, plan)
	return h, s, err
}

// dial connects to a target.
func (c *Client) dial(ctx context.Context, t Target) (*Host, error) {
	h := &Host{client: c, target: t}
	if !t.Local {
		options := c.SSH
		if t.Identity != "" {
			options.Identity = t.Identity
		}
		conn, err := ssh.Dial(ctx, t.Address, options)
		if err != nil {
			return nil, &ConnectError{err}
		}
		h.conn = conn
		conn.Prepare(h.firstSocket(), channels)
	}
	return h, nil
}

// channels are opened at once, before anybody needs them: one after the other each would be a round trip. A survey makes five calls, beside the question
// what the engine speaks.
const channels = 6

// Close ends the connection. Nothing on the host notices.
func (h *Host) Close() {
	if h.look != nil {
		h.look.end()
	}
	if h.engine != nil {
		h.engine.Close()
	}
	if h.conn != nil {
		h.conn.Close()
	}
}

// Name is the target as people gave it.
func (h *Host) Name() string { return h.target.text() }

// isDead reports whether the line is gone.
func (h *Host) isDead() bool { return h.conn != nil && h.conn.Err() != nil }

// deathNews is how long after a call on it has failed a line that is gone may be known to be gone: the two are told by different goroutines.
const deathNews = time.Second

// diedOf reports whether the line is gone, which may be why a call has failed.
func (h *Host) diedOf(ctx context.Context, err error) bool {
	if h.conn != nil && replicate.KindOf(err) == replicate.Unavailable {
		select {
		case <-h.conn.Dead():
		case <-ctx.Done():
		case <-time.After(deathNews):
		}
	}
	return h.isDead()
}

// lost reports whether an error means that the line is gone, and not that something was refused.
func (h *Host) lost(err error) bool {
	return h.isDead() || replicate.KindOf(err) == replicate.Unavailable
}

// dialSocket opens a connection to a socket of the host.
func (h *Host) dialSocket(path string) docker.Dialer {
	return func(ctx context.Context) (net.Conn, error) {
		if h.conn != nil {
			return h.conn.DialSocket(ctx, path)
		}
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
}

// shell runs a script by /bin/sh on the host.
func (h *Host) shell(ctx context.Context, script string) ([]byte, error) {
	if h.conn != nil {
		return h.conn.Run(ctx, script)
	}
	out, err := exec.CommandContext(ctx, "/bin/sh", "-c", script).Output()
	if failed, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, failed.Stderr)
	}
	return out, err
}
