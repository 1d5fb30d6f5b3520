package badnet

import (
	"io"
	"net/http"
	"sync/atomic"
	"time"
)

// An Exchange is one request that came to a proxy, and its answer.
type Exchange struct {
	Request  string    // method, path and query
	Range    string    // of bytes, as the request has it
	Dialled  time.Time // when its connection was, if it is the first one on it; else zero
	Came     time.Time
	Answered time.Time // when the head of the answer left; zero if none did
	RTT      time.Duration
}

// Exchanges returns the requests that came since the last call, in the order in which they came. The first call begins to note them.
func (p *Proxy) Exchanges() []Exchange {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.noting = true
	all := make([]Exchange, len(p.exchanges))
	for i, e := range p.exchanges {
		all[i] = *e
	}
	p.exchanges = nil
	return all
}

// Trips returns how many round trips followed one another in some exchanges, those for opening connections included. What was sent when an answer
// had come counts as sent because of it: that is never less than the true number.
func Trips(all []Exchange) int {
	most := 0
	deep := make([]int, len(all)) // round trips up to each answer
	for i, e := range all {
		after := func(then time.Time) (trips int) {
			for j, before := range all[:i] {
				if !before.Answered.IsZero() && !before.Answered.Add(e.RTT/2).After(then) {
					trips = max(trips, deep[j])
				}
			}
			return trips
		}
		deep[i] = after(e.Came.Add(-e.RTT/2)) + 1
		if !e.Dialled.IsZero() {
			deep[i] = max(deep[i], after(e.Dialled)+2)
		}
		most = max(most, deep[i])
	}
	return most
}

// note notes a request, if that is wanted, and returns a writer that notes when its answer begins.
func (p *Proxy) note(w http.ResponseWriter, r *http.Request) http.ResponseWriter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.noting {
		return w
	}
	e := &Exchange{Request: r.Method + " " + r.URL.RequestURI(), Range: r.Header.Get("Range"), Came: time.Now(), RTT: p.weather.RTT}
	if c := connOf(r); !c.used.Swap(true) {
		e.Dialled = c.dialled
	}
	p.exchanges = append(p.exchanges, e)
	return &noted{ResponseWriter: w, proxy: p, exchange: e}
}

// A noted answer tells its exchange when it begins.
type noted struct {
	http.ResponseWriter
	proxy    *Proxy
	exchange *Exchange
	begun    atomic.Bool
}

// Unwrap lets a ResponseController find what is underneath.
func (n *noted) Unwrap() http.ResponseWriter { return n.ResponseWriter }

func (n *noted) WriteHeader(status int) {
	n.begin()
	n.ResponseWriter.WriteHeader(status)
}

func (n *noted) Write(p []byte) (int, error) {
	n.begin()
	return n.ResponseWriter.Write(p)
}

func (n *noted) ReadFrom(r io.Reader) (int64, error) {
	n.begin()
	return io.Copy(n.ResponseWriter, r)
}

func (n *noted) begin() {
	if n.begun.Swap(true) {
		return
	}
	n.proxy.mu.Lock()
	defer n.proxy.mu.Unlock()
	n.exchange.Answered = time.Now()
}
