package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
)

// connectPatience is for TCP alone, unless ConnectTimeout says otherwise.
const connectPatience = 15 * time.Second

// handshakePatience is for the rest: seven round trips and what the host thinks, without the time a person takes to answer.
// ssh.ClientConfig.Timeout does not bound it.
var handshakePatience = 30 * time.Second

// ciphers are in the order of their speed here: with instructions for AES in every machine, GCM is 2.5 times as fast as chacha20.
var ciphers = []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305,
	ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR}

// Dial connects to a host. Errors are *replicate.Error with what to do about them. The context bounds the dialling alone.
// It does not try again: whoever wants to waits by a Backoff, so that there is one loop in the program.
func Dial(ctx context.Context, a Address, o Options) (*Conn, error) {
	if why := wrong(a); why != "" {
		return nil, refuse(a.String(), why)
	}
	if o.Identity != "" {
		o.Identity = o.absolute(o.Identity)
		if _, err := os.Stat(o.Identity); err != nil {
			return nil, explain(a, fmt.Errorf("identity: %w", err))
		}
	}
	way, err := route(ctx, a, o)
	if err != nil {
		return nil, explain(a, err)
	}
	c, err := dialAlong(ctx, way, o)
	if err != nil {
		return nil, explain(a, err)
	}
	return c, nil
}

// dialAlong connects along a way by whatever can.
func dialAlong(ctx context.Context, way []*config, o Options) (*Conn, error) {
	if err := checkOpenSSH(way, o); err != nil {
		return nil, err
	}
	if o.Transport == OpenSSH || needsOpenSSH(ctx, way, o) {
		return dialOpenSSH(ctx, way, o)
	}
	c, err := dialNative(ctx, way, o)
	switch {
	case errors.Is(err, errOpenSSH):
		return dialOpenSSH(ctx, way, o)
	case errors.Is(err, errTicket):
		return dialByTicket(ctx, way, o)
	}
	return c, err
}

// dialByTicket has the ssh program try without asking anybody. Most hosts that take tickets have users without: then the person is asked,
// or told what is wrong, as if there were none.
func dialByTicket(ctx context.Context, way []*config, o Options) (*Conn, error) {
	silent := o
	silent.Ask = nil
	if c, err := dialOpenSSH(ctx, way, silent); err == nil {
		return c, nil
	}
	without := make([]*config, len(way))
	for i, c := range way {
		copied := *c
		copied.gssapi = false
		without[i] = &copied
	}
	return dialNative(ctx, without, o)
}

// dialNative connects along a way.
func dialNative(ctx context.Context, way []*config, o Options) (*Conn, error) {
	n := &native{}
	key := ""
	for i, c := range way {
		var err error
		if key, err = n.extend(ctx, c, o); err != nil {
			n.close()
			if i < len(way)-1 {
				return nil, fmt.Errorf("jump host %s: %w", c.address.Host, understand(err))
			}
			return nil, err
		}
	}
	return newConn(n, way[len(way)-1], key), nil
}

// extend goes one host further, and returns the fingerprint of its key.
func (n *native) extend(ctx context.Context, c *config, o Options) (key string, err error) {
	conn, err := n.dial(ctx, c, o)
	if err != nil {
		return "", err
	}
	n.way = append(n.way, conn)
	client, key, err := handshake(ctx, &meter{Conn: conn, count: &n.count}, c, o)
	if proxy, ok := conn.(*child); ok {
		if text := proxy.stderr.quiet(); err != nil && text != "" {
			err = fmt.Errorf("ProxyCommand says %q: %w", text, err)
		}
	}
	if err != nil {
		return "", err
	}
	n.client = client
	return key, nil
}

// dial makes the connection that SSH will run on: by a command, through the host before, or straight.
func (n *native) dial(ctx context.Context, c *config, o Options) (net.Conn, error) {
	switch {
	case c.proxyCommand != "":
		proxy, err := startChild(func(line string) { o.warn(line, "") }, "/bin/sh", "-c", "exec "+c.proxyCommand)
		if err != nil {
			return nil, err
		}
		return proxy, nil
	case n.client != nil:
		ctx, cancel := context.WithTimeoutCause(ctx, c.patience, errSlow)
		defer cancel()
		conn, err := n.client.DialContext(ctx, c.family, c.hostport())
		if context.Cause(ctx) == errSlow {
			err = errSlow
		}
		if err != nil {
			return nil, &hopError{err}
		}
		return channelStream(c.hostport(), conn), nil
	}
	d := net.Dialer{Timeout: c.patience}
	conn, err := d.DialContext(ctx, c.family, c.hostport())
	if err != nil {
		return nil, err
	}
	if tcp, ok := conn.(*net.TCPConn); ok { // TCP_NODELAY is Go's default
		boundUnanswered(tcp)
	}
	return conn, nil
}

// errSlow is that of a jump host which waits for the next one.
var errSlow = errors.New("no answer in time")

// A hopError is that of a jump host which cannot reach the next one.
type hopError struct{ err error }

func (e *hopError) Error() string { return e.err.Error() }
func (e *hopError) Unwrap() error { return e.err }

// handshake makes a client of a connection, which it closes if that goes wrong.
func handshake(ctx context.Context, conn *meter, c *config, o Options) (*ssh.Client, string, error) {
	clock := newPatience(handshakePatience, func() { conn.Close() })
	defer clock.stop()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	ask := asker(ctx, c, o, clock)
	v, err := newVerifier(c, o, ask)
	if err != nil {
		return nil, "", err
	}
	l, err := newLogin(c, o, ask, conn.err)
	if err != nil {
		return nil, "", err
	}
	defer l.ring.close()
	clientConn, channels, requests, err := ssh.NewClientConn(gather(conn), c.hostport(), &ssh.ClientConfig{
		Config: ssh.Config{Ciphers: slices.Clone(ciphers)},
		User:   c.user,
		HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
			err := v.check(host, remote, key)
			l.wallet.owner = c.user + " " + v.fingerprint
			return err
		},
		HostKeyAlgorithms: v.algorithms(),
		AuthCallback:      l.next,
	})
	if err == nil {
		l.wallet.right()
		return ssh.NewClient(clientConn, channels, requests), v.fingerprint, nil
	}
	conn.Close()
	switch {
	case ctx.Err() != nil:
		return nil, "", ctx.Err()
	case clock.over():
		return nil, "", errSilent
	}
	return nil, "", negotiated(err, v, l)
}
