// Package wire is what stores that speak HTTP have in common: what their requests carried, the clock of the answers, bodies that can be
// sent again, and which errors of a network mean "not now".
//
// It knows no cloud and reads no bodies.
package wire

import (
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/replicate/replicate/storage"
)

const (
	// IdleConns is how many connections to one host are kept for the next requests. The default of net/http, 2, undoes all
	// parallelism: each further request would begin with a handshake.
	IdleConns = 64
	// Connect bounds how long a connection may take to be made, so that a dead address is given up long before an attempt is.
	Connect = 10 * time.Second
)

// A Meter counts requests and their bytes.
type Meter struct {
	requests, sent, received atomic.Int64
}

// Traffic returns what was counted so far. Bytes are those of bodies.
func (m *Meter) Traffic() storage.Traffic {
	return storage.Traffic{Requests: m.requests.Load(), Sent: m.sent.Load(), Received: m.received.Load()}
}

// Do makes a request by next and counts it. The date of the answer is left where NoteDate asked for it.
func (m *Meter) Do(r *http.Request, next func(*http.Request) (*http.Response, error)) (*http.Response, error) {
	m.requests.Add(1)
	if r.Body != nil && r.Body != http.NoBody {
		r = r.Clone(r.Context()) // a request that is being made must not be changed
		r.Body = &counted{r.Body, &m.sent}
	}
	answer, err := next(r)
	if err != nil {
		return nil, err
	}
	if note, ok := r.Context().Value(dateKey{}).(*time.Time); ok {
		if date, err := http.ParseTime(answer.Header.Get("Date")); err == nil {
			*note = date
		}
	}
	answer.Body = &counted{answer.Body, &m.received}
	return answer, nil
}

type dateKey struct{}

// NoteDate returns a context for one request, and where the Date of its answer, an error too, is found afterwards: zero if none came.
func NoteDate(ctx context.Context) (context.Context, *time.Time) {
	date := new(time.Time)
	return context.WithValue(ctx, dateKey{}, date), date
}

// A counted body adds what is read of it.
type counted struct {
	io.ReadCloser
	bytes *atomic.Int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.bytes.Add(int64(n))
	return n, err
}
