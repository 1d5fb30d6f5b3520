package repository

import (
	"slices"
	"sync"
	"time"
)

const (
	// leastBuffer is from which size on the memory of a frame is used again, and in what steps there is some. Less is soon cleared and collected.
	leastBuffer = 64 << 10
	// mostSpare is how many bytes are kept for use again, and spareFor for how long after the last one was given back.
	mostSpare = 16 << 20
	spareFor  = 10 * time.Second
)

// buffers is memory for frames. New memory has to be brought in and cleared, which takes longer than to read a file into it, and every few frames it
// is collected: a collection that empties a sync.Pool has it all begin again.
var buffers spare

// spare is memory that nobody uses now.
type spare struct {
	mu    sync.Mutex // guards all
	free  [][]byte   // what was given back last at the end
	bytes int
	idle  *time.Timer // leaves it to the garbage collector
}

// takeBuffer returns n bytes, with anything in them.
func takeBuffer(n int) []byte {
	if n < leastBuffer {
		return make([]byte, n)
	}
	if b := buffers.take(n); b != nil {
		return b[:n]
	}
	return make([]byte, n, (n+leastBuffer-1)/leastBuffer*leastBuffer)
}

// giveBuffer gives back what takeBuffer returned, or nil.
func giveBuffer(b []byte) {
	if cap(b) >= leastBuffer && cap(b)%leastBuffer == 0 {
		buffers.give(b[:0])
	}
}

// take returns what was given back last and has room for n bytes, but not far too much.
func (s *spare) take(n int) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, b := range slices.Backward(s.free) {
		if cap(b) >= n && cap(b) <= 2*n {
			s.free = slices.Delete(s.free, i, i+1)
			s.bytes -= cap(b)
			return b
		}
	}
	return nil
}

func (s *spare) give(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free = append(s.free, b)
	s.bytes += cap(b)
	for s.bytes > mostSpare {
		s.bytes -= cap(s.free[0])
		s.free = slices.Delete(s.free, 0, 1)
	}
	if s.idle == nil {
		s.idle = time.AfterFunc(spareFor, s.drop)
	}
	s.idle.Reset(spareFor)
}

func (s *spare) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free, s.bytes = nil, 0
}
