package repository

import (
	"io"

	"github.com/klauspost/compress/zstd"
)

// streamWindow is how far back a compressed stream refers. Text gains nothing from the level's own 4 MiB, which take three times the memory.
const streamWindow = 1 << 20

// Compress returns a writer that writes what it is given to w as zstd, at the level of packs but with a checksum, as no hash stands for a stream. It is complete
// when it was closed. It works in the goroutine that writes.
func Compress(w io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(streamWindow))
}

// Decompress returns the content of a stream of zstd, as it is read. It may come from anybody: a stream that wants more memory than a frame of a pack is refused. Nothing
// has to be closed, as it works in the goroutine that reads.
func Decompress(r io.Reader) (io.Reader, error) {
	return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxRaw))
}
