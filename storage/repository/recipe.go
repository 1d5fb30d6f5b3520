package repository

import (
	"encoding/binary"
	"fmt"

	"github.com/replicate/replicate"
)

const (
	recipeChunk = 48 // bytes of an extent in a recipe
	// maxInline is how many extents stand in the tree itself. More are a recipe, which trees share while the file stays the same.
	maxInline = 8
)

// A packList numbers the packs that a tree or a recipe refers to. A zero name stands for the pack that the tree or recipe lies in:
// its name commits to their bytes, so they cannot hold it.
type packList struct {
	names  []replicate.Hash
	number map[replicate.Hash]int
}

func (l *packList) add(pack replicate.Hash) int {
	if n, ok := l.number[pack]; ok {
		return n
	}
	if l.number == nil {
		l.number = map[replicate.Hash]int{}
	}
	n := len(l.names)
	l.number[pack] = n
	l.names = append(l.names, pack)
	return n
}

// encodeRecipe returns the content of a recipe frame. Extents must be whole frames with hashes; a zero Pack is the recipe's own.
func encodeRecipe(extents []Extent) ([]byte, error) {
	var packs packList
	chunks := make([]byte, 0, recipeChunk*len(extents))
	for i, e := range extents {
		if e.From != 0 || e.Hash.IsZero() {
			return nil, fmt.Errorf("extent %d of a recipe is not a whole frame with a hash", i)
		}
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("extent %d of a recipe: %w", i, err)
		}
		chunks = binary.LittleEndian.AppendUint16(chunks, uint16(packs.add(e.Pack)))
		chunks = append(chunks, 0, 0)
		for _, n := range []uint32{e.Off, e.Len, e.Raw} {
			chunks = binary.LittleEndian.AppendUint32(chunks, n)
		}
		chunks = append(chunks, e.Hash[:]...)
	}
	size := 2 + len(packs.names)*len(replicate.Hash{}) + len(chunks)
	if len(packs.names) > maxRefs-1 || size > maxRaw {
		return nil, replicate.Errorf(replicate.Usage, "file of %d chunks in %d packs is too large for a recipe", len(extents), len(packs.names))
	}
	raw := binary.LittleEndian.AppendUint16(make([]byte, 0, size), uint16(len(packs.names)))
	for _, name := range packs.names {
		raw = append(raw, name[:]...)
	}
	return append(raw, chunks...), nil
}

// decodeRecipe reads a recipe that lies in the pack own, of a file of size bytes.
func decodeRecipe(raw []byte, own replicate.Hash, size int64) ([]Extent, error) {
	extents, err := parseRecipe(raw, own, size)
	if err != nil {
		return nil, &replicate.Error{Op: "read recipe", Kind: replicate.Corrupt, Err: err}
	}
	return extents, nil
}

func parseRecipe(raw []byte, own replicate.Hash, size int64) ([]Extent, error) {
	if len(raw) < 2 || len(raw) > maxRaw {
		return nil, fmt.Errorf("%d bytes is no recipe's size", len(raw))
	}
	packs := make([]replicate.Hash, binary.LittleEndian.Uint16(raw))
	chunks := 2 + len(packs)*len(own)
	if len(raw) < chunks || (len(raw)-chunks)%recipeChunk != 0 {
		return nil, fmt.Errorf("byte %d: ends in the middle", len(raw))
	}
	for i := range packs {
		if copy(packs[i][:], raw[2+i*len(own):]); packs[i].IsZero() {
			packs[i] = own
		}
	}
	extents := make([]Extent, (len(raw)-chunks)/recipeChunk)
	var sum int64
	for i := range extents {
		at := chunks + i*recipeChunk
		b, e := raw[at:at+recipeChunk], &extents[i]
		n := int(binary.LittleEndian.Uint16(b))
		if n >= len(packs) {
			return nil, fmt.Errorf("byte %d: pack %d of %d", at, n, len(packs))
		}
		word := func(at int) uint32 { return binary.LittleEndian.Uint32(b[at:]) }
		e.Ref = Ref{Pack: packs[n], Off: word(4), Len: word(8), Raw: word(12), Hash: replicate.Hash(b[16:])}
		if err := e.check(); err != nil {
			return nil, fmt.Errorf("byte %d: %w", at, err)
		}
		if e.Hash.IsZero() {
			return nil, fmt.Errorf("byte %d: chunk without a hash", at)
		}
		sum += int64(e.Raw)
	}
	if sum != size {
		return nil, fmt.Errorf("chunks are %d bytes together, the file %d", sum, size)
	}
	return extents, nil
}
