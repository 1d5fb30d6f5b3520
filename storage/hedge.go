package storage

import (
	"context"
	"io"
	"slices"
	"sync"
	"sync/atomic"
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
	// largeRead is the size from which a read is asked for twice only if no other read gets anything meanwhile: else the line is full, all reads
	// on it are slow to begin, and what comes of the one that is given up is carried for nothing.
	largeRead = 1 << 20
	// remembered is how many answers the running median is of.
	remembered = 63
)

// answers remembers how long the last reads took to begin.
type answers struct {
	mu    sync.Mutex // guards what follows
	times [remembered]time.Duration
	n     int // how many were noted
	twice int // how many were asked for twice

	received atomic.Int64 // bytes of all reads
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

// hedge opens n bytes of an object, all if n < 0, by whichever of two requests answers first. The second one is made only when the first is slow. The
// caller calls end when it is done with the body.
func (r *retrier) hedge(ctx context.Context, n int64, open func(context.Context) (io.ReadCloser, error)) (io.ReadCloser, context.CancelFunc, error) {
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
	began, received := time.Now(), r.answers.received.Load()
	ask()
	patience := r.answers.patience()
	slow := time.NewTimer(patience)
	defer slow.Stop()
	for failures := 0; ; {
		select {
		case <-slow.C:
			if now := r.answers.received.Load(); now > received && (n < 0 || n >= largeRead) {
				received = now
				slow.Reset(patience)
			} else if r.answers.spend() {
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
