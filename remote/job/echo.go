package job

import (
	"io"
	"sync"
	"time"
)

// echoed is how much of the log is written to stdout too, so that its first lines are there before somebody has asked for the log. Docker's
// streams hold this much for a client that does not read; with a few times more they stop the job.
const echoed = 256 << 10

// flushEcho is how long the end waits for stdout.
const flushEcho = time.Second

// An echo copies the first frames to a writer, which may block for ever. A nil echo does nothing.
type echo struct {
	mu    sync.Mutex // guards left and text
	left  int
	text  []byte        // not written yet
	more  chan struct{} // has room for one: there is text
	ended chan struct{} // closed when nothing is written any more
}

// startEcho begins to write to out once that is free.
func startEcho(out io.Writer, free <-chan struct{}) *echo {
	if out == nil {
		return nil
	}
	e := &echo{left: echoed, more: make(chan struct{}, 1), ended: make(chan struct{})}
	go func() {
		<-free
		e.run(out)
	}()
	return e
}

// write takes a copy of a frame. It never waits. A frame that is too large for what is left ends the echo.
func (e *echo) write(frame []byte) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.left < 0 {
		return
	}
	if len(frame) > e.left {
		e.close()
		return
	}
	e.left -= len(frame)
	e.text = append(e.text, frame...)
	select {
	case e.more <- struct{}{}:
	default:
	}
}

// close says that nothing follows. The caller has the lock.
func (e *echo) close() {
	if e.left >= 0 {
		e.left = -1
		close(e.more)
	}
}

// flush waits a moment until everything is written.
func (e *echo) flush() {
	if e == nil {
		return
	}
	e.mu.Lock()
	e.close()
	e.mu.Unlock()
	select {
	case <-e.ended:
	case <-time.After(flushEcho):
	}
}

func (e *echo) run(out io.Writer) {
	defer close(e.ended)
	for open := true; open; {
		_, open = <-e.more
		e.mu.Lock()
		text := e.text
		e.text = nil
		e.mu.Unlock()
		if _, err := out.Write(text); err != nil {
			return
		}
	}
}
