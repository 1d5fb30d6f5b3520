package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
)

// forwards are the ports of a run that answer on this machine, as long as it is attached.
type forwards []net.Listener

// open listens here on every port that the container publishes on its host.
func (f *forwards) open(ctx context.Context, r *Run) error {
	state, err := r.host.engine.Inspect(ctx, docker.RunName(r.ID))
	if err != nil {
		return err
	}
	for port, published := range state.Ports {
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
		if err != nil {
			r.client.Warn(&replicate.Error{Op: "forward port", Path: strconv.Itoa(int(port)), Kind: replicate.Conflict, Err: errors.New("somebody listens there"),
				Hint: fmt.Sprintf("on the host it is 127.0.0.1:%d", published)})
			continue
		}
		*f = append(*f, listener)
		go serveForward(listener, func(ctx context.Context) (net.Conn, error) {
			return r.currentHost().dialPort(ctx, published)
		})
		r.client.Say("port %d of the job answers at http://127.0.0.1:%d", port, port)
	}
	return nil
}

func (f *forwards) close() {
	for _, listener := range *f {
		listener.Close()
	}
	*f = nil
}

func serveForward(listener net.Listener, dial func(context.Context) (net.Conn, error)) {
	for {
		here, err := listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer here.Close()
			there, err := dial(context.Background())
			if err != nil {
				return
			}
			defer there.Close()
			go copyHalf(there, here)
			copyHalf(here, there)
		}()
	}
}

// copyHalf copies one direction, and tells the other end when it is over.
func copyHalf(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// dialPort connects to a port of 127.0.0.1 on the host.
func (h *Host) dialPort(ctx context.Context, port uint16) (net.Conn, error) {
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port)))
	if h.conn != nil {
		return h.conn.DialTCP(ctx, address)
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", address)
}
