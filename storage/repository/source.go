package repository

import (
	"errors"
	"io"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A source reads a file from its beginning up to the size it had, and knows its holes: stretches that were never written are zeros, and need not
// be read to be known.
type source struct {
	file     *os.File
	size     int64
	at       int64 // what is read next
	from, to int64 // the hole found last
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	if s.at >= s.size {
		return 0, io.EOF
	}
	n, err := s.file.ReadAt(p[:min(int64(len(p)), s.size-s.at)], s.at)
	s.at += int64(n)
	return n, err
}

// skip goes on behind n bytes.
func (s *source) skip(n int) { s.at += int64(n) }

// hole returns how many bytes from off on are in a hole. It is to be called with ascending offsets. On a file system that does not tell, there is
// no hole.
func (s *source) hole(off int64) int64 {
	for off >= s.to && s.to < s.size {
		s.find(off)
	}
	if off < s.from {
		return 0
	}
	return max(s.to-off, 0)
}

// find finds the next hole that ends behind off.
func (s *source) find(off int64) {
	from, err := s.file.Seek(off, unix.SEEK_HOLE)
	if err != nil || from >= s.size {
		s.from, s.to = s.size, s.size
		return
	}
	to, err := s.file.Seek(from, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // no data behind it
		to = s.size
	case err != nil || to <= from: // it is being written
		from, to = s.size, s.size
	}
	s.from, s.to = from, min(to, s.size)
}

// zeros is the chunk that a hole consists of. Content does not cut zeros, so that it is as long as chunks can be.
var zeros = sync.OnceValue(func() cutChunk {
	data := make([]byte, maxChunk)
	return cutChunk{data: data, hash: hashOf(data)}
})
