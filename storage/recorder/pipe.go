package recorder

import (
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// An inlet is the pipe that a client writes to. It can be told that the client is gone: it then gives what is left and ends, also
// when a child of the client still holds the pipe open. The file must be one that the runtime can wait for.
type inlet struct {
	file     *os.File
	draining atomic.Bool
}

func (p *inlet) Read(b []byte) (int, error) {
	if !p.draining.Load() {
		n, err := p.file.Read(b)
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
	}
	return p.readLeft(b)
}

// readLeft reads without waiting.
func (p *inlet) readLeft(b []byte) (n int, err error) {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	for {
		if err := p.file.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, os.ErrNoDeadline) {
			return 0, err
		}
		waitErr := conn.Read(func(fd uintptr) bool {
			n, err = syscall.Read(int(fd), b)
			return true
		})
		switch {
		case errors.Is(waitErr, os.ErrDeadlineExceeded), err == syscall.EINTR: // drain came between
			continue
		case waitErr != nil:
			return 0, waitErr
		case err != nil || n <= 0: // EAGAIN: empty
			return 0, io.EOF
		}
		return n, nil
	}
}

// drain says that nothing more will be written.
func (p *inlet) drain() {
	p.draining.Store(true)
	_ = p.file.SetReadDeadline(time.Unix(1, 0)) // wakes a read that waits; a file without deadlines never waits
}

// maxText keeps a remark below the 4 KiB that a pipe takes whole or not at all, also if each of its bytes is escaped.
const maxText = 1000

// An outlet is the pipe that a client reads from.
type outlet struct {
	file *os.File
	mu   sync.Mutex // one line at a time
}

// answer writes a line, and waits until it is written.
func (o *outlet) answer(line []byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, err := o.file.Write(line)
	return err
}

// remark writes a line for people if the pipe takes it at once.
func (o *outlet) remark(r Remark) {
	r = Remark{cut(r.Note), cut(r.Warning), cut(r.Hint)}
	line := encode(r)
	if !o.mu.TryLock() {
		return
	}
	defer o.mu.Unlock()
	conn, err := o.file.SyscallConn()
	if err != nil {
		return
	}
	written := 0
	_ = conn.Write(func(fd uintptr) bool { // a client that is gone needs no remarks
		written, _ = syscall.Write(int(fd), line)
		return true
	})
	if written > 0 && written < len(line) { // no pipe: a socket
		_, _ = o.file.Write(line[written:])
	}
}

func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}

// hangUp ends a write that waits for a client that is gone.
func (o *outlet) hangUp() {
	_ = o.file.SetWriteDeadline(time.Unix(1, 0))
}
