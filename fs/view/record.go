package view

import (
	"encoding/binary"
	"errors"

	"github.com/replicate/replicate/storage/repository"
)

// A record is an entry of a commit in the form in which trees keep it: as bytes, of which what stat asks for comes first. Nobody but the process
// that wrote it ever reads it.
//
//	mtime u64, size u64 (of a link 0), mode u16, kind u8, torn u8, length of the path u16, path       integers little-endian
//	file  hash[32], extents u8, per extent: pack[32], off u32, stored u32, raw u32, from u32, and if there are several hash[32]
//	      a recipe has 255 instead of the number, and is one extent with a hash
//	link  target, to the end
type record []byte

const (
	recordHead = 8 + 8 + 2 + 1 + 1 + 2
	hasRecipe  = 255
)

var errRecord = errors.New("a list of files in the cache directory is damaged")

func appendRecord(b []byte, e *repository.Entry) record {
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Mtime))
	b = binary.LittleEndian.AppendUint64(b, uint64(e.Size))
	b = binary.LittleEndian.AppendUint16(b, uint16(e.Mode))
	torn := byte(0)
	if e.Torn {
		torn = 1
	}
	b = append(b, byte(e.Kind), torn)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(e.Path)))
	b = append(b, e.Path...)
	if e.Kind != repository.File {
		return append(b, e.Target...)
	}
	b = append(b, e.Hash[:]...)
	if e.Recipe != nil {
		return appendExtent(append(b, hasRecipe), repository.Extent{Ref: *e.Recipe}, true)
	}
	b = append(b, byte(len(e.Extents)))
	for _, x := range e.Extents {
		b = appendExtent(b, x, len(e.Extents) > 1)
	}
	return b
}

func appendExtent(b []byte, x repository.Extent, hash bool) []byte {
	b = append(b, x.Pack[:]...)
	for _, n := range []uint32{x.Off, x.Len, x.Raw, x.From} {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	if hash {
		b = append(b, x.Hash[:]...)
	}
	return b
}

// check refuses bytes that are too short for the other methods.
func (r record) check() error {
	if len(r) < recordHead || len(r) < recordHead+r.pathLen() {
		return errRecord
	}
	return nil
}

func (r record) pathLen() int { return int(binary.LittleEndian.Uint16(r[recordHead-2:])) }

func (r record) path() []byte { return r[recordHead:][:r.pathLen()] }

// name is the last part of the path.
func (r record) name() []byte {
	path := r.path()
	for i := len(path); i > 0; i-- {
		if path[i-1] == '/' {
			return path[i:]
		}
	}
	return path
}

func (r record) rest() []byte { return r[recordHead+r.pathLen():] }

func (r record) kind() repository.EntryKind { return repository.EntryKind(r[18]) }

// attr is what stat says of a path: what was saved, exactly.
func (r record) attr() Attr {
	a := Attr{Mode: uint32(binary.LittleEndian.Uint16(r[16:])), Mtime: int64(binary.LittleEndian.Uint64(r))}
	switch r.kind() {
	case repository.Dir:
		a.Mode |= TypeDir
	case repository.Link:
		a.Mode, a.Size = linkMode, int64(len(r.rest()))
	default:
		a.Mode, a.Size = a.Mode|TypeFile, int64(binary.LittleEndian.Uint64(r[8:]))
	}
	return a
}

// entry decodes all of it.
func (r record) entry() (*repository.Entry, error) {
	e := &repository.Entry{
		Path: string(r.path()), Kind: r.kind(), Torn: r[19] != 0,
		Mode: uint32(binary.LittleEndian.Uint16(r[16:])), Mtime: int64(binary.LittleEndian.Uint64(r)), Size: int64(binary.LittleEndian.Uint64(r[8:])),
	}
	rest := r.rest()
	if e.Kind != repository.File {
		e.Target = string(rest)
		return e, nil
	}
	if len(rest) < len(e.Hash)+1 {
		return nil, errRecord
	}
	rest = rest[copy(e.Hash[:], rest):]
	n := int(rest[0])
	rest = rest[1:]
	if n == hasRecipe {
		x, rest, err := takeExtent(rest, true)
		if err != nil || len(rest) > 0 {
			return nil, errRecord
		}
		e.Recipe = &x.Ref
		return e, nil
	}
	for range n {
		x, left, err := takeExtent(rest, n > 1)
		if err != nil {
			return nil, err
		}
		e.Extents, rest = append(e.Extents, x), left
	}
	if len(rest) > 0 {
		return nil, errRecord
	}
	return e, nil
}

func takeExtent(b []byte, hash bool) (x repository.Extent, rest []byte, err error) {
	size := len(x.Pack) + 16
	if hash {
		size += len(x.Hash)
	}
	if len(b) < size {
		return x, nil, errRecord
	}
	at := copy(x.Pack[:], b)
	for _, n := range []*uint32{&x.Off, &x.Len, &x.Raw, &x.From} {
		*n = binary.LittleEndian.Uint32(b[at:])
		at += 4
	}
	if hash {
		copy(x.Hash[:], b[at:])
	}
	return x, b[size:], nil
}
