package fs

import "sync"

// maxReported bounds what is remembered; beyond it errors are reported again, which is better than not at all.
const maxReported = 1000

// damage remembers what was reported, so that a tool that reads a broken file a thousand times makes one line of log.
type damage struct {
	mu   sync.Mutex // guards seen
	seen map[string]bool
}

// first reports whether text was not seen before.
func (d *damage) first(text string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen[text] {
		return false
	}
	if d.seen == nil || len(d.seen) >= maxReported {
		d.seen = make(map[string]bool)
	}
	d.seen[text] = true
	return true
}
