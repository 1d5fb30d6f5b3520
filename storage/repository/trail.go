package repository

import "github.com/replicate/replicate"

// A trail is the chunks that a file had before.
type trail struct {
	chunks []Extent
	at     map[int64]int          // by offset
	by     map[replicate.Hash]int // by content
	next   int                    // the chunk behind the last that was met again, -1 if that was none
}

func newTrail(chunks []Extent) *trail {
	t := &trail{chunks: chunks, at: make(map[int64]int, len(chunks)), by: make(map[replicate.Hash]int, len(chunks)), next: -1}
	var off int64
	for i, x := range chunks {
		t.at[off], t.by[x.Hash] = i, i
		off += int64(x.Raw)
	}
	return t
}

// expect returns the chunk that may stand at an offset now: the one that followed the last, else the one that stood there.
func (t *trail) expect(pos int64) (Extent, bool) {
	i, ok := t.next, t.next >= 0
	if !ok {
		i, ok = t.at[pos]
	}
	if !ok || i == len(t.chunks) {
		return Extent{}, false
	}
	return t.chunks[i], true
}

// passed notes the chunk that stands there.
func (t *trail) passed(h replicate.Hash) {
	if i, ok := t.by[h]; ok {
		t.next = i + 1
	} else {
		t.next = -1
	}
}
