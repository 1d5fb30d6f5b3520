package code

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// Types of messages.
const (
	msgManifest    = 'm'
	msgManifestEnd = 'M'
	msgChunks      = 'c'
	msgWanted      = 'w'
	msgDone        = 'd'
	msgError       = 'e'
)

// maxMessage bounds the payload of a message, so that nobody makes the other end take memory: the largest chunk.
const maxMessage = repository.MaxChunk

var errProtocol = replicate.Errorf(replicate.Corrupt, "the other end says something unexpected")

// A message is one on its way.
type message struct {
	kind   byte
	raw    int // bytes of the payload
	stored []byte
}

func newMessage(kind byte, payload []byte) message {
	return message{kind: kind, raw: len(payload), stored: repository.AppendFrame(nil, payload)}
}

// A wire sends and receives messages. What is sent goes out when the buffer is full, and by flush. One goroutine may send while another receives.
type wire struct {
	w       *bufio.Writer
	r       io.Reader // without a buffer: what follows the last message is somebody else's
	written int64
	stored  []byte
	again   *message // to be received once more
}

func newWire(rw io.ReadWriter) *wire {
	return &wire{w: bufio.NewWriterSize(rw, 256<<10), r: rw}
}

const headerSize = 1 + 4 + 4

func (w *wire) send(m message) error {
	header := make([]byte, 0, headerSize)
	header = append(header, m.kind)
	header = binary.LittleEndian.AppendUint32(header, uint32(m.raw))
	header = binary.LittleEndian.AppendUint32(header, uint32(len(m.stored)))
	w.written += int64(len(header) + len(m.stored))
	if _, err := w.w.Write(header); err != nil {
		return lost(err)
	}
	_, err := w.w.Write(m.stored)
	return lost(err)
}

// say sends a message that the other end waits for.
func (w *wire) say(kind byte, payload []byte) error {
	if err := w.send(newMessage(kind, payload)); err != nil {
		return err
	}
	return w.flush()
}

func (w *wire) flush() error { return lost(w.w.Flush()) }

// receiveStored returns the next message. Its payload is valid until the next call.
func (w *wire) receiveStored() (message, error) {
	if m := w.again; m != nil {
		w.again = nil
		return *m, nil
	}
	var header [headerSize]byte
	if _, err := io.ReadFull(w.r, header[:]); err != nil {
		return message{}, lost(err)
	}
	raw, stored := binary.LittleEndian.Uint32(header[1:]), binary.LittleEndian.Uint32(header[5:])
	if raw > maxMessage || stored == 0 || stored > maxMessage+1 {
		return message{}, errProtocol
	}
	if uint32(cap(w.stored)) < stored {
		w.stored = make([]byte, stored)
	}
	w.stored = w.stored[:stored]
	if _, err := io.ReadFull(w.r, w.stored); err != nil {
		return message{}, lost(err)
	}
	return message{kind: header[0], raw: int(raw), stored: w.stored}, nil
}

// unreceive makes the last message the next one again.
func (w *wire) unreceive(m message) { w.again = &m }

// receive returns the next message with its payload.
func (w *wire) receive() (kind byte, payload []byte, err error) {
	m, err := w.receiveStored()
	if err == nil {
		payload, err = m.open(nil)
	}
	return m.kind, payload, err
}

func (m message) open(dst []byte) ([]byte, error) { return repository.OpenFrame(dst, m.stored, m.raw) }

// lost says of an error of a stream that the line is gone.
func lost(err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &replicate.Error{Op: "connection lost", Kind: replicate.Unavailable, Err: err}
}

// manifest sends a manifest, and which of its pieces follow.
func (w *wire) manifest(m *Manifest, unasked []byte) error {
	for b := m.Append(nil); len(b) > 0; {
		part := b[:min(len(b), batch)]
		b = b[len(part):]
		if err := w.send(newMessage(msgManifest, part)); err != nil {
			return err
		}
	}
	return w.say(msgManifestEnd, unasked)
}

// sendError tells the other end why this one gives up.
func (w *wire) sendError(err error) {
	text := append([]byte(replicate.KindOf(err)), 0)
	text = append(text, err.Error()...)
	_ = w.say(msgError, text[:min(len(text), 64<<10)]) // the other end is told, or the line is gone
}

// remoteError is an error of the other end.
func remoteError(payload []byte) error {
	kind, text, ok := bytes.Cut(payload, []byte{0})
	if !ok {
		return errProtocol
	}
	return &replicate.Error{Kind: replicate.Kind(kind), Err: errors.New(string(text))}
}

// A place is where a piece stands first in a tree.
type place struct {
	Piece
	entry int
	at    int64
}

// distinct returns the pieces of a manifest, each content once, in their order.
func distinct(m *Manifest) []place {
	seen := map[replicate.Hash]bool{}
	var list []place
	for i := range m.Entries {
		var at int64
		for _, p := range m.Entries[i].Pieces {
			if !seen[p.Hash] {
				seen[p.Hash] = true
				list = append(list, place{Piece: p, entry: i, at: at})
			}
			at += p.Size
		}
	}
	return list
}

// chosen returns the pieces whose bits are set in a bitmap.
func chosen(pieces []place, bits []byte) ([]place, error) {
	if len(bits) != (len(pieces)+7)/8 {
		return nil, errProtocol
	}
	var list []place
	for i, p := range pieces {
		if bits[i/8]>>(i%8)&1 == 1 {
			list = append(list, p)
		}
	}
	return list, nil
}

// bitmap is the bitmap in which the bits of some indexes are set.
func bitmap(n int, set func(i int) bool) []byte {
	bits := make([]byte, (n+7)/8)
	for i := range n {
		if set(i) {
			bits[i/8] |= 1 << (i % 8)
		}
	}
	return bits
}
