package ssh

import (
	"context"
	"net"
	"sync"
	"time"
)

// spareAge is how long a connection may wait for its use: servers close those that say nothing for minutes, and nobody would notice.
const spareAge = time.Minute

// spares are connections to sockets that were opened before somebody needs them.
type spares struct {
	mu   sync.Mutex // guards list
	list map[string][]*spare
}

// A spare is a connection that is being opened.
type spare struct {
	since time.Time
	done  chan struct{} // closed after conn and err were set
	conn  net.Conn
	err   error
}

// Prepare begins to open n connections to a Unix socket on the host, and returns at once. The next calls of DialSocket take them.
// To open one is a round trip, to open many at once is one too. What goes wrong is told by the call that takes it.
func (c *Conn) Prepare(path string, n int) {
	for range n {
		s := &spare{since: time.Now(), done: make(chan struct{})}
		c.spares.put(path, s)
		c.tasks.Go(func() {
			defer close(s.done)
			s.conn, s.err = c.open(context.Background(), "unix", path)
		})
	}
}

func (s *spares) put(path string, one *spare) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.list == nil {
		s.list = map[string][]*spare{}
	}
	s.list[path] = append(s.list[path], one)
}

// take returns the oldest spare that is young enough, nil if there is none. Those that are too old are closed.
func (s *spares) take(path string) *spare {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.list[path]) > 0 {
		one := s.list[path][0]
		s.list[path] = s.list[path][1:]
		if time.Since(one.since) < spareAge {
			return one
		}
		go one.drop()
	}
	return nil
}

// wait returns the connection of a spare once it is open.
func (s *spare) wait(ctx context.Context) (net.Conn, error) {
	select {
	case <-s.done:
		return s.conn, s.err
	case <-ctx.Done():
		go s.drop()
		return nil, ctx.Err()
	}
}

// drop closes a spare once it is open.
func (s *spare) drop() {
	<-s.done
	if s.conn != nil {
		s.conn.Close()
	}
}
