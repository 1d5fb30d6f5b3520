package repository

import (
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/replicate/replicate"
)

// A frame is what packs are made of: one byte that names the codec, then the payload.
const (
	codecRaw   = 0 // as it is
	codecZstd  = 1
	codecZstd2 = 2 // zstd after grouping bytes by 2: all first bytes of each pair, then all second ones; read, not written yet
	codecZstd4 = 3 // the same by 4
)

const (
	// maxRaw bounds a decoded frame and so what one read allocates. The largest that is written is a chunk or a piece of a stream, 4 MiB,
	// a piece of a tree, 8 MiB, and the recipe of a file of 340 GiB.
	maxRaw = 16 << 20
	// maxStored follows: a codec that does not make a frame smaller is not used.
	maxStored = 1 + maxRaw
	// samples of sampleSize, the first and the last bytes and what lies evenly between, are compressed to find out whether compressing is
	// worth it: weights with padding or a hole behind them show it at their ends.
	samples    = 5
	sampleSize = 24 << 10
)

// check refuses a place that no frame can have, before anything is allocated for it.
func (r Ref) check() error {
	switch {
	case r.Raw > maxRaw:
		return fmt.Errorf("frame of %d bytes is larger than %d", r.Raw, maxRaw)
	case r.Len == 0 || r.Len > maxStored:
		return fmt.Errorf("frame stored in %d bytes", r.Len)
	case int(r.Off) < packHead || int64(r.Off)+int64(r.Len) > MaxPack:
		return fmt.Errorf("frame at %d outside a pack", r.Off)
	}
	return nil
}

// The coders are made once and used by all goroutines: EncodeAll and DecodeAll take one of several prepared states and give it back.
// Checksums are off, as BLAKE3 stands for them. The decoder writes into the room it is given and never beyond.
var (
	encoder1 = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	decoder1 = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(maxRaw), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// A frame is content on its way into a pack.
type frame struct {
	codec   uint8
	payload []byte
	raw     int // bytes of the content
	hash    replicate.Hash
}

// newFrame makes the frame of raw, whose BLAKE3 is hash: as zstd, in buf, where that saves at least 5 %, else as it is, in raw itself. It may be
// called from several goroutines.
func newFrame(raw []byte, hash replicate.Hash, buf *[]byte) frame {
	f := frame{codec: codecRaw, payload: raw, raw: len(raw), hash: hash}
	if worth(raw) {
		*buf = encoder1().EncodeAll(raw, (*buf)[:0])
		if saves(len(*buf), len(raw)) {
			f.codec, f.payload = codecZstd, *buf
		}
	}
	return f
}

// stored is how many bytes of a pack the frame takes.
func (f *frame) stored() int { return 1 + len(f.payload) }

// appendFrame appends the stored bytes of the frame of raw.
func appendFrame(dst, raw []byte) []byte {
	var buf []byte
	f := newFrame(raw, replicate.Hash{}, &buf)
	return append(append(dst, f.codec), f.payload...)
}

// worth reports whether it makes sense to compress raw: a small one is soon compressed, of a larger one samples are.
func worth(raw []byte) bool {
	if len(raw) <= groupSize {
		return len(raw) > 0
	}
	buf := sampleBuffers.Get().(*[]byte)
	defer sampleBuffers.Put(buf)
	stored := 0
	for i := range samples {
		from := i * (len(raw) - sampleSize) / (samples - 1)
		*buf = encoder1().EncodeAll(raw[from:from+sampleSize], (*buf)[:0])
		stored += len(*buf)
	}
	return saves(stored, samples*sampleSize)
}

var sampleBuffers = sync.Pool{New: func() any { return new([]byte) }}

func saves(stored, raw int) bool { return stored <= raw-raw/20 && stored < raw }

// decodeFrame appends the content of a stored frame to dst. Size and, if ref has one, hash are verified; a ref without a hash is one whose
// bytes the caller verifies against the file's own. stored must be the ref.Len bytes of the pack from ref.Off.
func decodeFrame(dst, stored []byte, ref Ref) ([]byte, error) {
	raw, err := decodePayload(dst, stored, ref)
	if err == nil && !ref.Hash.IsZero() && hashOf(raw[len(dst):]) != ref.Hash {
		err = errors.New("the bytes are not those that were stored")
	}
	if err != nil {
		return nil, &replicate.Error{Op: "read frame", Path: ref.String(), Kind: replicate.Corrupt, Err: err}
	}
	return raw, nil
}

// String names a frame for people: its place.
func (r Ref) String() string { return fmt.Sprintf("%d+%d of pack %s", r.Off, r.Len, r.Pack) }

func decodePayload(dst, stored []byte, ref Ref) ([]byte, error) {
	if ref.Raw > maxRaw {
		return nil, fmt.Errorf("%d bytes is more than a frame holds", ref.Raw)
	}
	if len(stored) != int(ref.Len) || len(stored) == 0 {
		return nil, fmt.Errorf("%d bytes instead of %d", len(stored), ref.Len)
	}
	codec, payload := stored[0], stored[1:]
	size := int(ref.Raw)
	switch codec {
	case codecRaw:
		if len(payload) != size {
			return nil, fmt.Errorf("holds %d bytes instead of %d", len(payload), size)
		}
		return append(dst, payload...), nil
	case codecZstd:
		return unzstd(dst, payload, size)
	case codecZstd2, codecZstd4:
		grouped, err := unzstd(nil, payload, size)
		if err != nil {
			return nil, err
		}
		return ungroup(dst, grouped, 2*int(codec-1)), nil
	}
	return nil, fmt.Errorf("codec %d needs a newer replicate", codec)
}

// unzstd appends exactly size decoded bytes.
func unzstd(dst, payload []byte, size int) ([]byte, error) {
	have := len(dst)
	if cap(dst)-have < size {
		dst = append(make([]byte, 0, have+size), dst...)
	}
	out, err := decoder1().DecodeAll(payload, dst[have:have:have+size]) // into dst, as it ends where the room ends
	if err != nil {
		return nil, err
	}
	if len(out) != size {
		return nil, fmt.Errorf("holds %d bytes instead of %d", len(out), size)
	}
	return dst[:have+size], nil
}

// ungroup appends grouped with its bytes back in order: in it, all bytes at 0, width, 2·width … stand first, then all at 1, width+1 …
func ungroup(dst, grouped []byte, width int) []byte {
	have := len(dst)
	dst = append(dst, grouped...)
	out := dst[have:]
	for plane := range width {
		for i := plane; i < len(out); i += width {
			out[i] = grouped[0]
			grouped = grouped[1:]
		}
	}
	return dst
}
