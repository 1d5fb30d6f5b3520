package repository

import (
	"bytes"
	"cmp"
	"fmt"
	mrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/mem"
)

// A builder makes repositories out of the format alone: packs, trees and records, with every form that a file can have.
type builder struct {
	t     testing.TB
	store storage.Store
	repo  *Repository
	chunk int // size of chunks of files above it
	now   time.Time
	ids   *mrand.ChaCha8 // and nonces: the same in each run
}

func newBuilder(t testing.TB, store storage.Store) *builder {
	t.Helper()
	r, err := Create(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	now, err := store.Now(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return &builder{t: t, store: store, repo: r, chunk: 256 << 10, now: now, ids: mrand.NewChaCha8([32]byte{1})}
}

// memStore has a clock that stands still.
func memStore(t *testing.T) *mem.Store {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	return mem.New(t.Name(), func() time.Time { return now })
}

func diskStore(t testing.TB) *disk.Store {
	t.Helper()
	s, err := disk.New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// stores are the two ways of reading: ranges of objects, and files of this machine.
func stores(t *testing.T) map[string]storage.Store {
	return map[string]storage.Store{"mem": memStore(t), "disk": diskStore(t)}
}

func (b *builder) newID() replicate.ID {
	b.t.Helper()
	id, err := replicate.NewID(b.ids)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

func (b *builder) put(key string, data []byte) {
	b.t.Helper()
	if _, err := b.store.Put(b.t.Context(), key, bytes.NewReader(data), int64(len(data))); err != nil {
		b.t.Fatal(err)
	}
}

func (b *builder) get(key string) []byte {
	b.t.Helper()
	data, err := readObject(b.t.Context(), b.store, key, 0, -1)
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// A packer makes one pack.
type packer struct {
	*builder
	buf bytes.Buffer
	w   *packWriter
}

func (b *builder) pack() *packer {
	p := &packer{builder: b}
	var nonce [nonceSize]byte
	b.ids.Read(nonce[:])
	p.w = newPackWriter(&p.buf, nonce)
	return p
}

func (p *packer) frame(kind frameKind, raw []byte) Ref {
	p.t.Helper()
	ref, err := p.w.append(kind, raw, hashOf(raw))
	if err != nil {
		p.t.Fatal(err)
	}
	return ref
}

// finish puts the pack and returns its name.
func (p *packer) finish() replicate.Hash {
	p.t.Helper()
	name, err := p.w.finish()
	if err != nil {
		p.t.Fatal(err)
	}
	p.put(packKey(name), p.buf.Bytes())
	return name
}

// content fills in where the bytes of a file are, the way a commit does.
func (p *packer) content(e *Entry, data []byte) {
	e.Size, e.Hash = int64(len(data)), hashOf(data)
	switch {
	case len(data) == 0:
	case len(data) <= p.chunk:
		ref := p.frame(kindChunk, data)
		ref.Hash = replicate.Hash{}
		e.Extents = []Extent{{Ref: ref}}
	default:
		for piece := range slices.Chunk(data, p.chunk) {
			e.Extents = append(e.Extents, Extent{Ref: p.frame(kindChunk, piece)})
		}
		if len(e.Extents) > maxInline {
			recipe, err := encodeRecipe(e.Extents)
			if err != nil {
				p.t.Fatal(err)
			}
			e.Extents, e.Recipe = nil, new(p.frame(kindRecipe, recipe))
		}
	}
}

// apart puts a large file into packs of 60 chunks.
func (p *packer) apart(e *Entry, data []byte) (packs []replicate.Hash) {
	e.Size, e.Hash = int64(len(data)), hashOf(data)
	var extents []Extent
	for part := range slices.Chunk(data, 60<<20) {
		q := p.builder.pack()
		from := len(extents)
		for piece := range slices.Chunk(part, 1<<20) {
			extents = append(extents, Extent{Ref: q.frame(kindChunk, piece)})
		}
		name := q.finish()
		for i := range extents[from:] {
			extents[from+i].Pack = name
		}
		packs = append(packs, name)
	}
	recipe, err := encodeRecipe(extents)
	if err != nil {
		p.t.Fatal(err)
	}
	e.Recipe = new(p.frame(kindRecipe, recipe))
	return packs
}

// group puts small files into one frame.
func (p *packer) group(entries []*Entry, data [][]byte) {
	ref := p.frame(kindGroup, bytes.Join(data, nil))
	ref.Hash = replicate.Hash{}
	from := 0
	for i, e := range entries {
		e.Size, e.Hash = int64(len(data[i])), hashOf(data[i])
		if e.Size > 0 {
			e.Extents = []Extent{{Ref: ref, From: uint32(from)}}
		}
		from += len(data[i])
	}
}

// A fake is a path of a tree that is to be made.
type fake struct {
	entry Entry
	data  []byte
	small bool // goes into the group
	apart bool // has its chunks in packs of its own
}

func fakeFile(path, data string) fake {
	return fake{entry: Entry{Path: path, Mode: 0o644, Mtime: 1700000000123456789}, data: []byte(data)}
}

func fakeSmall(path, data string) fake {
	f := fakeFile(path, data)
	f.small = true
	return f
}

func fakeDir(path string) fake {
	return fake{entry: Entry{Path: path, Kind: Dir, Mode: 0o755, Mtime: 1600000000987654321}}
}

func fakeLink(path, target string) fake {
	return fake{entry: Entry{Path: path, Kind: Link, Mode: 0o777, Mtime: 1500000000111222333, Target: target}}
}

// tree puts a pack with files and their tree, and returns the row.
func (b *builder) tree(fakes ...fake) Row {
	b.t.Helper()
	var row Row
	p := b.pack()
	slices.SortFunc(fakes, func(x, y fake) int { return ComparePaths(x.entry.Path, y.entry.Path) })
	t := &Tree{Entries: make([]Entry, len(fakes))}
	var grouped []*Entry
	var texts [][]byte
	for i, f := range fakes {
		t.Entries[i] = f.entry
		switch e := &t.Entries[i]; {
		case f.small:
			grouped, texts = append(grouped, e), append(texts, f.data)
		case f.apart:
			row.Packs = append(row.Packs, p.apart(e, f.data)...)
		case e.Kind == File:
			p.content(e, f.data)
		}
	}
	if len(grouped) > 0 {
		p.group(grouped, texts)
	}
	raws, _, err := encodeTree(t)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, raw := range raws {
		row.Tree = append(row.Tree, p.frame(kindTree, raw))
	}
	name := p.finish()
	for i := range row.Tree {
		row.Tree[i].Pack = name
	}
	row.Packs, row.Before = append(row.Packs, name), b.now.Add(time.Hour)
	return row
}

// record encodes a record.
func (b *builder) record(r Record) Record {
	b.t.Helper()
	r, err := r.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	return r
}

// log puts records as one object and returns its key.
func (b *builder) log(records ...Record) string {
	b.t.Helper()
	key, object := encodeLog(records)
	b.put(key, object)
	return key
}

// commit returns the record of a commit with a row.
func (b *builder) commit(row Row) Record {
	return b.record(Record{Commit: &CommitRow{Commit: replicate.Commit{ID: b.newID(), Experiment: b.newID()}, Row: row}})
}

// opened reads the tree of a row with a Repository that has nothing cached.
func (b *builder) opened(row Row) (*Repository, *Tree) {
	b.t.Helper()
	r, err := Open(b.t.Context(), b.store)
	if err != nil {
		b.t.Fatal(err)
	}
	tree, err := r.Tree(b.t.Context(), row)
	if err != nil {
		b.t.Fatal(err)
	}
	return r, tree
}

// syncAll returns the lines of all records by key of the object, and the errors of batches.
func syncAll(t *testing.T, r *Repository, known func(string) bool) (records map[string][]string, damage []error) {
	t.Helper()
	records = map[string][]string{}
	for batch, err := range r.Sync(t.Context(), known) {
		if err != nil {
			t.Fatal(err)
		}
		if batch.Err != nil {
			damage = append(damage, batch.Err)
		}
		for _, record := range batch.Records {
			records[batch.Key] = append(records[batch.Key], string(record.Line))
		}
	}
	slices.SortFunc(damage, func(a, b error) int { return cmp.Compare(a.Error(), b.Error()) })
	return records, damage
}

func nothingKnown(string) bool { return false }

// noise returns n bytes that do not compress.
func noise(seed uint64, n int) []byte {
	data := make([]byte, n)
	source := mrand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	source.Read(data)
	return data
}

// prose returns n bytes that compress.
func prose(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "line %d of a text that says little\n", i)
	}
	return b.Bytes()[:n]
}
