package view

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// spillAt is the size from which rendered bytes are kept in a file instead of in memory.
const spillAt = 1 << 20

// A spill is bytes that are only ever added to. Small ones are in memory, large ones in a file without a name, which goes away
// with the process. One goroutine writes; any number read what was published.
type spill struct {
	dir    string // "" keeps all in memory
	memory []byte
	file   *os.File
	size   int64        // written
	public atomic.Int64 // readable
	mtime  atomic.Int64 // nanoseconds since 1970
	head   atomic.Pointer[spillHead]
}

// spillHead is where the bytes are, at the time of publishing.
type spillHead struct {
	memory []byte
	file   *os.File
}

func newSpill(dir string) *spill { return &spill{dir: dir} }

func (s *spill) Write(p []byte) (int, error) {
	if s.file == nil && s.dir != "" && s.size+int64(len(p)) > spillAt {
		if err := s.toFile(); err != nil {
			return 0, err
		}
	}
	if s.file == nil {
		s.memory = append(s.memory, p...)
	} else if _, err := s.file.WriteAt(p, s.size); err != nil {
		return 0, fmt.Errorf("write to the cache: %w", err)
	}
	s.size += int64(len(p))
	return len(p), nil
}

func (s *spill) toFile() error {
	f, err := nameless(s.dir)
	if err != nil {
		return err
	}
	if _, err := f.Write(s.memory); err != nil {
		return fmt.Errorf("write to the cache: %w", err)
	}
	s.file, s.memory = f, nil
	return nil
}

// nameless makes a file that nobody else can open. The garbage collector closes it, when its last reader is gone.
func nameless(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "rendered-")
	if err != nil {
		return nil, fmt.Errorf("make a file in the cache: %w", err)
	}
	_ = os.Remove(f.Name())
	return f, nil
}

// publish makes what was written readable.
func (s *spill) publish() {
	s.head.Store(&spillHead{s.memory, s.file})
	s.public.Store(s.size)
}

// Size returns how many bytes are readable.
func (s *spill) Size() int64 { return s.public.Load() }

// ReadAt reads what is published.
func (s *spill) ReadAt(p []byte, off int64) (int, error) {
	size := s.public.Load() // before the head, which then has at least as much
	head := s.head.Load()
	if off >= size || head == nil {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), size-off)]
	if head.file != nil {
		return head.file.ReadAt(p, off)
	}
	return bytes.NewReader(head.memory).ReadAt(p, off)
}

// weight is what the spill costs in memory.
func (s *spill) weight() int64 { return int64(len(s.memory)) + 200 }
