package ssh

import (
	"context"
	"errors"
	"net"
	"sync"
)

// ErrRefused is in the error of a channel that the host did not open: the socket is not there or not ours, forwarding is forbidden,
// or there are too many sessions. The host does not say which. The connection is alive.
var ErrRefused = errors.New("the host refused the channel")

// A Conn is one connection to one host. All methods may be called at once from anywhere. Every call ends when its context does,
// when the connection dies, and when it is closed: a host that answers nothing for long counts as dead.
type Conn struct {
	transport transport
	host      string // as the person named it
	user      string
	key       string

	once sync.Once
	dead chan struct{} // closed after err was set
	err  error
}

// A transport makes the channels of a connection.
type transport interface {
	// open connects to a socket ("unix") or port ("tcp") of the host.
	open(ctx context.Context, network, address string) (net.Conn, error)
	// exec starts a command, which the login shell of the user gets as one line.
	exec(ctx context.Context, command string) (process, error)
	// close frees every call at once.
	close() error
}

// A process runs on the host. Its reads give its stdout.
type process interface {
	net.Conn
	CloseWrite() error
	// wait waits for the end, and returns the exit status and the end of stderr.
	wait() (status int, stderr string, err error)
}

// DialSocket connects to a Unix socket on the host. The connection has CloseWrite. Deadlines are kept by closing it.
func (c *Conn) DialSocket(ctx context.Context, path string) (net.Conn, error) {
	return c.transport.open(ctx, "unix", path)
}

// DialTCP connects to host:port as seen from the host. The connection is like that of DialSocket.
func (c *Conn) DialTCP(ctx context.Context, address string) (net.Conn, error) {
	return c.transport.open(ctx, "tcp", address)
}

// Close ends the connection and everything on it.
func (c *Conn) Close() error {
	c.end(net.ErrClosed)
	return nil
}

// end closes the connection for a reason, of which the first counts.
func (c *Conn) end(reason error) {
	c.once.Do(func() {
		c.err = reason
		close(c.dead)
	})
	c.transport.close()
}

// Dead is closed once the connection has ended, for whatever reason.
func (c *Conn) Dead() <-chan struct{} { return c.dead }

// Err returns why the connection has ended, net.ErrClosed after Close, and nil while it lives.
func (c *Conn) Err() error {
	select {
	case <-c.dead:
		return c.err
	default:
		return nil
	}
}

// HostKey is the fingerprint of the host's key, SHA256:…, or "" where OpenSSH connected, which does not tell.
func (c *Conn) HostKey() string { return c.key }

// User is the account on the host.
func (c *Conn) User() string { return c.user }

// Host is the host as the person named it, without user and port.
func (c *Conn) Host() string { return c.host }
