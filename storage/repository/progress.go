package repository

// A progress tells somebody how far a piece of work is, from one goroutine. A nil progress tells nobody.
type progress struct {
	steps chan int64
	ended chan struct{}
}

// showProgress begins to call show, nil for nobody, whenever add is called. stop must be called.
func showProgress(total int64, show func(done, total int64)) *progress {
	if show == nil {
		return nil
	}
	p := &progress{steps: make(chan int64, 64), ended: make(chan struct{})}
	go func() {
		defer close(p.ended)
		var done int64
		for n := range p.steps {
			done += n
			show(done, total)
		}
	}()
	return p
}

// add counts n more.
func (p *progress) add(n int64) {
	if p != nil {
		p.steps <- n
	}
}

// stop returns when everything that was added has been shown.
func (p *progress) stop() {
	if p != nil {
		close(p.steps)
		<-p.ended
	}
}
