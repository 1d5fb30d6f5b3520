package repository

import (
	"bytes"
	"io"
	"testing"
	"testing/iotest"
)

func fill(b []byte, seed uint64) []byte {
	for i := range b {
		if i%8 == 0 {
			seed += 0x9e3779b97f4a7c15
		}
		z := seed
		z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
		z = (z ^ z>>27) * 0x94d049bb133111eb
		b[i] = byte((z ^ z>>31) >> (8 * (i % 8)))
	}
	return b
}

func BenchmarkGear(b *testing.B) {
	data := fill(make([]byte, 64<<20), 1)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		for rest := data; len(rest) > 0; {
			var g gear
			n := g.cut(rest)
			if n == 0 {
				n = len(rest)
			}
			rest = rest[n:]
		}
	}
}

func BenchmarkHash(b *testing.B) {
	data := fill(make([]byte, 1<<20), 1)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		hashOf(data)
	}
}

func TestChunkerGivesEverything(t *testing.T) {
	data := fill(make([]byte, 20<<20), 1)
	c := newChunker(iotest.OneByteReader(bytes.NewReader(data[:3<<20])), nil)
	check := func(data []byte, forced []int64) {
		t.Helper()
		at := 0
		for {
			b, err := c.next()
			if err == io.EOF {
				break
			}
			if err != nil || len(b) == 0 || len(b) > maxChunk || !bytes.Equal(b, data[at:at+len(b)]) {
				t.Fatalf("chunk of %d bytes at %d: %v", len(b), at, err)
			}
			at += len(b)
			for len(forced) > 0 && forced[0] <= int64(at) {
				if forced[0] < int64(at) {
					t.Errorf("chunk goes on over the cut at %d", forced[0])
				}
				forced = forced[1:]
			}
		}
		if at != len(data) {
			t.Errorf("%d bytes of %d", at, len(data))
		}
	}
	check(data[:3<<20], nil)
	forced := []int64{1, 100, 5 << 20, 20 << 20, 30 << 20}
	c.reset(bytes.NewReader(data), forced)
	check(data, forced)
	c.reset(bytes.NewReader(make([]byte, 9<<20)), nil)
	check(make([]byte, 9<<20), nil)
	c.reset(bytes.NewReader(nil), nil)
	check(nil, nil)
}
