package wire_test

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/replicate/replicate/storage/wire"
)

// A dialled connection counts itself.
type dialled struct {
	net.Conn
	line *line
}

func (d *dialled) Close() error {
	d.line.mu.Lock()
	defer d.line.mu.Unlock()
	d.line.open--
	return nil
}

// A line takes a second to be connected.
type line struct {
	down bool

	mu          sync.Mutex // guards what follows
	dials, open int
}

var errLine = errors.New("the line is down")

func (l *line) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dials++
	if l.down {
		return nil, errLine
	}
	l.open++
	return &dialled{line: l}, nil
}

func TestConnectionsAreMadeBeforeTheyAreAskedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{}
		s := &wire.Spares{Dial: l.dial}
		dial := func(address string, want time.Duration) {
			t.Helper()
			begin := time.Now()
			if _, err := s.DialContext(t.Context(), "tcp", address); err != nil || time.Since(begin) != want {
				t.Errorf("%s: %v after %v, want %v", address, err, time.Since(begin), want)
			}
		}
		dial("a", time.Second)
		s.Want(3)
		dial("a", time.Second)
		dial("a", 0)
		dial("b", time.Second)
		dial("a", 0)
		dial("a", time.Second) // there were three
		if l.dials != 6 || l.open != 6 {
			t.Errorf("%d were dialled, %d are open", l.dials, l.open)
		}
		s.Want(3)
		dial("a", time.Second)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if l.open != 7 {
			t.Errorf("%d are open after a while, and 7 were asked for", l.open)
		}
		dial("a", time.Second)
	})
}

func TestNobodyWaitsForAConnectionInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &line{down: true}
		s := &wire.Spares{Dial: l.dial}
		s.Want(2)
		for range 3 {
			if _, err := s.DialContext(t.Context(), "tcp", "a"); !errors.Is(err, errLine) {
				t.Error(err)
			}
		}
		l.down = false
		s.Want(1)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := s.DialContext(ctx, "tcp", "a"); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if l.open != 0 {
			t.Errorf("%d stay open", l.open)
		}
	})
}
