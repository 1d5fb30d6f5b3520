package repository

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/replicate/replicate"
)

// group is the opposite of ungroup, by its definition.
func group(raw []byte, width int) (grouped []byte) {
	for plane := range width {
		for i, b := range raw {
			if i%width == plane {
				grouped = append(grouped, b)
			}
		}
	}
	return grouped
}

func frameContents() map[string][]byte {
	floats := make([]byte, 0, 1<<20)
	for i := range 1 << 18 {
		bits := math.Float32bits(float32(math.Sin(float64(i))))
		floats = append(floats, byte(bits), byte(bits>>8), byte(bits>>16), byte(bits>>24))
	}
	return map[string][]byte{
		"nothing":         nil,
		"byte":            {7},
		"three":           []byte("abc"),
		"text":            []byte(strings.Repeat("step,loss\n1,0.31\n", 1000)),
		"random":          fill(make([]byte, 1<<20), 1),
		"floats":          floats,
		"zeros":           make([]byte, maxRaw),
		"random, a zero":  append(fill(make([]byte, sampleSize), 2), make([]byte, 1<<20)...),
		"zeros, a random": append(make([]byte, sampleSize), fill(make([]byte, 8<<20), 2)...),
		"random, a hole":  append(fill(make([]byte, 3<<20), 2), make([]byte, 1<<20)...),
	}
}

func refOf(stored, raw []byte) Ref {
	return Ref{Pack: hashOf([]byte("pack")), Off: 24, Len: uint32(len(stored)), Raw: uint32(len(raw)), Hash: hashOf(raw)}
}

func TestFramesReadBack(t *testing.T) {
	for name, raw := range frameContents() {
		t.Run(name, func(t *testing.T) {
			stored := appendFrame([]byte("before"), raw)[len("before"):]
			if len(stored) > len(raw)+1 || stored[0] != codecRaw && len(stored)-1 > len(raw)-len(raw)/20 {
				t.Errorf("%d bytes are stored in %d with codec %d", len(raw), len(stored), stored[0])
			}
			checkDecode(t, stored, raw)
		})
	}
}

// checkDecode decodes with and without something before it in the buffer, and room behind it.
func checkDecode(t *testing.T, stored, raw []byte) {
	t.Helper()
	for _, room := range []int{0, 10, len(raw) + 100} {
		dst := append(make([]byte, 0, room+3), "abc"...)
		got, err := decodeFrame(dst, stored, refOf(stored, raw))
		if err != nil {
			t.Fatal(err)
		}
		if string(got[:3]) != "abc" || !bytes.Equal(got[3:], raw) {
			t.Errorf("room %d: %d bytes are not those that were stored", room, len(got)-3)
		}
	}
}

func TestFramesCompressWhatCompresses(t *testing.T) {
	contents := frameContents()
	for name, want := range map[string]byte{"text": codecZstd, "zeros": codecZstd, "random": codecRaw, "byte": codecRaw, "nothing": codecRaw,
		"random, a zero": codecZstd, "random, a hole": codecZstd, "zeros, a random": codecRaw} {
		if got := appendFrame(nil, contents[name])[0]; got != want {
			t.Errorf("%s is stored with codec %d, want %d", name, got, want)
		}
	}
}

func TestGroupedFramesAreReadable(t *testing.T) {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range frameContents() {
		for codec, width := range map[byte]int{codecZstd2: 2, codecZstd4: 4} {
			t.Run(fmt.Sprint(name, width), func(t *testing.T) {
				checkDecode(t, enc.EncodeAll(group(raw, width), []byte{codec}), raw)
			})
		}
	}
}

func TestFrameOfAnotherEncoderIsReadable(t *testing.T) {
	raw := frameContents()["text"]
	var b bytes.Buffer
	b.WriteByte(codecZstd)
	enc, err := zstd.NewWriter(&b, zstd.WithEncoderLevel(zstd.SpeedBestCompression)) // streamed: without the size, with a checksum
	if err != nil {
		t.Fatal(err)
	}
	if _, err := enc.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := enc.Close(); err != nil {
		t.Fatal(err)
	}
	checkDecode(t, b.Bytes(), raw)
}

func TestDamagedFramesAreRefused(t *testing.T) {
	raw := frameContents()["text"]
	packed, plain := appendFrame(nil, raw), append([]byte{codecRaw}, raw...)
	change := func(stored []byte, at int) []byte {
		stored = bytes.Clone(stored)
		stored[at] ^= 0x10
		return stored
	}
	ref := refOf(packed, raw)
	sized := func(stored []byte, raw uint32) Ref {
		r := ref
		r.Len, r.Raw = uint32(len(stored)), raw
		return r
	}
	zeros := enough(t, make([]byte, 64<<20))
	for name, tt := range map[string]struct {
		stored []byte
		ref    Ref
		want   string
	}{
		"flipped bit as it is": {change(plain, 100), refOf(plain, raw), "not those that were stored"},
		"flipped bit in zstd":  {change(packed, len(packed)/2), ref, ""},
		"codec of the future":  {change(packed, 0), ref, "codec 17 needs a newer replicate"},
		"empty":                {nil, sized(nil, 0), "0 bytes instead of 0"},
		"truncated":            {packed[:len(packed)-1], ref, fmt.Sprintf("%d bytes instead of %d", len(packed)-1, len(packed))},
		"shorter than said":    {packed, sized(packed, ref.Raw+1), "holds"},
		"longer than said":     {packed, sized(packed, ref.Raw-1), ""},
		"bomb":                 {zeros, sized(zeros, 100), ""},
		"bomb, said to be one": {zeros, sized(zeros, 1<<30), "more than a frame holds"},
		"another frame's hash": {packed, Ref{Len: ref.Len, Raw: ref.Raw, Hash: hashOf(nil)}, "not those that were stored"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := decodeFrame(nil, tt.stored, tt.ref)
			if replicate.KindOf(err) != replicate.Corrupt || !strings.Contains(err.Error(), tt.want) || got != nil {
				t.Errorf("%d bytes, error %v", len(got), err)
			}
		})
	}
}

// enough returns a zstd frame of raw, with its codec.
func enough(t *testing.T, raw []byte) []byte {
	t.Helper()
	return encoder1().EncodeAll(raw, []byte{codecZstd})
}

func TestBombsTakeNoMemory(t *testing.T) {
	bomb := enough(t, make([]byte, 64<<20))
	ref := Ref{Len: uint32(len(bomb)), Raw: 1 << 20}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := decodeFrame(nil, bomb, ref); err == nil {
		t.Error("64 MiB fits into 1 MiB")
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 4<<20 {
		t.Errorf("%d bytes were allocated", n)
	}
}

func BenchmarkFrame(b *testing.B) {
	contents := frameContents()
	for _, name := range []string{"text", "random", "floats"} {
		raw := contents[name]
		stored := appendFrame(nil, raw)
		ref := refOf(stored, raw)
		b.Run("encode "+name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf = appendFrame(buf[:0], raw)
			}
		})
		b.Run("decode "+name, func(b *testing.B) {
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				var err error
				if buf, err = decodeFrame(buf[:0], stored, ref); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	grouped := append([]byte{codecZstd4}, encoder1().EncodeAll(group(contents["floats"], 4), nil)...)
	ref := refOf(grouped, contents["floats"])
	b.Run("decode grouped floats", func(b *testing.B) {
		b.SetBytes(int64(ref.Raw))
		for b.Loop() {
			if _, err := decodeFrame(nil, grouped, ref); err != nil {
				b.Fatal(err)
			}
		}
	})
}
