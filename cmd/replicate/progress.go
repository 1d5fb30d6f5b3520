package main

import (
	"fmt"
	"sync"
	"time"
)

// A progress line shows on a terminal what takes longer than a second, and is erased when done.
type progress struct {
	w     *world
	what  string
	start time.Time

	mu    sync.Mutex // guards shown
	shown time.Time
}

const (
	progressAfter = time.Second
	progressEvery = 200 * time.Millisecond
	eraseLine     = "\r\x1b[K"
)

func (w *world) progress(what string) *progress {
	return &progress{w: w, what: what, start: time.Now()}
}

// count shows how many of how many things are done. Both may be called from several goroutines, as often as there is news.
func (p *progress) count(done, total int64) {
	if p.due(time.Now()) {
		fmt.Fprintf(p.w.stderr, "%s%s: %d of %d", eraseLine, p.what, done, total)
	}
}

// files shows how many files are done.
func (p *progress) files(done int64) {
	if p.due(time.Now()) {
		fmt.Fprintf(p.w.stderr, "%s%s: %s", eraseLine, p.what, plural(done, "file"))
	}
}

// stage is count for work of several kinds, of which some cannot be counted.
func (p *progress) stage(what string, done, total int64) {
	if p.what = what; total > 0 {
		p.count(done, total)
	} else if p.due(time.Now()) {
		fmt.Fprintf(p.w.stderr, "%s%s", eraseLine, p.what)
	}
}

// due reports whether a line should be shown now.
func (p *progress) due(now time.Time) bool {
	if !p.w.errTerminal || now.Sub(p.start) < progressAfter {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.shown) < progressEvery {
		return false
	}
	p.shown = now
	return true
}

// update shows how many bytes of how many are done.
func (p *progress) update(done, total int64) {
	now := time.Now()
	if total <= 0 || !p.due(now) {
		return
	}
	elapsed := now.Sub(p.start).Seconds()
	rate := float64(done) / elapsed
	left := ""
	if rate > 0 {
		left = ", " + lasted(time.Duration(float64(total-done)/rate*float64(time.Second))) + " left"
	}
	fmt.Fprintf(p.w.stderr, "%s%s: %s of %s, %s/s%s", eraseLine, p.what, size(done), size(total), size(int64(rate)), left)
}

func (p *progress) done() {
	if !p.shown.IsZero() {
		fmt.Fprint(p.w.stderr, eraseLine)
	}
}
