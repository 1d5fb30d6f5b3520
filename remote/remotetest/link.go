package remotetest

import (
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// A Quality is how bad a line is. The zero value is as good as none.
type Quality struct {
	Latency time.Duration // one way: half of what a round trip takes
	Jitter  time.Duration // at most so much more, by chance; nothing overtakes
	Rate    int64         // bytes per second each way; 0 for no limit
}

// inFlight bounds what is on its way, in pieces of pieceSize: 4 MB, as in a TCP connection over a long line. Whoever sends more waits.
const (
	inFlight  = 128
	pieceSize = 32 << 10
)

// A Link is a line to an address, as bad as a test wants it. It listens on this machine. All its methods may be called at any time.
type Link struct {
	Name string // of the host at its end as ssh knows it, if it is a host's
	Addr string // 127.0.0.1:port

	target   string
	listener net.Listener
	done     chan struct{}
	wait     sync.WaitGroup

	mu      sync.Mutex // guards what follows
	quality Quality
	flow    chan struct{} // closed unless frozen
	open    map[net.Conn]bool
	count   int
}

// NewLink lays a line to a TCP address, until the test ends.
func NewLink(t testing.TB, target string, quality Quality) *Link {
	t.Helper()
	l, err := layLink(target, quality)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func layLink(target string, quality Quality) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &Link{
		Addr: listener.Addr().String(), target: target, listener: listener, done: make(chan struct{}), quality: quality,
		flow: make(chan struct{}), open: map[net.Conn]bool{},
	}
	close(l.flow)
	l.wait.Go(l.accept)
	return l, nil
}

// Close takes the line away, with what is on it.
func (l *Link) Close() {
	close(l.done)
	l.listener.Close()
	l.Cut()
	l.wait.Wait()
}

// Set changes the quality of the line, for what is sent from now on.
func (l *Link) Set(quality Quality) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.quality = quality
}

// Freeze stops everything on the line and tells nobody, until Thaw.
func (l *Link) Freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.flow:
		l.flow = make(chan struct{})
	default: // frozen already
	}
}

// Thaw lets what stopped go on.
func (l *Link) Thaw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.flow:
	default:
		close(l.flow)
	}
}

// Cut resets every connection on the line. New ones can be made.
func (l *Link) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.open {
		conn.(*net.TCPConn).SetLinger(0)
		conn.Close()
	}
	clear(l.open)
}

// Connections counts the connections that were made over the line.
func (l *Link) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

func (l *Link) accept() {
	for {
		near, err := l.listener.Accept()
		if err != nil {
			return
		}
		l.mu.Lock()
		l.count++
		l.open[near] = true
		latency := l.quality.Latency
		l.mu.Unlock()
		l.wait.Go(func() { l.serve(near, time.Now().Add(3*latency)) })
	}
}

// serve carries one connection, whose other end hears of it at ready: after the three ways of a handshake.
func (l *Link) serve(near net.Conn, ready time.Time) {
	defer l.close(near)
	there := make(chan piece, inFlight)
	l.wait.Go(func() { l.read(near, there, ready) })
	if !l.until(ready) {
		return
	}
	far, err := net.Dial("tcp", l.target)
	if err != nil {
		return
	}
	defer l.close(far)
	l.mu.Lock()
	l.open[far] = true
	l.mu.Unlock()
	back := make(chan piece, inFlight)
	l.wait.Go(func() { l.read(far, back, time.Time{}) })
	var both sync.WaitGroup
	both.Go(func() { l.write(far, there) })
	both.Go(func() { l.write(near, back) })
	both.Wait()
}

func (l *Link) close(conn net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, conn)
	conn.Close()
}

// A piece arrives at the other end at its time. One without bytes is the end.
type piece struct {
	at    time.Time
	bytes []byte
}

// read puts what one end sends on its way, nothing of it before ready.
func (l *Link) read(from net.Conn, way chan<- piece, ready time.Time) {
	sent, arrived := time.Now(), ready
	for {
		bytes := make([]byte, pieceSize)
		n, err := from.Read(bytes)
		l.mu.Lock()
		q := l.quality
		l.mu.Unlock()
		if now := time.Now(); now.After(sent) {
			sent = now
		}
		if q.Rate > 0 {
			sent = sent.Add(time.Duration(float64(n) / float64(q.Rate) * float64(time.Second)))
		}
		at := sent.Add(q.Latency)
		if q.Jitter > 0 {
			at = at.Add(rand.N(q.Jitter))
		}
		if at.After(arrived) {
			arrived = at
		}
		if n > 0 && !l.put(way, piece{arrived, bytes[:n]}) {
			return
		}
		if err != nil {
			l.put(way, piece{arrived, nil})
			return
		}
	}
}

func (l *Link) put(way chan<- piece, p piece) bool {
	select {
	case way <- p:
		return true
	case <-l.done:
		return false
	}
}

// write delivers what is on its way, each piece at its time.
func (l *Link) write(to net.Conn, way <-chan piece) {
	for {
		select {
		case <-l.done:
			return
		case p := <-way:
			if !l.until(p.at) || !l.flows() {
				return
			}
			if p.bytes == nil {
				to.(*net.TCPConn).CloseWrite()
				return
			}
			if _, err := to.Write(p.bytes); err != nil {
				l.drop(way)
				return
			}
		}
	}
}

// drop takes what nobody receives any more, so that its sender hears of the end.
func (l *Link) drop(way <-chan piece) {
	for {
		select {
		case <-l.done:
			return
		case p := <-way:
			if p.bytes == nil {
				return
			}
		}
	}
}

// until waits for a time; false says that the line is gone.
func (l *Link) until(at time.Time) bool {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.done:
		return false
	}
}

// flows waits until the line is not frozen; false says that it is gone.
func (l *Link) flows() bool {
	for {
		l.mu.Lock()
		flow := l.flow
		l.mu.Unlock()
		select {
		case <-flow:
		case <-l.done:
			return false
		}
		l.mu.Lock()
		same := flow == l.flow
		l.mu.Unlock()
		if same {
			return true
		}
	}
}
