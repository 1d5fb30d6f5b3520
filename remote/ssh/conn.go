package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/replicate/replicate"
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
	spares    spares

	tasks sync.WaitGroup
	once  sync.Once
	dead  chan struct{} // closed after err was set
	err   error
}

// A transport makes the channels of a connection.
type transport interface {
	// open connects to a socket ("unix") or port ("tcp") of the host.
	open(ctx context.Context, network, address string) (net.Conn, error)
	// exec starts a command, which the login shell of the user gets as one line.
	exec(ctx context.Context, command string) (process, error)
	// ping returns once the host has answered; close frees it.
	ping() error
	// received counts what came from the host.
	received() int64
	// wait waits for the end of the connection.
	wait() error
	// close frees every call at once, on a link that is frozen too.
	close()
}

// A process runs on the host. Its reads give its stdout.
type process interface {
	net.Conn
	CloseWrite() error
	// wait waits for the end, and returns the exit status and the end of stderr. err is that of the connection.
	wait() (status int, stderr string, err error)
}

// Keepalive. A host that is alive answers a ping even if it is loaded; one that answers nothing for two patiences, and sends nothing else
// meanwhile, is dead to us: after 15 + 2·10 s, before a person has given up.
var (
	pingInterval = 15 * time.Second
	pingPatience = 10 * time.Second
)

const pingMisses = 2

func newConn(t transport, c *config, key string) *Conn {
	conn := &Conn{transport: t, host: c.address.Host, user: c.user, key: key, dead: make(chan struct{})}
	conn.tasks.Go(func() { conn.end(lost(t.wait())) })
	conn.tasks.Go(conn.keepalive)
	return conn
}

// lost is the reason of a connection that ended by itself.
func lost(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return errors.New("the host ended the connection")
	}
	return errors.New("the connection was lost: " + said(err))
}

// keepalive pings until the connection ends, and ends it once there is no answer.
func (c *Conn) keepalive() {
	timer := time.NewTicker(pingInterval)
	defer timer.Stop()
	for {
		select {
		case <-c.dead:
			return
		case <-timer.C:
			if !c.answers() {
				c.end(errors.New("the host does not answer any more"))
			}
		}
	}
}

// answers says whether the host answers a ping, or something else comes from it: a ping may queue behind much on a slow link.
func (c *Conn) answers() bool {
	done := make(chan struct{})
	c.tasks.Go(func() {
		defer close(done)
		c.transport.ping() // an error is the end of the connection, which wait reports
	})
	timer := time.NewTicker(pingPatience)
	defer timer.Stop()
	before := c.transport.received()
	for misses := 0; misses < pingMisses; {
		select {
		case <-done:
			return true
		case <-c.dead:
			return true
		case <-timer.C:
			if now := c.transport.received(); now != before {
				before, misses = now, 0
			} else {
				misses++
			}
		}
	}
	return false
}

// DialSocket connects to a Unix socket on the host. The connection has CloseWrite. A deadline closes it for good when it passes.
func (c *Conn) DialSocket(ctx context.Context, path string) (net.Conn, error) {
	if spare := c.spares.take(path); spare != nil {
		conn, err := spare.wait(ctx)
		if err != nil && ctx.Err() != nil {
			err = c.explain(ctx, "open "+path+" on", err)
		}
		return conn, err
	}
	return c.open(ctx, "unix", path)
}

// DialTCP connects to host:port as seen from the host. The connection is like that of DialSocket.
func (c *Conn) DialTCP(ctx context.Context, address string) (net.Conn, error) {
	return c.open(ctx, "tcp", address)
}

func (c *Conn) open(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := c.transport.open(ctx, network, address)
	if err != nil {
		return nil, c.explain(ctx, "open "+address+" on", err)
	}
	return conn, nil
}

// explain makes the error of a call on the connection.
func (c *Conn) explain(ctx context.Context, op string, err error) *replicate.Error {
	if refused, ok := errors.AsType[*ssh.OpenChannelError](err); ok {
		err = fmt.Errorf("%w (%s)", ErrRefused, said(refused))
	} else if errors.Is(err, io.EOF) { // how x/crypto says that the connection ended
		select {
		case <-c.dead:
		case <-ctx.Done():
		case <-time.After(settle):
		}
	}
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case c.Err() != nil:
		err = c.Err()
	}
	return &replicate.Error{Op: op, Path: c.host, Kind: replicate.Unavailable, Err: err}
}

// settle is how long the reason of an end may come after the end: the two are told by different goroutines.
const settle = time.Second

// Close ends the connection and everything on it. It returns once nothing of it runs any more.
func (c *Conn) Close() error {
	c.end(net.ErrClosed)
	c.tasks.Wait()
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
