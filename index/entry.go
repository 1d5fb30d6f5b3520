package index

import (
	"cmp"
	"encoding/binary"
	"errors"
	"math"
	"slices"

	"github.com/replicate/replicate"
)

// The scan blob of an experiment is what queries look at: entries sorted by key, each
//
//	uvarint(key − the key before) tag payload
//
// A key is the number of a name, shifted, and which of its values is meant. Built-in names have fixed numbers; the
// others are rows of the table name. Values live here and not in columns, as SQLite turns NaN into NULL and rounds big ints.

// key is the number of a name and a field.
type key uint64

// field says which value of a name a key stands for.
type field uint64

const (
	builtinField field = iota
	paramField
	firstField
	lastField
	minField
	maxField
	fieldBits = 3
)

func keyOf(number uint64, f field) key { return key(number<<fieldBits | uint64(f)) }

type entry struct {
	key   key
	value replicate.Value
}

// tags of values
const (
	tagNull = iota
	tagFalse
	tagTrue
	tagInt   // zigzag varint
	tagFloat // 8 bytes
	tagText  // uvarint length, bytes
	tagJSON  // uvarint length, JSON: lists, maps, ints of more than 64 bits
)

var errBlob = errors.New("damaged blob")

// appendEntries appends entries in the order of their keys. It sorts them in place.
func appendEntries(dst []byte, entries []entry) []byte {
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.key, b.key) })
	last := key(0)
	for _, e := range entries {
		dst = binary.AppendUvarint(dst, uint64(e.key-last))
		dst = appendValue(dst, e.value)
		last = e.key
	}
	return dst
}

func appendValue(dst []byte, v replicate.Value) []byte {
	switch v.Kind() {
	case replicate.NullKind:
		return append(dst, tagNull)
	case replicate.BoolKind:
		if v.Bool() {
			return append(dst, tagTrue)
		}
		return append(dst, tagFalse)
	case replicate.FloatKind:
		return binary.LittleEndian.AppendUint64(append(dst, tagFloat), math.Float64bits(v.Float()))
	case replicate.TextKind:
		return appendText(append(dst, tagText), v.Text())
	}
	if i, ok := v.Int64(); ok {
		return binary.AppendVarint(append(dst, tagInt), i)
	}
	return appendText(append(dst, tagJSON), string(v.AppendJSON(nil)))
}

func appendText(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// blobReader reads what the functions above wrote. After an error it returns zero values.
type blobReader struct {
	data []byte
	err  error
}

func (r *blobReader) fail() { r.data, r.err = nil, errBlob }

func (r *blobReader) uvarint() uint64 {
	n, size := binary.Uvarint(r.data)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.data = r.data[size:]
	return n
}

func (r *blobReader) varint() int64 {
	n, size := binary.Varint(r.data)
	if size <= 0 {
		r.fail()
		return 0
	}
	r.data = r.data[size:]
	return n
}

// bytes returns the next n bytes, which stay part of the blob.
func (r *blobReader) bytes(n uint64) []byte {
	if n > uint64(len(r.data)) {
		r.fail()
		return nil
	}
	b := r.data[:n:n]
	r.data = r.data[n:]
	return b
}

func (r *blobReader) byte() byte {
	if b := r.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

func (r *blobReader) uint64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

func (r *blobReader) text() string { return string(r.bytes(r.uvarint())) }

func (r *blobReader) value() replicate.Value {
	switch r.byte() {
	case tagNull:
	case tagFalse:
		return replicate.Bool(false)
	case tagTrue:
		return replicate.Bool(true)
	case tagInt:
		return replicate.Int(r.varint())
	case tagFloat:
		return replicate.Float(math.Float64frombits(r.uint64()))
	case tagText:
		return replicate.Text(r.text())
	case tagJSON:
		v, err := replicate.ParseValue(r.bytes(r.uvarint()))
		if err != nil {
			r.fail()
		}
		return v
	default:
		r.fail()
	}
	return replicate.Value{}
}

// skip steps over a value.
func (r *blobReader) skip() {
	switch r.byte() {
	case tagNull, tagFalse, tagTrue:
	case tagInt:
		r.varint()
	case tagFloat:
		r.bytes(8)
	case tagText, tagJSON:
		r.bytes(r.uvarint())
	default:
		r.fail()
	}
}
