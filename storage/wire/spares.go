package wire

import (
	"context"
	"net"
	"sync"
	"time"
)

// spareFor is how long a connection that nobody asked for is kept: shorter than servers keep one that nothing comes through.
const spareFor = 5 * time.Second

// Spares dials connections before they are asked for, so that who is about to make many requests at the same time waits for one handshake
// of TCP, not for two.
type Spares struct {
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	mu      sync.Mutex // guards what follows
	wanted  int        // to be dialled with the next one
	address string     // that they lead to
	left    int        // that nobody has asked for
	coming  chan net.Conn
}

// Want makes n connections, at least one, to the next address that is dialled.
func (s *Spares) Want(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = n
}

// DialContext returns a connection that is there or on its way, or dials one.
func (s *Spares) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if coming := s.take(network, address); coming != nil {
		select {
		case c := <-coming:
			if c != nil {
				return c, nil
			}
		case <-ctx.Done():
			go discard(coming, 1)
		}
	}
	return s.Dial(ctx, network, address)
}

// take returns where a connection will come from, nil if none will.
func (s *Spares) take(network, address string) <-chan net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted > 0 {
		s.begin(network, address)
	}
	if s.left == 0 || s.address != address {
		return nil
	}
	s.left--
	return s.coming
}

// begin dials what is wanted. s.mu is held.
func (s *Spares) begin(network, address string) {
	coming := make(chan net.Conn, s.wanted)
	for range s.wanted {
		go func() {
			c, err := s.Dial(context.Background(), network, address)
			if err != nil {
				c = nil // who waits for it dials again, and learns why
			}
			coming <- c
		}()
	}
	go discard(s.coming, s.left)
	s.address, s.coming, s.left, s.wanted = address, coming, s.wanted, 0
	time.AfterFunc(spareFor, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.coming == coming {
			go discard(coming, s.left)
			s.left = 0
		}
	})
}

// discard closes n connections that come.
func discard(coming <-chan net.Conn, n int) {
	for range n {
		if c := <-coming; c != nil {
			c.Close()
		}
	}
}
