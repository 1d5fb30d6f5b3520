package docker

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// split is demultiplex as one would write it without regard to memory: the streams, and whether the end is one.
func split(stream []byte) (out, err []byte, whole bool) {
	for len(stream) >= 8 {
		kind, size := stream[0], uint64(binary.BigEndian.Uint32(stream[4:]))
		rest := stream[8:]
		if kind >= frameError {
			return out, err, false
		}
		cut := size > uint64(len(rest))
		size = min(size, uint64(len(rest)))
		if kind == frameStderr {
			err = append(err, rest[:size]...)
		} else {
			out = append(out, rest[:size]...)
		}
		if stream = rest[size:]; cut {
			return out, err, false
		}
	}
	return out, err, len(stream) == 0
}

func frame(kind byte, text string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{kind, 0, 0, 0}, uint32(len(text))), text...)
}

func FuzzDemultiplex(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Join([][]byte{frame(1, "out"), frame(2, "err"), frame(0, "in"), frame(1, "")}, nil))
	f.Add(append(frame(1, "out"), frame(3, "the engine's words")...))
	f.Add(frame(2, "cut off")[:12])
	f.Add([]byte{1, 0, 0, 0, 255, 255, 255, 255, 'x'})
	f.Add([]byte{9, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, stream []byte) {
		for name, reader := range map[string]io.Reader{"at once": bytes.NewReader(stream), "by bytes": iotest.OneByteReader(bytes.NewReader(stream))} {
			var out, complaints bytes.Buffer
			err := demultiplex(&out, &complaints, reader)
			wantOut, wantErr, whole := split(stream)
			if !bytes.Equal(out.Bytes(), wantOut) || !bytes.Equal(complaints.Bytes(), wantErr) || (err == nil) != whole {
				t.Errorf("%s: %q, %q, %v; want %q, %q, whole: %v", name, out.Bytes(), complaints.Bytes(), err, wantOut, wantErr, whole)
			}
		}
	})
}

func TestDemultiplexHoldsNothingBack(t *testing.T) {
	reader, writer := io.Pipe()
	got := make(chan string)
	done := make(chan error)
	go func() { done <- demultiplex(writerFunc(func(p []byte) { got <- string(p) }), io.Discard, reader) }()
	writer.Write([]byte{1, 0, 0, 0, 0, 0, 0, 6})
	for _, part := range []string{"50 %\r", "!"} {
		io.WriteString(writer, part)
		if text := <-got; text != part {
			t.Errorf("got %q, want %q", text, part)
		}
	}
	writer.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type writerFunc func([]byte)

func (w writerFunc) Write(p []byte) (int, error) {
	w(p)
	return len(p), nil
}

func TestDemultiplexTellsTheEnginesWords(t *testing.T) {
	err := demultiplex(io.Discard, io.Discard, bytes.NewReader(frame(frameError, "odd")))
	if err == nil || err.Error() != "odd" {
		t.Errorf("%v", err)
	}
	err = demultiplex(io.Discard, io.Discard, bytes.NewReader(frame(frameStdout, "abc")[:9]))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v", err)
	}
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte(`{"status":"Downloading","id":"a","progressDetail":{"current":1,"total":2}}{"error":"no"}`))
	f.Add([]byte(`{"status":"Downloading","progressDetail":{"current":-1,"total":9e99}}`))
	f.Fuzz(func(t *testing.T, stream []byte) {
		follow(bytes.NewReader(stream), func(Pulled) {})
	})
}

func FuzzHashOfAnArchive(f *testing.F) {
	f.Add([]byte("not a tar"))
	f.Fuzz(func(t *testing.T, archive []byte) {
		if hash, err := hashOf(bytes.NewReader(archive)); err == nil && len(hash) != programHash {
			t.Errorf("hash %q", hash)
		}
	})
}
