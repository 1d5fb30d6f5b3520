package job

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/replicate/replicate"
)

// A Stream says whose bytes a frame holds.
type Stream byte

// The streams.
const (
	Stdout Stream = 'o'
	Stderr Stream = 'e'
	Notes  Stream = 's' // a Note
)

const (
	// maxFrame bounds what a reader believes.
	maxFrame = 16 << 20
	// maxHeader is longer than any header: '@', three numbers of 19 digits, a letter.
	maxHeader = 80
)

// A Frame is a piece of the log: Data begins at Offset.
type Frame struct {
	Offset int64
	Time   time.Time // in ms
	Stream Stream
	Data   []byte
}

// End is the offset of what follows.
func (f Frame) End() int64 { return f.Offset + int64(len(f.Data)) }

// Append appends the frame as it is written.
func (f Frame) Append(b []byte) []byte {
	b = f.appendHeader(b)
	b = append(b, f.Data...)
	return append(b, '\n')
}

func (f Frame) appendHeader(b []byte) []byte {
	b = append(b, '@')
	b = strconv.AppendInt(b, f.Offset, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, f.Time.UnixMilli(), 10)
	b = append(b, ' ', byte(f.Stream), ' ')
	b = strconv.AppendInt(b, int64(len(f.Data)), 10)
	return append(b, '\n')
}

// A FrameReader reads frames from an offset on.
type FrameReader struct {
	r        *bufio.Reader
	next     int64
	consumed int64  // bytes of the whole frames that were read
	data     []byte // of the last frame, and a newline
}

// NewFrameReader returns a reader of the frames in r that yields nothing before an offset.
func NewFrameReader(r io.Reader, from int64) *FrameReader {
	return &FrameReader{r: bufio.NewReaderSize(r, 256<<10), next: from}
}

// restart goes on in another reader, of which consumed bytes were read before.
func (r *FrameReader) restart(in io.Reader, next, consumed int64) {
	r.r.Reset(in)
	r.next, r.consumed = next, consumed
}

// Offset is where the next frame is expected. A frame that begins later shows a gap: what is between was dropped.
func (r *FrameReader) Offset() int64 { return r.next }

// Next returns the next frame, cut at its front if it began before the offset. The error is io.EOF between frames,
// io.ErrUnexpectedEOF within one, of which nothing is returned: a reader that comes again asks at Offset. Bytes that are no frame are a Corrupt error.
// Data is the caller's until the next call.
func (r *FrameReader) Next() (Frame, error) {
	for {
		f, n, err := r.read()
		if err != nil {
			return Frame{}, err
		}
		r.consumed += n
		if f.End() < r.next || f.End() == r.next && len(f.Data) > 0 {
			continue
		}
		if skip := r.next - f.Offset; skip > 0 {
			f.Offset, f.Data = r.next, f.Data[skip:]
		}
		r.next = f.End()
		return f, nil
	}
}

// read returns a frame and its length in the log.
func (r *FrameReader) read() (Frame, int64, error) {
	header, err := readHeader(r.r)
	if err != nil {
		return Frame{}, 0, err
	}
	length := int64(len(header)) + 1
	f, n, err := parseHeader(header)
	if err != nil {
		return Frame{}, 0, err
	}
	if err := r.fill(n + 1); err != nil {
		return Frame{}, 0, torn(err)
	}
	f.Data = r.data[:n]
	if r.data[n] != '\n' {
		return Frame{}, 0, replicate.Errorf(replicate.Corrupt, "the frame at %d is longer than it says", f.Offset)
	}
	return f, length + int64(n) + 1, nil
}

// fill reads n bytes. It takes memory for what is there only: n may be a lie.
func (r *FrameReader) fill(n int) error {
	r.data = r.data[:0]
	for len(r.data) < n {
		from := len(r.data)
		r.data = slices.Grow(r.data, min(n-from, 2*readSize))[:min(n, from+2*readSize)]
		if _, err := io.ReadFull(r.r, r.data[from:]); err != nil {
			return err
		}
	}
	return nil
}

// readHeader returns a line without its newline.
func readHeader(r *bufio.Reader) ([]byte, error) {
	header, err := r.Peek(1)
	for n := 1; err == nil; n++ {
		if header, err = r.Peek(n); err == nil && header[n-1] == '\n' {
			_, err = r.Discard(n)
			return header[:n-1], err
		}
		if n == maxHeader {
			return nil, replicate.Errorf(replicate.Corrupt, "%q is no frame", header[:16])
		}
	}
	if err == io.EOF && len(header) == 0 {
		return nil, io.EOF
	}
	return nil, torn(err)
}

// torn is the error of a frame that is not all there.
func torn(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func parseHeader(header []byte) (f Frame, n int, err error) {
	fields := bytes.Split(header, []byte(" "))
	if len(fields) != 4 || len(fields[0]) < 2 || fields[0][0] != '@' || len(fields[2]) != 1 {
		return f, 0, replicate.Errorf(replicate.Corrupt, "%q is no frame", header)
	}
	offset, err1 := strconv.ParseInt(string(fields[0][1:]), 10, 63)
	ms, err2 := strconv.ParseInt(string(fields[1]), 10, 63)
	size, err3 := strconv.ParseUint(string(fields[3]), 10, 31)
	if err := errors.Join(err1, err2, err3); err != nil || offset < 0 || size > maxFrame {
		return f, 0, replicate.Errorf(replicate.Corrupt, "%q is no frame", header)
	}
	return Frame{Offset: offset, Time: time.UnixMilli(ms), Stream: Stream(fields[2][0])}, int(size), nil
}
