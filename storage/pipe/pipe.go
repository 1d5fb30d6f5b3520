// Package pipe reads a store that another process serves over a stream of bytes: the end of a connection, or the input and output of a command
// on another machine.
//
// A request is a line of JSON; an answer is a line of JSON and as many bytes behind it as the line says. Any number of requests may be under way, and
// their answers come in any order. The store is for reading: who may write is not for the other side to say. Nothing of what comes in is believed
// but its size, which is bounded: what the bytes mean, and whether they are right, the reader of the store finds out.
//
// The package knows no connection and no command.
package pipe

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

const (
	// pieceSize is how much of an object one request asks for. Answers are held in memory whole, so that nobody who reads slowly keeps
	// another waiting.
	pieceSize = 1 << 20
	// piecesAhead is how many requests of one Get are under way: 4 MiB make 80 MB/s of a link of 50 ms.
	piecesAhead = 4
	// pageSize is how many objects one answer lists.
	pageSize = 5000
	// maxLine bounds a line of JSON, and maxPayload what follows it.
	maxLine    = 8 << 10
	maxPayload = 4 << 20
)

// What can be asked.
const (
	opGet  = "get"
	opList = "list"
	opStat = "stat"
	opNow  = "now"
)

type request struct {
	ID  uint64 `json:"id"`
	Op  string `json:"op"`
	Key string `json:"key,omitempty"` // of list, what keys begin with
	// After and N are those of List and Get; a Get of more than pieceSize bytes is refused.
	After string `json:"after,omitempty"`
	Off   int64  `json:"off,omitempty"`
	N     int64  `json:"n,omitempty"`
}

type answer struct {
	ID   uint64         `json:"id"`
	Size int            `json:"size"` // bytes that follow
	Kind replicate.Kind `json:"kind,omitempty"`
	Text string         `json:"error,omitempty"`
	data []byte
}

// object is a storage.Object on its way.
type object struct {
	Key  string    `json:"key"`
	Size int64     `json:"size"`
	Time time.Time `json:"time"`
}

func (a *answer) err() error {
	switch {
	case a.Text == "":
		return nil
	case a.Kind == replicate.NotFound:
		return fmt.Errorf("%s: %w", a.Text, fs.ErrNotExist)
	}
	return &replicate.Error{Kind: a.Kind, Err: errors.New(a.Text)}
}

func refusal(id uint64, err error) answer {
	text := err.Error()
	return answer{ID: id, Kind: replicate.KindOf(err), Text: text[:min(len(text), maxLine/8)]}
}

// write writes an answer as one piece.
func (a *answer) write(w io.Writer) error {
	a.Size = len(a.data)
	line, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = w.Write(append(append(line, '\n'), a.data...))
	return err
}

// readAnswer reads the next answer.
func readAnswer(r *bufio.Reader) (*answer, error) {
	line, err := readLine(r)
	if err != nil {
		return nil, err
	}
	a := &answer{}
	if err := json.Unmarshal(line, a); err != nil || a.Size < 0 || a.Size > maxPayload {
		return nil, replicate.Errorf(replicate.Corrupt, "%.100q is no answer of a store", line)
	}
	a.data = make([]byte, a.Size)
	_, err = io.ReadFull(r, a.data)
	return a, err
}

// readLine reads a line of at most maxLine bytes, without its end. io.EOF is the end of the stream, between two lines.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, replicate.Errorf(replicate.Corrupt, "a line of more than %d bytes", maxLine)
	case err == io.EOF && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	case err != nil:
		return nil, err
	}
	return bytes.TrimSuffix(line, []byte{'\n'}), nil
}

func newReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, maxLine) }

var _ storage.Store = (*Store)(nil)
