package badnet

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// packet is how much goes over a link in one piece.
	packet = 32 << 10
	// inFlight is how many packets a direction of a connection holds before its sender is made to wait: 8 MiB, more than a
	// connection of 30 ms carries at 1 Gbit/s.
	inFlight = 256
)

// A Link is a line of a certain length and width: what is sent to its address arrives at another one later. It knows nothing of what it
// carries.
type Link struct {
	listener net.Listener
	target   string
	rtt      atomic.Int64 // nanoseconds
	rate     atomic.Int64 // bytes a second, 0 without limit
	down     atomic.Bool
	up, back lane
	running  sync.WaitGroup

	mu     sync.Mutex // guards open and closed
	open   map[*net.TCPConn]bool
	closed bool
}

// NewLink returns a link to an address, host:port. A round trip takes rtt more, as does opening a connection, and each direction
// carries rate bytes a second for all connections together, without limit if 0.
func NewLink(target string, rtt time.Duration, rate int64) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &Link{listener: listener, target: target, open: map[*net.TCPConn]bool{}}
	l.Set(rtt, rate)
	l.running.Go(l.accept)
	return l, nil
}

// Address is where the link begins, host:port.
func (l *Link) Address() string { return l.listener.Addr().String() }

// Set changes length and width for what is sent from now on.
func (l *Link) Set(rtt time.Duration, rate int64) {
	l.rtt.Store(int64(rtt))
	l.rate.Store(rate)
}

// Carried is how many bytes were sent to the target so far, and how many came back.
func (l *Link) Carried() (up, back int64) { return l.up.bytes.Load(), l.back.bytes.Load() }

// Down cuts the line, all connections with it, or mends it. While it is cut new connections are reset.
func (l *Link) Down(down bool) {
	l.down.Store(down)
	if down {
		l.resetAll()
	}
}

// Close ends the link and all connections, and waits for them.
func (l *Link) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.listener.Close()
	l.resetAll()
	l.running.Wait()
}

func (l *Link) resetAll() {
	l.mu.Lock()
	conns := make([]*net.TCPConn, 0, len(l.open))
	for c := range l.open {
		conns = append(conns, c)
	}
	l.mu.Unlock()
	for _, c := range conns {
		reset(c)
	}
}

func (l *Link) accept() {
	for {
		c, err := l.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		l.running.Go(func() { l.serve(c.(*net.TCPConn)) })
	}
}

func (l *Link) serve(client *net.TCPConn) {
	defer reset(client)
	if l.down.Load() || !l.keep(client) {
		return
	}
	defer l.forget(client)
	c, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	server := c.(*net.TCPConn)
	defer reset(server)
	if !l.keep(server) {
		return
	}
	defer l.forget(server)
	open := time.Now().Add(time.Duration(l.rtt.Load()))
	var both sync.WaitGroup
	both.Go(func() { l.carry(server, client, &l.up, open) })
	both.Go(func() { l.carry(client, server, &l.back, open) })
	both.Wait()
}

// keep notes an open connection, unless the link is closed.
func (l *Link) keep(c *net.TCPConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.closed {
		l.open[c] = true
	}
	return !l.closed
}

func (l *Link) forget(c *net.TCPConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, c)
}

// A parcel is on its way until due.
type parcel struct {
	data []byte
	due  time.Time
}

// carry moves what one end sends to the other. Nothing can be sent before the connection is open.
func (l *Link) carry(to, from *net.TCPConn, lane *lane, open time.Time) {
	parcels := make(chan parcel, inFlight)
	var broken atomic.Bool
	l.running.Go(func() {
		defer close(parcels)
		for {
			data := make([]byte, packet)
			n, err := from.Read(data)
			if n > 0 {
				lane.bytes.Add(int64(n))
				sent := lane.reserve(n, l.rate.Load())
				if sent.Before(open) {
					sent = open
				}
				parcels <- parcel{data[:n], sent.Add(time.Duration(l.rtt.Load() / 2))}
			}
			if err != nil {
				broken.Store(!errors.Is(err, io.EOF))
				return
			}
		}
	})
	for p := range parcels {
		time.Sleep(time.Until(p.due))
		if _, err := to.Write(p.data); err != nil {
			reset(from) // and drain what its reader still holds
		}
	}
	if broken.Load() {
		reset(to)
		return
	}
	to.CloseWrite()
}

// reset closes a connection so that the other side sees an error, not an end.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// A lane is one direction of a link.
type lane struct {
	bytes atomic.Int64 // that were sent

	mu   sync.Mutex // guards free
	free time.Time  // when all that was sent has left
}

// reserve returns when n more bytes have left at a rate.
func (l *lane) reserve(n int, rate int64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.free.Before(now) {
		l.free = now
	}
	if rate > 0 {
		l.free = l.free.Add(time.Duration(float64(n) / float64(rate) * float64(time.Second)))
	}
	return l.free
}
