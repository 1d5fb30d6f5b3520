package ssh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// A native is a connection made by x/crypto/ssh.
type native struct {
	client *ssh.Client
	count  atomic.Int64
	way    []net.Conn // what the connection runs through, that of the nearest host first
}

// A meter counts what comes in, and keeps the error that ended it.
type meter struct {
	net.Conn
	count *atomic.Int64
	ended atomic.Pointer[error]
}

func (m *meter) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	ackNow(m.Conn)
	m.count.Add(int64(n))
	if err != nil {
		m.ended.CompareAndSwap(nil, &err)
	}
	return n, err
}

// A gatherer reads as much as is there at once. What makes packets of it asks for the first bytes of each, and then for the rest: two calls of the system or more
// for every 32 KiB.
type gatherer struct {
	net.Conn
	from *bufio.Reader
}

// gathered is how much that is at most.
const gathered = 256 << 10

func gather(c net.Conn) gatherer { return gatherer{c, bufio.NewReaderSize(c, gathered)} }

func (g gatherer) Read(p []byte) (int, error) { return g.from.Read(p) }

// err returns what ended it, nil while it goes on.
func (m *meter) err() error {
	if err := m.ended.Load(); err != nil {
		return *err
	}
	return nil
}

func (n *native) open(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := n.client.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return channelStream(address, conn), nil
}

// channelStream makes a stream of a channel.
func channelStream(name string, conn net.Conn) *stream {
	return newStream(name, conn, halfCloser{conn}, func() { go conn.Close() }, nil)
}

// A halfCloser closes one way of a channel.
type halfCloser struct{ net.Conn }

func (h halfCloser) Close() error {
	return h.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

func (n *native) exec(ctx context.Context, command string) (process, error) {
	session, err := within(ctx, n.newSession, func(s *ssh.Session) { s.Close() })
	if err != nil {
		return nil, err
	}
	p := &nativeProcess{session: session, done: make(chan struct{})}
	if err := p.start(ctx, command); err != nil {
		go session.Close()
		return nil, err
	}
	return p, nil
}

// newSession opens a session. sshd counts one that has just ended for a moment more: for so long as a ping takes, for sure.
func (n *native) newSession() (*ssh.Session, error) {
	session, err := n.client.NewSession()
	if _, refused := errors.AsType[*ssh.OpenChannelError](err); refused && n.ping() == nil {
		return n.client.NewSession()
	}
	return session, err
}

func (n *native) ping() error {
	_, _, err := n.client.SendRequest("keepalive@openssh.com", true, nil)
	return err
}

func (n *native) received() int64 { return n.count.Load() }

func (n *native) wait() error { return n.client.Wait() }

func (n *native) close() {
	for _, conn := range n.way { // the first one frees all calls, even on a link that is frozen
		conn.Close()
	}
}

// within runs f, and returns its result unless the context ends before. Then the late result is dropped.
func within[T any](ctx context.Context, f func() (T, error), drop func(T)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() {
		value, err := f()
		done <- result{value, err}
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				drop(r.value)
			}
		}()
		var zero T
		return zero, ctx.Err()
	}
}

// A nativeProcess is a process on a native connection.
type nativeProcess struct {
	*stream
	session *ssh.Session
	stderr  tail
	done    chan struct{} // closed after status and err were set
	status  int
	err     error
}

func (p *nativeProcess) start(ctx context.Context, command string) error {
	in, err := p.session.StdinPipe()
	if err != nil {
		return err
	}
	out, err := p.session.StdoutPipe()
	if err != nil {
		return err
	}
	p.session.Stderr = &p.stderr
	_, err = within(ctx, func() (struct{}, error) { return struct{}{}, p.session.Start(command) }, func(struct{}) { p.session.Close() })
	if err != nil {
		return fmt.Errorf("start a command: %w", err)
	}
	p.stream = newStream(command, out, in, func() { go p.session.Close() }, nil)
	go func() { // ends with the command or the connection
		defer close(p.done)
		p.status, p.err = exitStatus(p.session.Wait())
	}()
	return nil
}

func (p *nativeProcess) wait() (int, string, error) {
	<-p.done
	return p.status, p.stderr.String(), p.err
}
