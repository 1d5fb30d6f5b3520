package remote

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/ssh"
)

// usualSocket is where an engine listens unless it was told otherwise.
const usualSocket = "/var/run/docker.sock"

// firstSocket is where the engine is looked for first: at the target's socket, else where it was the last time.
func (h *Host) firstSocket() string {
	return cmp.Or(h.target.Socket, h.rememberedSocket(), usualSocket)
}

// findEngine opens the engine at the first socket. If that does not answer, one look around on the host says where another is, or what to do.
func (h *Host) findEngine(ctx context.Context) error {
	socket := h.firstSocket()
	first := h.openEngine(ctx, socket)
	if first != nil && h.target.Socket == "" && socket != usualSocket { // as if nothing had been remembered
		socket = usualSocket
		first = h.openEngine(ctx, socket)
	}
	if first == nil {
		h.rememberSocket()
		return nil
	}
	if h.isDead() || ctx.Err() != nil {
		return first
	}
	seen, err := h.lookAround(ctx, socket)
	if err != nil {
		return &replicate.Error{Op: "reach Docker on", Path: h.Name(), Kind: replicate.Unavailable, Err: fmt.Errorf("%w; %w", first, err), Hint: replicate.HintOf(err)}
	}
	for _, other := range seen.sockets {
		if h.target.Socket == "" && other.usable && h.openEngine(ctx, other.path) == nil {
			h.rememberSocket()
			return nil
		}
	}
	if h.conn != nil && seen.usable(socket) && seen.docker { // the socket is fine, so it is forwarding that is not
		if h.openByCommand(ctx) == nil {
			return nil
		}
	}
	return h.noEngine(socket, seen, first)
}

func (h *Host) openEngine(ctx context.Context, socket string) error {
	dial := h.dialSocket(socket)
	engine, err := docker.Open(ctx, dial)
	if err == nil {
		h.useEngine(engine, socket, dial)
		h.rememberAPI()
	}
	return err
}

func (h *Host) useEngine(engine *docker.Engine, socket string, dial docker.Dialer) {
	h.engine, h.socket, h.dial = engine, socket, dial
	if h.refusedLimits() {
		engine.WithoutLimits()
	}
}

// assumeEngine takes an engine for what it was the last time, if that is known: calls need not wait for what it says of itself.
func (h *Host) assumeEngine() bool {
	h.socket = h.firstSocket()
	version := h.rememberedAPI()
	if version == "" {
		return false
	}
	dial := h.dialSocket(h.socket)
	engine, err := docker.Assume(dial, version)
	if err == nil {
		h.useEngine(engine, h.socket, dial)
	}
	return err == nil
}

// speaksAsAssumed asks the engine that was assumed.
func (h *Host) speaksAsAssumed(ctx context.Context) bool {
	engine, err := docker.Open(ctx, h.dial)
	if err != nil {
		return false
	}
	defer engine.Close()
	return engine.API() == h.engine.API()
}

// openByCommand reaches the engine through docker's own command, where forwarding sockets is forbidden. Each connection is a session.
func (h *Host) openByCommand(ctx context.Context) error {
	dial := func(ctx context.Context) (net.Conn, error) {
		return h.conn.Stdio(ctx, "docker", "system", "dial-stdio")
	}
	engine, err := docker.Open(ctx, dial)
	if err == nil {
		h.engine, h.dial = engine, dial
		h.client.Warn(replicate.Errorf(replicate.Unavailable, "%s does not allow forwarding of sockets, so Docker is reached more slowly", h.Name()).
			WithHint("AllowStreamLocalForwarding yes in its sshd_config"))
	}
	return err
}

// A surroundings is what one look on a host saw.
type surroundings struct {
	user    string
	groups  string
	docker  bool // there is a command of this name
	podman  bool
	sockets []socketSeen
}

type socketSeen struct {
	path   string
	usable bool
}

func (s surroundings) usable(path string) bool {
	for _, seen := range s.sockets {
		if seen.path == path {
			return seen.usable
		}
	}
	return false
}

func (s surroundings) there(path string) bool {
	for _, seen := range s.sockets {
		if seen.path == path {
			return true
		}
	}
	return false
}

// lookAround asks a host who we are there and where engines may be.
func (h *Host) lookAround(ctx context.Context, socket string) (surroundings, error) {
	const script = `u=$(id -u); echo "user $(id -un)"; echo "groups $(id -Gn)"
command -v docker >/dev/null && echo docker
command -v podman >/dev/null && echo podman
for s in %s "/run/user/$u/docker.sock" "/run/user/$u/podman/podman.sock" "$HOME/.docker/run/docker.sock" "$HOME/.docker/desktop/docker.sock" "$HOME/.colima/default/docker.sock"; do
  if [ -S "$s" ]; then
    if [ -w "$s" ]; then w=usable; else w=closed; fi
    echo "socket $w $s"
  fi
done
`
	if h.look != nil {
		_, _ = h.look.now(ctx) // sshd may allow one session
	}
	out, err := h.shell(ctx, fmt.Sprintf(script, quoteShell(socket)))
	if err != nil {
		return surroundings{}, err
	}
	var s surroundings
	for line := range bytes.Lines(out) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(string(line), "\n"), " ")
		switch word {
		case "user":
			s.user = rest
		case "groups":
			s.groups = rest
		case "docker":
			s.docker = true
		case "podman":
			s.podman = true
		case "socket":
			state, path, _ := strings.Cut(rest, " ")
			s.sockets = append(s.sockets, socketSeen{path: path, usable: state == "usable"})
		}
	}
	return s, nil
}

// noEngine says why there is no engine to be had, and what mends that.
func (h *Host) noEngine(socket string, s surroundings, first error) error {
	e := &replicate.Error{Op: "reach Docker on", Path: h.Name(), Kind: replicate.Unavailable}
	member := fmt.Sprintf("sudo usermod -aG docker %s, then log in again", s.user)
	switch {
	case s.there(socket) && !s.usable(socket):
		e.Kind = replicate.Permission
		e.Err = fmt.Errorf("user %s may not use %s", s.user, socket)
		e.Hint = member
	case s.there(socket) && errors.Is(first, ssh.ErrRefused):
		e.Err = fmt.Errorf("its sshd does not forward to %s", socket)
		e.Hint = "AllowStreamLocalForwarding yes in its sshd_config, or install the docker command there"
	case s.there(socket):
		e.Err = fmt.Errorf("nobody answers at %s: %w", socket, first)
		e.Hint = "start it: sudo systemctl start docker"
	case s.docker:
		e.Err = fmt.Errorf("there is no %s", socket)
		e.Hint = "start it: sudo systemctl start docker; or name its socket in hosts: of replicate.yaml"
	default:
		e.Err = errors.New("there is no Docker")
		e.Hint = "on Debian and Ubuntu: sudo apt install docker.io, then " + member
		if h.conn == nil {
			e.Hint += "; or run it here without: --no-docker"
		}
	}
	return e
}

// quoteShell makes text one word of a shell.
func quoteShell(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
