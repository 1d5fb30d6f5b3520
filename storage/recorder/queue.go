package recorder

import (
	"bytes"
	"io"
	"sync"
)

// maxWaiting is how many bytes of lines wait before the pipe is left to fill. The client keeps as much again.
const maxWaiting = 64 << 20

// A queue holds lines between the goroutine that reads them and the one that carries them out.
type queue struct {
	mu      sync.Mutex // guards the rest
	changed *sync.Cond
	blocks  [][]byte // of whole lines
	bytes   int
	closed  bool
}

func newQueue() *queue {
	q := &queue{}
	q.changed = sync.NewCond(&q.mu)
	return q
}

// put adds a block of whole lines, which it owns from now on. It waits while too much is waiting.
func (q *queue) put(block []byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.bytes > 0 && q.bytes+len(block) > maxWaiting {
		q.changed.Wait()
	}
	q.blocks = append(q.blocks, block)
	q.bytes += len(block)
	q.changed.Broadcast()
}

// close says that nothing more comes.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.changed.Broadcast()
}

// take waits for lines and returns a block of them; ok is false at the end.
func (q *queue) take() (block []byte, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.blocks) == 0 && !q.closed {
		q.changed.Wait()
	}
	if len(q.blocks) == 0 {
		return nil, false
	}
	block = q.blocks[0]
	q.blocks[0] = nil
	q.blocks = q.blocks[1:]
	q.bytes -= len(block)
	q.changed.Broadcast()
	return block, true
}

const (
	// tooLong is the first byte of what stands for a line that was too long. No JSON begins with it.
	tooLong = 0
	// keptOfLong is how much of such a line is kept, for its id.
	keptOfLong = 64
)

// readBlock is how much is read at once. It holds a full pipe of the client.
const readBlock = 1 << 20

// fill moves whole lines from r into the queue until r ends, and closes the queue. A last line without an end is dropped: its
// writer died in the middle. Of a line longer than MaxLine only the beginning comes, marked as tooLong.
func (q *queue) fill(r io.Reader) {
	defer q.close()
	buf := make([]byte, 0, readBlock)
	skipping := false // the rest of a line that was too long
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, make([]byte, cap(buf))...)[:len(buf)]
		}
		n, err := r.Read(buf[len(buf):cap(buf)])
		fresh := len(buf)
		buf = buf[:fresh+n]
		if end := bytes.LastIndexByte(buf[fresh:], '\n') + 1; end > 0 {
			end += fresh
			first := fresh + bytes.IndexByte(buf[fresh:], '\n') + 1
			start := 0
			if skipping || first > MaxLine {
				start = first
			}
			if first > MaxLine && !skipping {
				q.putLong(buf)
			}
			if start < end {
				q.put(bytes.Clone(buf[start:end]))
			}
			skipping = false
			buf = buf[:copy(buf, buf[end:])]
			if cap(buf) > readBlock && len(buf) < readBlock {
				buf = append(make([]byte, 0, readBlock), buf...)
			}
		}
		switch {
		case skipping:
			buf = buf[:0]
		case len(buf) > MaxLine:
			q.putLong(buf)
			skipping = true
			buf = buf[:0]
		}
		if err != nil {
			return
		}
	}
}

// putLong puts the beginning of a line that is too long.
func (q *queue) putLong(line []byte) {
	q.put(append(append([]byte{tooLong}, line[:keptOfLong]...), '\n'))
}
