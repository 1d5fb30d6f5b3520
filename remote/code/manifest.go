package code

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

const (
	manifestMagic = "RPLCODE1"
	// maxManifest is ten million files.
	maxManifest = 1 << 30
	maxPath     = 4096 // PATH_MAX of Linux
)

// A Manifest says what a tree is, in the order of a tree: every directory stands before what is in it.
type Manifest struct{ Entries []Entry }

// An Entry is one path of a manifest.
type Entry struct {
	Path   string // relative to the root, "/" between names, any bytes but NUL
	Kind   repository.EntryKind
	Mode   uint32 // 07777
	Mtime  int64  // nanoseconds since 1970
	Target string // of a link
	Size   int64
	Pieces []Piece // of a file that is not empty, from its beginning to its end
}

// A Piece is a stretch of a file, and the BLAKE3 of it.
type Piece struct {
	Hash replicate.Hash
	Size int64
}

// Append appends the encoded manifest.
func (m *Manifest) Append(b []byte) []byte {
	from := len(b)
	b = append(b, manifestMagic...)
	for i := range m.Entries {
		b = m.Entries[i].append(b)
	}
	b = binary.AppendUvarint(b, 0)
	sum := repository.HashOf(b[from:])
	return append(b, sum[:]...)
}

func (e *Entry) append(b []byte) []byte {
	b = appendText(b, e.Path)
	b = append(b, byte(e.Kind))
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendVarint(b, e.Mtime)
	switch e.Kind {
	case repository.Link:
		b = appendText(b, e.Target)
	case repository.File:
		b = binary.AppendUvarint(b, uint64(e.Size))
		b = appendPieces(b, e.Pieces)
	}
	return b
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendPieces(b []byte, pieces []Piece) []byte {
	b = binary.AppendUvarint(b, uint64(len(pieces)))
	for _, p := range pieces {
		b = append(binary.AppendUvarint(b, uint64(p.Size)), p.Hash[:]...)
	}
	return b
}

// ParseManifest reads an encoded manifest. What it returns can be laid out: every path stays below the root and in a directory of the manifest, and
// pieces add up. The error is of kind Corrupt.
func ParseManifest(data []byte) (*Manifest, error) {
	m, err := parseManifest(data)
	if err != nil {
		return nil, &replicate.Error{Op: "read manifest", Kind: replicate.Corrupt, Err: err}
	}
	return m, nil
}

func parseManifest(data []byte) (*Manifest, error) {
	body, err := sealed(data, manifestMagic)
	if err != nil {
		return nil, err
	}
	d := decoder{data: body}
	m := &Manifest{}
	for {
		path := d.text(maxPath)
		if path == "" {
			break
		}
		m.Entries = append(m.Entries, d.entry(path))
	}
	if d.err == nil && len(d.data) > 0 {
		d.fail("unexpected bytes")
	}
	if d.err != nil {
		return nil, d.err
	}
	return m, m.check()
}

// sealed returns what stands between the magic and the hash of all before it.
func sealed(data []byte, magic string) ([]byte, error) {
	if len(data) < len(magic)+len(replicate.Hash{}) || string(data[:len(magic)]) != magic {
		return nil, fmt.Errorf("does not begin with %s", magic)
	}
	body := data[:len(data)-len(replicate.Hash{})]
	if repository.HashOf(body) != replicate.Hash(data[len(body):]) {
		return nil, errors.New("the bytes are not those that were written")
	}
	return body[len(magic):], nil
}

// A decoder takes fields from data. Behind the first error every field is zero.
type decoder struct {
	data []byte
	err  error
}

func (d *decoder) fail(what string) {
	if d.err == nil {
		d.err = fmt.Errorf("%s, %d bytes before the end", what, len(d.data))
	}
	d.data = nil
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.data)) {
		d.fail("ends in the middle")
		return nil
	}
	b := d.data[:n]
	d.data = d.data[n:]
	return b
}

// number takes a number of at most limit.
func (d *decoder) number(limit uint64) uint64 {
	n, size := binary.Uvarint(d.data)
	if size <= 0 || n > limit {
		d.fail("impossible number")
		return 0
	}
	d.data = d.data[size:]
	return n
}

func (d *decoder) signed() int64 {
	n, size := binary.Varint(d.data)
	if size <= 0 {
		d.fail("impossible number")
		return 0
	}
	d.data = d.data[size:]
	return n
}

func (d *decoder) text(limit uint64) string { return string(d.take(d.number(limit))) }

func (d *decoder) hash() (h replicate.Hash) {
	copy(h[:], d.take(uint64(len(h))))
	return h
}

const maxSize = 1<<63 - 1

func (d *decoder) entry(path string) Entry {
	e := Entry{Path: path}
	if kind := d.take(1); len(kind) == 1 {
		e.Kind = repository.EntryKind(kind[0])
	}
	e.Mode = uint32(d.number(0o7777))
	e.Mtime = d.signed()
	switch e.Kind {
	case repository.Link:
		e.Target = d.text(maxPath)
	case repository.File:
		e.Size = int64(d.number(maxSize))
		e.Pieces = d.pieces()
	case repository.Dir:
	default:
		d.fail("unknown kind")
	}
	return e
}

func (d *decoder) pieces() []Piece {
	n := d.number(uint64(len(d.data)) / 33) // each takes at least so many bytes
	if n == 0 {
		return nil
	}
	pieces := make([]Piece, n)
	for i := range pieces {
		pieces[i].Size = int64(d.number(maxSize))
		pieces[i].Hash = d.hash()
	}
	return pieces
}

// check refuses what cannot be laid out.
func (m *Manifest) check() error {
	var dirs []string // the directories that the current path may be in, outermost first
	for i := range m.Entries {
		e := &m.Entries[i]
		if i > 0 && repository.ComparePaths(m.Entries[i-1].Path, e.Path) >= 0 {
			return fmt.Errorf("%q stands behind %q", e.Path, m.Entries[i-1].Path)
		}
		for len(dirs) > 0 && !strings.HasPrefix(e.Path, dirs[len(dirs)-1]) {
			dirs = dirs[:len(dirs)-1]
		}
		name := e.Path
		if len(dirs) > 0 {
			name = name[len(dirs[len(dirs)-1]):]
		}
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return fmt.Errorf("%q is in no directory of the tree", e.Path)
		}
		if err := e.check(); err != nil {
			return fmt.Errorf("%q: %w", e.Path, err)
		}
		if e.Kind == repository.Dir {
			dirs = append(dirs, e.Path+"/")
		}
	}
	return nil
}

func (e *Entry) check() error {
	if e.Kind == repository.Link && (e.Target == "" || strings.Contains(e.Target, "\x00")) {
		return errors.New("a link to nothing")
	}
	rest := e.Size
	for _, p := range e.Pieces {
		if p.Size <= 0 || p.Size > rest {
			return errors.New("its pieces do not add up")
		}
		rest -= p.Size
	}
	if rest != 0 {
		return errors.New("its pieces do not add up")
	}
	return nil
}
