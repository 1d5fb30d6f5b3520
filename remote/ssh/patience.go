package ssh

import (
	"sync"
	"time"
)

// A patience runs out once unless it is stopped. It stands still while a person is asked, and begins anew then.
type patience struct {
	span  time.Duration
	timer *time.Timer

	mu  sync.Mutex // guards ran
	ran bool
}

// newPatience calls out when a span has passed.
func newPatience(span time.Duration, out func()) *patience {
	p := &patience{span: span}
	p.timer = time.AfterFunc(span, func() {
		p.mu.Lock()
		p.ran = true
		p.mu.Unlock()
		out()
	})
	return p
}

func (p *patience) stop()    { p.timer.Stop() }
func (p *patience) restart() { p.timer.Reset(p.span) }

// over says whether it ran out.
func (p *patience) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ran
}
