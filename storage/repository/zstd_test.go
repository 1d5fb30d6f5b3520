package repository

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func TestAStreamIsCompressedAndComesBack(t *testing.T) {
	text := bytes.Repeat([]byte("a line of a log that says something\n"), 1<<17)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(text[1<<20 : 2<<20])
	var packed bytes.Buffer
	w, err := Compress(&packed)
	if err != nil {
		t.Fatal(err)
	}
	for rest := text; len(rest) > 0; {
		n := min(len(rest), 100_000)
		if _, err := w.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if packed.Len() > 1<<20+1<<16 {
		t.Errorf("%d bytes became %d", len(text), packed.Len())
	}
	read := func(packed []byte) ([]byte, error) {
		r, err := Decompress(bytes.NewReader(packed))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	}
	if got, err := read(packed.Bytes()); err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes came back of %d: %v", len(got), len(text), err)
	}
	torn := packed.Bytes()[:packed.Len()-1]
	if _, err := read(torn); err != io.ErrUnexpectedEOF {
		t.Errorf("a torn one: %v", err)
	}
	changed := bytes.Clone(packed.Bytes())
	changed[1<<19] ^= 1
	if _, err := read(changed); err == nil {
		t.Error("a changed one is read")
	}
}

func TestAStreamThatWantsTooMuchMemoryIsRefused(t *testing.T) {
	var packed bytes.Buffer
	w, err := zstd.NewWriter(&packed, zstd.WithWindowSize(4*maxRaw))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(make([]byte, 5*maxRaw)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Decompress(&packed)
	if err == nil {
		_, err = io.Copy(io.Discard, r)
	}
	if err == nil {
		t.Error("it is read")
	}
}
