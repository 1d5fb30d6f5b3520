package storage

import (
	"context"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/replicate/replicate"
)

const (
	// leastHedge is the least time after which a read is asked for a second time: below it the second request costs more than it wins.
	leastHedge = 200 * time.Millisecond
	// firstHedge is the same for the first read, which makes a connection and may ask for credentials.
	firstHedge = time.Second
	// hedgeShare is how many reads there are for each that is asked for twice, at least. On a line that is full all reads are slow, and asking
	// twice makes it fuller.
	hedgeShare = 20
	// remembered is how many answers the running median is of.
	remembered = 63
)

// answers remembers how long the last reads took to begin.
type answers struct {
	mu    sync.Mutex // guards what follows
	times [remembered]time.Duration
	n     int // how many were noted
	twice int // how many were asked for twice
}

func (a *answers) note(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.times[a.n%remembered] = d
	a.n++
}

// patience is how long a read may take to begin before it is asked for a second time: twice the median.
func (a *answers) patience() time.Duration {
	a.mu.Lock()
	times := slices.Clone(a.times[:min(a.n, remembered)])
	a.mu.Unlock()
	if len(times) == 0 {
		return firstHedge
	}
	slices.Sort(times)
	return max(leastHedge, 2*times[len(times)/2])
}

// spend reports whether a read may be asked for a second time, and counts it.
func (a *answers) spend() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.twice*hedgeShare > a.n {
		return false
	}
	a.twice++
	return true
}

// An answer is what one of two requests brought.
type answer struct {
	body io.ReadCloser
	err  error
	from int // the number of the request
}

// hedge opens an object by whichever of two requests answers first. The second one is made only when the first is slow. The caller
// calls end when it is done with the body.
func (r *retrier) hedge(ctx context.Context, open func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, context.CancelFunc, error) {
	answers, decided := make(chan answer), make(chan struct{})
	defer close(decided)
	var ends []context.CancelFunc
	ask := func() {
		ctx, end := context.WithCancel(ctx)
		from := len(ends)
		ends = append(ends, end)
		go func() {
			body, err := open(ctx)
			select {
			case answers <- answer{body, err, from}:
			case <-decided:
				if err == nil {
					body.Close()
				}
			}
		}()
	}
	began := time.Now()
	ask()
	slow := time.NewTimer(r.answers.patience())
	defer slow.Stop()
	for failures := 0; ; {
		select {
		case <-slow.C:
			if r.answers.spend() {
				ask()
			}
		case a := <-answers:
			failures++
			if a.err != nil && replicate.KindOf(a.err) == replicate.Unavailable && failures < len(ends) {
				continue // the other one may do better
			}
			for from, end := range ends {
				if from != a.from || a.err != nil {
					end()
				}
			}
			if a.err == nil {
				r.answers.note(time.Since(began))
			}
			return a.body, ends[a.from], a.err
		}
	}
}
