package ssh

import (
	"context"
	"math/rand/v2"
	"time"
)

// The pauses between attempts to connect again: the first is short because most cuts are, the last bounds what a person waits for
// after the network is back, and keeps many clients of one host below its MaxStartups.
const (
	firstPause = 500 * time.Millisecond
	lastPause  = 30 * time.Second
)

// A Backoff says how long to wait before the next attempt to connect again. The zero value is ready. It is for one goroutine.
type Backoff struct {
	attempts int
}

// Next returns the next pause: half a second, doubled each time, at most 30 s, of which up to a quarter is left out by chance so that
// clients which were cut off together do not come back together.
func (b *Backoff) Next() time.Duration {
	pause := min(firstPause<<min(b.attempts, 10), lastPause)
	b.attempts++
	return pause - time.Duration(rand.Int64N(int64(pause/4)))
}

// Wait waits for the next pause, or until the context ends, whose error it returns.
func (b *Backoff) Wait(ctx context.Context) error {
	timer := time.NewTimer(b.Next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Reset begins again with the first pause. It is called once a connection has proved itself.
func (b *Backoff) Reset() { b.attempts = 0 }
