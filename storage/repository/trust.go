package repository

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/replicate/replicate"
)

// Writers of an outbox cannot ask whether a pack that they want to use again is still there. They rely on packs of this outbox, of their experiment, and
// on those that the uploader saw. All others' files are stored again. The uploader checks in any case: this only makes it rare that it
// must look for bytes that are nowhere any more.

// seenFor is how long a pack may be relied on that was seen and was not condemned: a condemned one is readable for WAIT.
func (s *Spool) seenFor() time.Duration { return s.remote.timing.wait / 2 }

// trusted returns the cached files whose packs may be relied on.
func (s *Spool) trusted(files []cachedFile) []cachedFile {
	if s.outbox == nil {
		return files
	}
	seen := s.outbox.readSeen()
	now := s.now()
	known := map[replicate.Hash]bool{}
	ok := func(p replicate.Hash) bool {
		good, asked := known[p]
		if !asked {
			good = now.Before(seen[p]) || s.outbox.holds(p)
			known[p] = good
		}
		return good
	}
	return slices.DeleteFunc(files, func(c cachedFile) bool {
		for _, x := range c.extents {
			if !ok(x.Pack) {
				return true
			}
		}
		return c.recipe != nil && !ok(c.recipe.Pack) || slices.ContainsFunc(c.packs, func(p replicate.Hash) bool { return !ok(p) })
	})
}

// holds reports whether a pack waits here to be sent.
func (o *outbox) holds(p replicate.Hash) bool {
	_, err := os.Stat(o.path(packsName, p.String()))
	return err == nil
}

// readSeen returns until when packs may be relied on.
func (o *outbox) readSeen() map[replicate.Hash]time.Time {
	seen := map[replicate.Hash]time.Time{}
	text, err := os.ReadFile(o.path(seenName))
	if err != nil {
		return seen
	}
	for line := range bytes.Lines(text) {
		name, until, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		p, err := replicate.ParseHash(string(name))
		n, err2 := strconv.ParseInt(string(until), 10, 64)
		if err == nil && err2 == nil {
			seen[p] = time.Unix(n, 0)
		}
	}
	return seen
}

// saveSeen replaces what readSeen reads, without what has lapsed.
func (o *outbox) saveSeen(seen map[replicate.Hash]time.Time) {
	now := o.now()
	var text []byte
	for p, until := range seen {
		if now.After(until) {
			delete(seen, p)
			continue
		}
		text = fmt.Appendf(text, "%s %d\n", p, until.Unix())
	}
	_ = ReplaceFile(o.path(seenName), text) // without it more is stored again
}
