package ssh

import (
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// A stream makes a net.Conn of two ends that know no deadlines and whose reads outlive their close: a channel of SSH is closed only
// once the host has said so too. Reads are freed at once; a write that waits for a host which does not read is freed by the host's
// answer or the end of the connection.
type stream struct {
	name string
	in   *io.PipeReader
	feed *io.PipeWriter // its error is what reads return
	out  io.WriteCloser // its Close says that no more comes
	shut func()         // ends both ways

	once  sync.Once
	mu    sync.Mutex // guards timer
	timer *time.Timer
}

// pieceSize is how much is handed on at once of what is there: eight of the largest packets that a channel carries.
const pieceSize = 256 << 10

// newStream begins to read. end is called once there is nothing more to read, for whatever reason.
func newStream(name string, in io.Reader, out io.WriteCloser, shut func(), end func()) *stream {
	reader, writer := io.Pipe()
	s := &stream{name: name, in: reader, feed: writer, out: out, shut: shut}
	go func() { // ends with in, which ends with the connection
		_, err := io.CopyBuffer(onlyWriter{writer}, onlyReader{in}, make([]byte, pieceSize))
		if end != nil {
			end()
		}
		writer.CloseWithError(err)
	}()
	return s
}

// onlyWriter and onlyReader hide WriteTo and ReadFrom, which would not use the buffer.
type onlyWriter struct{ io.Writer }
type onlyReader struct{ io.Reader }

func (s *stream) Read(p []byte) (int, error)  { return s.in.Read(p) }
func (s *stream) Write(p []byte) (int, error) { return s.out.Write(p) }

// CloseWrite tells the other side that no more comes; reads go on.
func (s *stream) CloseWrite() error { return s.out.Close() }

func (s *stream) Close() error {
	s.fail(net.ErrClosed)
	return nil
}

// fail closes the stream, so that reads return an error.
func (s *stream) fail(err error) {
	s.once.Do(func() {
		s.mu.Lock()
		if s.timer != nil {
			s.timer.Stop()
		}
		s.mu.Unlock()
		s.feed.CloseWithError(err)
		s.shut()
	})
}

// SetDeadline closes the stream at a time: reads return os.ErrDeadlineExceeded then, and nothing brings it back.
// The zero time takes that back beforehand.
func (s *stream) SetDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if !t.IsZero() {
		s.timer = time.AfterFunc(time.Until(t), func() { s.fail(os.ErrDeadlineExceeded) })
	}
	return nil
}

// SetReadDeadline and SetWriteDeadline are SetDeadline: what is closed is closed both ways.
func (s *stream) SetReadDeadline(t time.Time) error  { return s.SetDeadline(t) }
func (s *stream) SetWriteDeadline(t time.Time) error { return s.SetDeadline(t) }

func (s *stream) LocalAddr() net.Addr  { return address("local") }
func (s *stream) RemoteAddr() net.Addr { return address(s.name) }

// An address is a name for what has no address of a network here.
type address string

func (a address) Network() string { return "ssh" }
func (a address) String() string  { return string(a) }
