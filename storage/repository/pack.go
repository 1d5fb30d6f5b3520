package repository

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/replicate/replicate"
)

// MaxPack bounds a pack with all that belongs to it: one PUT, one buffer of a retry, a quarter of what a 256 MB machine has.
const MaxPack = 64 << 20

const (
	packMagic    = "RPLPACK1"
	trailerMagic = "RPLEND1\n"
	nonceSize    = 16
	packHead     = len(packMagic) + nonceSize
	packEntry    = 52 // bytes of a frame in the directory
	packTrailer  = 40
	// maxFrames keeps a directory within one frame's size.
	maxFrames = (maxRaw - nonceSize) / packEntry
)

// A frameKind says what a frame is for, so that a pack explains itself.
type frameKind uint8

const (
	kindChunk   frameKind = 1 // of a large file, or a file of its own
	kindGroup   frameKind = 2 // small files, one behind the other
	kindTree    frameKind = 3
	kindRecipe  frameKind = 4
	kindNote    frameKind = 5 // a record without its tree, packs and before
	kindMetrics frameKind = 6
	kindOutput  frameKind = 7
)

// A packFrame is one entry of a pack's directory. Its Ref carries the pack's name when it was read from a complete pack.
type packFrame struct {
	Ref
	Kind  frameKind
	Codec uint8
}

// A packWriter writes one pack onto an io.Writer, front to back. It is not safe for use by several goroutines: encode frames
// beside each other with newFrame, then append them here.
type packWriter struct {
	w         io.Writer
	directory []byte // nonce and entries
	off       int64
	buf       []byte
	err       error // the first one; a pack that missed a byte is worth nothing
}

// newPackWriter begins a pack. nonce must be random: it makes the name new.
func newPackWriter(w io.Writer, nonce [nonceSize]byte) *packWriter {
	p := &packWriter{w: w, directory: nonce[:]}
	p.write(append([]byte(packMagic), nonce[:]...))
	return p
}

func (p *packWriter) write(b []byte) {
	if p.err != nil {
		return
	}
	n, err := p.w.Write(b)
	p.off += int64(n)
	p.err = err
}

// append encodes raw, whose BLAKE3 is hash, and writes its frame.
func (p *packWriter) append(kind frameKind, raw []byte, hash replicate.Hash) (Ref, error) {
	return p.appendFrame(kind, newFrame(raw, hash, &p.buf))
}

// appendFrame writes a frame. The Ref has no pack: the name comes with finish.
func (p *packWriter) appendFrame(kind frameKind, f frame) (Ref, error) {
	if !p.fits(f.stored()) || f.raw > maxRaw {
		return Ref{}, fmt.Errorf("frame of %d bytes does not fit into a pack of %d", f.stored(), p.size())
	}
	ref := Ref{Off: uint32(p.off), Len: uint32(f.stored()), Raw: uint32(f.raw), Hash: f.hash}
	p.directory = appendPackEntry(p.directory, packFrame{Ref: ref, Kind: kind, Codec: f.codec})
	p.write([]byte{f.codec})
	p.write(f.payload)
	return ref, p.err
}

func appendPackEntry(dst []byte, f packFrame) []byte {
	dst = append(dst, byte(f.Kind), f.Codec, 0, 0)
	for _, n := range []uint32{f.Off, f.Len, f.Raw, 0} {
		dst = binary.LittleEndian.AppendUint32(dst, n)
	}
	return append(dst, f.Hash[:]...)
}

// frames is how many frames were appended.
func (p *packWriter) frames() int { return (len(p.directory) - nonceSize) / packEntry }

// size is an upper bound of what the pack would be if it were finished now.
func (p *packWriter) size() int64 { return p.off + directoryBound(len(p.directory)) }

// directoryBound is what directory and trailer take at most: zstd adds a header of at most 18 bytes and 3 for each block of 128 KiB.
func directoryBound(directory int) int64 {
	return int64(directory + 18 + 3*(directory>>17+1) + packTrailer)
}

// fits reports whether a frame of stored bytes can still be appended.
func (p *packWriter) fits(stored int) bool {
	return p.frames() < maxFrames && p.off+int64(stored)+directoryBound(len(p.directory)+packEntry) <= MaxPack
}

// finish writes directory and trailer and returns the pack's name. Making the bytes durable is the caller's.
func (p *packWriter) finish() (replicate.Hash, error) {
	stored := encoder1().EncodeAll(p.directory, nil)
	trailer := make([]byte, 0, packTrailer)
	for _, n := range []int{int(p.off), len(stored), len(p.directory), p.frames()} {
		trailer = binary.LittleEndian.AppendUint32(trailer, uint32(n))
	}
	trailer = append(append(trailer, make([]byte, 16)...), trailerMagic...)
	p.write(append(stored, trailer...))
	return hashOf(p.directory), p.err
}

// A packDirectory is what a pack says of itself, verified against its name.
type packDirectory struct {
	Name   replicate.Hash
	Frames []packFrame // in order of offset, without gaps
}

// directoryGuess is what one read of a pack's end fetches: the directory of 1,000 frames, which is nearly every pack's.
const directoryGuess = 64 << 10

// readPackDirectory reads the directory of a pack of size bytes and verifies that name commits to it, and that the frames fill the
// pack. A zero name takes the pack's word for it. Frames themselves are not read.
func readPackDirectory(r io.ReaderAt, size int64, name replicate.Hash) (*packDirectory, error) {
	d, err := readDirectory(r, size, name)
	if err != nil {
		path := ""
		if !name.IsZero() {
			path = name.String()
		}
		return nil, &replicate.Error{Op: "read pack", Path: path, Kind: replicate.KindOf(err), Err: err}
	}
	return d, nil
}

func readDirectory(r io.ReaderAt, size int64, name replicate.Hash) (*packDirectory, error) {
	if size < int64(packHead+packTrailer) || size > MaxPack {
		return nil, replicate.Errorf(replicate.Corrupt, "%d bytes is no pack's size", size)
	}
	tail := make([]byte, min(size-int64(packHead), directoryGuess))
	if err := readFull(r, tail, size-int64(len(tail))); err != nil {
		return nil, err
	}
	trailer := tail[len(tail)-packTrailer:]
	off, stored, raw, frames, err := parseTrailer(trailer, size)
	if err != nil {
		return nil, err
	}
	var payload []byte
	if have := len(tail) - packTrailer; stored <= have {
		payload = tail[have-stored : have]
	} else {
		payload = make([]byte, stored)
		if err := readFull(r, payload, off); err != nil {
			return nil, err
		}
	}
	directory, err := unzstd(nil, payload, raw)
	if err != nil {
		return nil, replicate.Errorf(replicate.Corrupt, "directory at byte %d: %w", off, err)
	}
	if h := hashOf(directory); name.IsZero() {
		name = h
	} else if h != name {
		return nil, replicate.Errorf(replicate.Corrupt, "directory at byte %d is another pack's, or damaged", off)
	}
	d := &packDirectory{Name: name}
	return d, d.parse(directory[nonceSize:], frames, off)
}

// readFull reads all of b; the end of the file within it is damage.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	if n, err := r.ReadAt(b, off); n < len(b) {
		if err == io.EOF || err == nil {
			return replicate.Errorf(replicate.Corrupt, "ends at byte %d", off+int64(n))
		}
		return err
	}
	return nil
}

func parseTrailer(trailer []byte, size int64) (off int64, stored, raw, frames int, err error) {
	at := size - packTrailer
	if !bytes.HasSuffix(trailer, []byte(trailerMagic)) {
		return 0, 0, 0, 0, replicate.Errorf(replicate.Corrupt, "trailer at byte %d: not the end of a pack", at)
	}
	n := func(i int) int64 { return int64(binary.LittleEndian.Uint32(trailer[4*i:])) }
	off, stored64, raw64, frames64 := n(0), n(1), n(2), n(3)
	if off < int64(packHead) || off+stored64 != at || frames64 > int64(maxFrames) || raw64 != nonceSize+packEntry*frames64 {
		return 0, 0, 0, 0, replicate.Errorf(replicate.Corrupt, "trailer at byte %d: impossible directory", at)
	}
	return off, int(stored64), int(raw64), int(frames64), nil
}

// parse reads the entries, which must lie one behind the other from the head to end.
func (d *packDirectory) parse(entries []byte, frames int, end int64) error {
	d.Frames = make([]packFrame, frames)
	next := int64(packHead)
	for i := range d.Frames {
		e := entries[i*packEntry:]
		n := func(at int) uint32 { return binary.LittleEndian.Uint32(e[at:]) }
		f := packFrame{Kind: frameKind(e[0]), Codec: e[1], Ref: Ref{Pack: d.Name, Off: n(4), Len: n(8), Raw: n(12)}}
		copy(f.Hash[:], e[20:packEntry])
		if err := f.check(); err != nil {
			return replicate.Errorf(replicate.Corrupt, "directory entry %d: %w", i, err)
		}
		if int64(f.Off) != next {
			return replicate.Errorf(replicate.Corrupt, "directory entry %d: at byte %d, want %d", i, f.Off, next)
		}
		next += int64(f.Len)
		d.Frames[i] = f
	}
	if next != end {
		return replicate.Errorf(replicate.Corrupt, "frames end at byte %d, the directory begins at %d", next, end)
	}
	return nil
}
