package wire

import (
	"errors"
	"fmt"
	"io"
)

// A Body is the first n bytes of a reader that can be read again.
type Body struct {
	from io.ReadSeeker
	n    int64
	at   int64
}

// NewBody returns the first n bytes of from, at their beginning, and gives them to the sums that servers compare with what arrives. It reads
// them all once: a body that is shorter or breaks is an error here, before anything is sent.
func NewBody(from io.ReadSeeker, n int64, sums ...io.Writer) (*Body, error) {
	b := &Body{from: from, n: n}
	if _, err := b.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	got, err := io.Copy(io.MultiWriter(sums...), b)
	if err != nil {
		return nil, err
	}
	if got < n {
		return nil, fmt.Errorf("want %d bytes, got %d: %w", n, got, io.ErrUnexpectedEOF)
	}
	if _, err := b.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Body) Read(p []byte) (int, error) {
	if b.at >= b.n {
		return 0, io.EOF
	}
	n, err := b.from.Read(p[:min(int64(len(p)), b.n-b.at)])
	b.at += int64(n)
	return n, err
}

// Seek moves within the n bytes.
func (b *Body) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += b.at
	case io.SeekEnd:
		offset += b.n
	}
	if offset < 0 || offset > b.n {
		return 0, errors.New("seek outside of a body")
	}
	if _, err := b.from.Seek(offset, io.SeekStart); err != nil {
		return 0, err
	}
	b.at = offset
	return offset, nil
}
