package repository

import (
	"errors"
	"io"

	"github.com/replicate/replicate"
)

// Files from minChunked bytes on are cut into chunks where their content says so, so that a stretch that moved or stayed is found again.
// These sizes are part of the format only in so far as other ones find less again; chunkingName names them.
const (
	minChunked = 1 << 20   // smaller files are one frame
	minChunk   = 256 << 10 // but for the ends of files and forced cuts
	avgChunk   = 1 << 20   // from here on cuts are made more readily
	maxChunk   = 4 << 20
	// Below avgChunk one position in 2²¹ is a cut, above one in 2¹⁹. Limits further apart make more equal chunks, and then it takes longer
	// behind a change until cuts meet those of before: 2²² and 2¹⁸ store 30 % more beside a changed stretch.
	strictBelow = 1 << (64 - 21)
	looseBelow  = 1 << (64 - 19)
	// gearWindow is how many bytes decide about a cut: each is shifted out after 64.
	gearWindow = 64
	// readBlock is read at once: enough for a disk, and it is still in the processor's cache when it is hashed.
	readBlock = 512 << 10
)

// gearTable is part of the format: entry b is the first 8 bytes, as a little-endian number, of the BLAKE3 of "gear1" and the byte b.
var gearTable = func() (t [256]uint64) {
	for b := range t {
		h := hashOf(append([]byte("gear1"), byte(b)))
		for i := range 8 {
			t[b] |= uint64(h[i]) << (8 * i)
		}
	}
	return t
}()

// A gear looks for the end of one chunk. The hash after a byte is a function of the 64 bytes up to it; a chunk ends behind the first byte whose
// hash is low enough. The zero gear is at the beginning of a chunk.
type gear struct {
	n    int // bytes of the chunk looked at
	hash uint64
}

// cut returns the length of the chunk that begins with b, or 0 if b ends before it does. b must begin with the bytes of the last call.
func (g *gear) cut(b []byte) int {
	if len(b) <= minChunk {
		return 0
	}
	if g.n < minChunk {
		for _, c := range b[minChunk-gearWindow : minChunk] {
			g.hash = g.hash<<1 + gearTable[c]
		}
		g.n = minChunk
	}
	if g.n < avgChunk && g.scan(b[:min(len(b), avgChunk)], strictBelow) {
		return g.n
	}
	if g.n >= avgChunk && g.scan(b[:min(len(b), maxChunk)], looseBelow) || g.n == maxChunk {
		return g.n
	}
	return 0
}

// scan goes on to the end of b and reports whether it stopped before, behind a byte whose hash is below the limit.
func (g *gear) scan(b []byte, below uint64) bool {
	h := g.hash
	for len(b)-g.n >= 4*lane {
		next, found := scanLanes((*[4 * lane]byte)(b[g.n:]), h, below)
		if found {
			break
		}
		h, g.n = next, g.n+4*lane
	}
	for i, c := range b[g.n:] {
		h = h<<1 + gearTable[c]
		if h < below {
			g.hash, g.n = h, g.n+i+1
			return true
		}
	}
	g.hash, g.n = h, len(b)
	return false
}

// lane is how many bytes in a row are looked at beside three other stretches of as many.
const lane = 2 << 10

// scanLanes returns the hash behind b, or that somewhere in it one is below the limit. Each hash needs the one before it: four stretches side by
// side keep a processor busy that would wait otherwise, which is half as fast again.
func scanLanes(b *[4 * lane]byte, h0, below uint64) (h uint64, found bool) {
	var h1, h2, h3 uint64
	for i := lane - gearWindow; i < lane; i++ {
		h1 = h1<<1 + gearTable[b[i]]
		h2 = h2<<1 + gearTable[b[i+lane]]
		h3 = h3<<1 + gearTable[b[i+2*lane]]
	}
	for i := range lane {
		h0 = h0<<1 + gearTable[b[i]]
		h1 = h1<<1 + gearTable[b[i+lane]]
		h2 = h2<<1 + gearTable[b[i+2*lane]]
		h3 = h3<<1 + gearTable[b[i+3*lane]]
		if h0 < below || h1 < below || h2 < below || h3 < below {
			return 0, true
		}
	}
	return h3, false
}

// ends reports whether content alone ends a chunk behind b, given that it does not within b.
func ends(b []byte) bool {
	if len(b) <= minChunk {
		return false
	}
	g := gear{n: len(b) - gearWindow}
	below := uint64(strictBelow)
	if len(b) > avgChunk {
		below = looseBelow
	}
	return len(b) == maxChunk || g.scan(b[:len(b)-1], 0) || g.scan(b, below)
}

// A chunker cuts what it reads into chunks. It works at the speed of memory; it is not safe for use by several goroutines.
type chunker struct {
	r          io.Reader
	sparse     *source                  // r, if that knows its holes
	swap       func(full []byte) []byte // returns what takes the place of a full buffer; nil: the same one
	forced     []int64                  // ascending offsets, all ahead of pos
	trail      *trail                   // nil: nothing is known of the file
	pos        int64                    // offset of buf[start]
	buf        []byte
	start, end int
	err        error // why there is nothing behind buf[end]

	chunk  []byte // the last one
	sum    replicate.Hash
	summed int // how many bytes sum is of, from the beginning of the chunk; 0: there is none
}

// chunkBuffer is the size of a chunker's buffer: the start of a chunk, which is moved when there is no room behind it, is a small part of it.
const chunkBuffer = 2 * maxChunk

// newChunker reads from r, which is at offset 0 of a file. Chunks end at the forced offsets, if not before.
func newChunker(r io.Reader, forced []int64) *chunker {
	c := &chunker{r: r, forced: forced}
	c.sparse, _ = r.(*source)
	return c
}

// follow says what chunks the file had, which makes it faster to find those it still has. It changes no cut.
func (c *chunker) follow(before []Extent) {
	if len(before) > 1 { // a single one has no hash, and may be a small file that was not cut
		c.trail = newTrail(before)
	}
}

// next returns the next chunk, or io.EOF behind the last one. It lies in the buffer, and is valid until the next call if that is not swapped.
func (c *chunker) next() ([]byte, error) {
	for len(c.forced) > 0 && c.forced[0] <= c.pos {
		c.forced = c.forced[1:]
	}
	limit := maxChunk
	if len(c.forced) > 0 {
		limit = int(min(c.forced[0]-c.pos, maxChunk))
	}
	if limit == maxChunk && c.sparse != nil && c.sparse.hole(c.pos) >= maxChunk {
		return c.skip(), nil
	}
	c.summed = 0
	n := c.again(limit)
	if n == 0 {
		var err error
		if n, err = c.cut(limit); err != nil {
			return nil, err
		}
	}
	c.chunk = c.buf[c.start : c.start+n : c.start+n]
	c.start += n
	c.passed()
	return c.chunk, nil
}

// passed goes on behind the chunk.
func (c *chunker) passed() {
	c.pos += int64(len(c.chunk))
	if c.trail != nil {
		c.trail.passed(c.hash())
	}
}

// skip returns a chunk of a hole without reading what has not been read of it.
func (c *chunker) skip() []byte {
	c.chunk, c.sum, c.summed = zeros().data, zeros().hash, maxChunk
	buffered := min(c.end-c.start, maxChunk)
	c.start += buffered
	c.sparse.skip(maxChunk - buffered)
	c.passed()
	return c.chunk
}

// hash returns the hash of the chunk that next returned.
func (c *chunker) hash() replicate.Hash {
	if n := len(c.chunk); c.summed != n {
		c.sum, c.summed = hashOf(c.chunk), n
	}
	return c.sum
}

// again returns the length of the next chunk if it is the one that stood here before, else 0.
func (c *chunker) again(limit int) int {
	if c.trail == nil {
		return 0
	}
	want, ok := c.trail.expect(c.pos)
	n := int(want.Raw)
	if !ok || n > limit {
		return 0
	}
	for c.end-c.start <= n && c.err == nil {
		c.fill()
	}
	if c.end-c.start < n {
		return 0
	}
	b := c.buf[c.start : c.start+n]
	c.sum, c.summed = hashOf(b), n
	if c.sum != want.Hash {
		return 0
	}
	if last := c.end-c.start == n && errors.Is(c.err, io.EOF); !last && n < limit && !ends(b) {
		return 0 // it ended for a reason that is gone
	}
	return n
}

// cut returns the length of the next chunk by its content.
func (c *chunker) cut(limit int) (int, error) {
	var g gear
	for {
		b := c.buf[c.start:min(c.end, c.start+limit)]
		n := g.cut(b)
		if n == 0 && len(b) == limit {
			n = limit
		}
		if n == 0 && c.err != nil {
			if n = len(b); n == 0 || !errors.Is(c.err, io.EOF) {
				return 0, c.err
			}
		}
		if n > 0 {
			return n, nil
		}
		c.fill()
	}
}

// fill reads one block more, moving what is kept to the front when there is no room behind it.
func (c *chunker) fill() {
	if c.buf == nil {
		c.buf = make([]byte, chunkBuffer)
	}
	if len(c.buf)-c.end < readBlock {
		rest := c.buf[c.start:c.end]
		if c.swap != nil {
			c.buf = c.swap(c.buf)
		}
		c.start, c.end = 0, copy(c.buf, rest)
	}
	n, err := io.ReadFull(c.r, c.buf[c.end:c.end+readBlock])
	c.end += n
	if err != nil {
		c.err = err
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		c.err = io.EOF
	}
}
