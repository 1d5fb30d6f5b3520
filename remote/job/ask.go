package job

import (
	"sync"
	"syscall"

	"github.com/replicate/replicate"
)

// A cause is why a job is made to end.
type cause string

// The causes, as a State gives them for its reason.
const (
	asked       cause = "stopped"
	interrupted cause = "interrupted"
	timedOut    cause = "timeout"
	outside     cause = "told to end from outside, as when Docker or the machine stops"
)

// asks are what was asked of a job, by whomever. The first one decides how its end is called.
type asks struct {
	mu    sync.Mutex // guards cause and dead
	cause cause
	dead  bool
	stop  chan struct{} // closed when the job is to end
	kill  chan struct{} // closed when it is to end at once
}

func newAsks() *asks { return &asks{stop: make(chan struct{}), kill: make(chan struct{})} }

// ask says that the job is to end. The second time it is killed.
func (a *asks) ask(why cause, atOnce bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	second := a.cause != ""
	if !second {
		a.cause = why
		close(a.stop)
	}
	if (second || atOnce) && !a.dead {
		a.dead = true
		close(a.kill)
	}
}

// signal carries out a Signal.
func (a *asks) signal(s Signal) error {
	switch s {
	case Stop:
		a.ask(asked, false)
	case Interrupt:
		a.ask(interrupted, false)
	case Kill:
		a.ask(asked, true)
	default:
		return replicate.Errorf(replicate.Usage, "unknown signal %q", string(s))
	}
	return nil
}

// why returns the first cause, "" if nobody has asked for an end.
func (a *asks) why() cause {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.cause
}

// word is what the job's processes are sent.
func (c cause) word() syscall.Signal {
	if c == interrupted {
		return syscall.SIGINT
	}
	return syscall.SIGTERM
}

// of says what it means that a job ended when it was asked to.
func (c cause) of(e ending) ending {
	switch c {
	case "":
		return e
	case interrupted:
		e.status = replicate.Interrupted
	case timedOut:
		e.status, e.code = replicate.Terminated, ExitTimeout
	case asked, outside:
		e.status = replicate.Terminated
	}
	e.reason = string(c)
	return e
}

// early is the end of a job that was asked to end while none of its processes ran.
func (c cause) early() ending {
	return c.of(ending{code: ExitSignal + int(c.word())})
}
