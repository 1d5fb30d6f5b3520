package repository

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/replicate/replicate"
)

const (
	segmentMagic   = "RPLSEG1\n"
	segmentVersion = 1
	// skippable begins a frame that zstd's own tools pass over, so that zstdcat prints a segment's lines and nothing else.
	skippable     = "\x50\x2a\x4d\x18"
	skippableHead = 8
	segmentFirst  = skippableHead + len(segmentMagic) + 4*4 + 2*32
	// maxBlock is what the lines of a block are together, unless it is one line that is longer: one experiment's commits are a few blocks,
	// and one block is decoded to find one of them.
	maxBlock = 64 << 10
	// maxSegmentRaw bounds what the blocks of one segment are decoded: 64 MiB are about 400 MB of lines.
	maxSegmentRaw = 1 << 30
)

// The kinds of blocks. The head is everything that a list of experiments needs.
const (
	blockHead    = "head"
	blockCommits = "commits"
	blockStreams = "streams"
	blockNames   = "names" // not records: they say of which experiment a commit is
)

// shortName is how many digits of an id find it among millions: few others share them, and whoever looks reads the record itself.
const shortName = 12

// A segmentHeader is the first frame of a segment. The segment's key is its hash, and it has the hashes of what it points to.
type segmentHeader struct {
	Head      uint32 // stored bytes of the blocks of the head, which begin behind this frame
	Off       uint32 // of the last frame, which holds the directory
	Stored    uint32 // bytes of the directory, which are zstd
	Raw       uint32
	HeadHash  replicate.Hash // of the stored head
	Directory replicate.Hash // of the decoded directory
}

// A segmentBlock is one zstd frame of lines.
type segmentBlock struct {
	Kind             string
	Off, Stored, Raw uint32
	First, Last      replicate.ID   // experiments of its first and last line; "" for a kind of record that the writer did not know
	Hash             replicate.Hash // of its lines
}

// A segmentDirectory says where the lines of a segment are, and which objects they came from.
type segmentDirectory struct {
	Inputs []string // keys
	Part   bool     // the records of the inputs are in other segments too
	// Digests says that the head has a digest of everything that is in the body.
	Digests bool
	Blocks  []segmentBlock
}

// parseSegmentHeader reads the first bytes of the segment key, at least segmentFirst of them, and verifies that they are it.
func parseSegmentHeader(key string, b []byte) (segmentHeader, error) {
	generation, _, ok := parseIndexKey(key)
	if !ok || len(b) < segmentFirst || indexKey(generation, b[:segmentFirst]) != key {
		return segmentHeader{}, replicate.Errorf(replicate.Corrupt, "read %s: the first %d bytes are not those that were stored", key, segmentFirst)
	}
	b = b[:segmentFirst]
	if !bytes.HasPrefix(b[skippableHead:], []byte(segmentMagic)) {
		return segmentHeader{}, replicate.Errorf(replicate.Corrupt, "read %s: byte %d: not a segment that this version knows", key, skippableHead)
	}
	b = b[skippableHead+len(segmentMagic):]
	word := func(i int) uint32 { return binary.LittleEndian.Uint32(b[4*i:]) }
	h := segmentHeader{word(0), word(1), word(2), word(3), replicate.Hash(b[16:48]), replicate.Hash(b[48:80])}
	if end := int64(h.Off) + skippableHead + int64(h.Stored); int64(segmentFirst)+int64(h.Head) > int64(h.Off) || end > MaxObject || h.Raw > maxRaw {
		return segmentHeader{}, replicate.Errorf(replicate.Corrupt, "read %s: byte %d: impossible sizes", key, skippableHead+len(segmentMagic))
	}
	return h, nil
}

func (h segmentHeader) append(dst []byte) []byte {
	dst = appendSkippable(dst, segmentFirst-skippableHead)
	dst = append(dst, segmentMagic...)
	for _, n := range []uint32{h.Head, h.Off, h.Stored, h.Raw} {
		dst = binary.LittleEndian.AppendUint32(dst, n)
	}
	return append(append(dst, h.HeadHash[:]...), h.Directory[:]...)
}

func appendSkippable(dst []byte, n int) []byte {
	return binary.LittleEndian.AppendUint32(append(dst, skippable...), uint32(n))
}

// parseDirectory reads the h.Stored bytes behind the head of the frame at h.Off.
func (h segmentHeader) parseDirectory(stored []byte) (*segmentDirectory, error) {
	raw, err := unzstd(nil, stored, int(h.Raw))
	if err == nil && hashOf(raw) != h.Directory {
		err = errors.New("the bytes are not those that were stored")
	}
	d := &segmentDirectory{}
	if err == nil {
		err = eachLine(raw, func(line []byte, off int) error {
			if err := d.line(&cursor{data: line}, off == 0); err != nil {
				return fmt.Errorf("line at byte %d: %w", off, err)
			}
			return nil
		})
	}
	if err == nil {
		err = d.check(h)
	}
	if err != nil {
		return nil, replicate.Errorf(replicate.Corrupt, "directory at byte %d: %w", h.Off, err)
	}
	return d, nil
}

func (d *segmentDirectory) line(c *cursor, first bool) error {
	if first {
		return d.head(c)
	}
	d.Blocks = append(d.Blocks, segmentBlock{})
	b := &d.Blocks[len(d.Blocks)-1]
	err := c.object(func(key []byte) (err error) {
		switch string(key) {
		case "kind":
			b.Kind, err = c.text()
		case "off":
			err = c.uint32(&b.Off)
		case "stored":
			err = c.uint32(&b.Stored)
		case "raw":
			err = c.uint32(&b.Raw)
		case "first":
			b.First, err = c.id()
		case "last":
			b.Last, err = c.id()
		case "hash":
			b.Hash, err = c.hash()
		default:
			err = c.skip(0)
		}
		return err
	})
	if err != nil {
		return err
	}
	return c.end()
}

func (d *segmentDirectory) head(c *cursor) error {
	version := int64(0)
	err := c.object(func(key []byte) (err error) {
		switch string(key) {
		case "segment":
			version, err = c.count(math.MaxInt64)
		case "inputs":
			d.Inputs, err = c.texts()
		case "part":
			d.Part, err = c.bool()
		case "digests":
			d.Digests, err = c.bool()
		default:
			err = c.skip(0)
		}
		return err
	})
	switch {
	case err != nil:
		return err
	case version == 0 || version > segmentVersion:
		return fmt.Errorf("version %d needs a newer replicate", version)
	}
	return c.end()
}

// check refuses blocks that do not lie one behind the other from the first frame to the last.
func (d *segmentDirectory) check(h segmentHeader) error {
	next, raw := int64(segmentFirst), int64(0)
	for i, b := range d.Blocks {
		if int64(b.Off) != next || b.Raw > MaxLine+1 {
			return fmt.Errorf("block %d of %d bytes at byte %d is impossible", i, b.Raw, b.Off)
		}
		next += int64(b.Stored)
		raw += int64(b.Raw)
	}
	if next != int64(h.Off) || raw > maxSegmentRaw {
		return fmt.Errorf("blocks end at byte %d and hold %d bytes", next, raw)
	}
	return nil
}

// decode returns the lines of a block, given its b.Stored bytes.
func (b segmentBlock) decode(stored []byte) ([]byte, error) {
	raw, err := unzstd(nil, stored, int(b.Raw))
	if err == nil && hashOf(raw) != b.Hash {
		err = errors.New("the bytes are not those that were stored")
	}
	if err != nil {
		return nil, replicate.Errorf(replicate.Corrupt, "block at byte %d: %w", b.Off, err)
	}
	return raw, nil
}

// records decodes the blocks of d, which lie in object. A damaged block or line leaves the others readable and is one error.
func (d *segmentDirectory) records(object []byte) (records []Record, errs []error) {
	blocks := make([][]byte, len(d.Blocks))
	n := 0
	for i, b := range d.Blocks {
		if b.Kind == blockNames {
			continue
		}
		var err error
		if blocks[i], err = b.decode(object[b.Off : b.Off+b.Stored]); err != nil {
			errs = append(errs, err)
		}
		n += bytes.Count(blocks[i], []byte{'\n'})
	}
	records = make([]Record, 0, n)
	for i, lines := range blocks {
		var err error
		if records, err = appendRecords(records, lines); err != nil {
			errs = append(errs, fmt.Errorf("block at byte %d: %w", d.Blocks[i].Off, err))
		}
	}
	return records, errs
}
