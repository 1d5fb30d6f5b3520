package code

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/replicate/replicate/storage/repository"
)

// memoryMagic begins a file that remembers the pieces of files. Behind it, for each file, stand its path, its stamp and its pieces, as in a
// manifest; then an empty path and the BLAKE3 of all before. The file is replaced by rename and disposable: a damaged one counts as empty.
const memoryMagic = "RPLSENT1"

// A memory holds the pieces of files under the stamps they were read with.
type memory map[string]remembered

type remembered struct {
	stamp  repository.Stamp
	pieces []Piece
}

// find returns the pieces of a file that has not changed since it was read.
func (m memory) find(s *repository.Sight) ([]Piece, bool) {
	r, ok := m[s.Path]
	if !ok || r.stamp != s.Stamp {
		return nil, false
	}
	return r.pieces, true
}

// loadMemory reads a memory, an empty one if there is none.
func loadMemory(path string) memory {
	m := memory{}
	if path == "" {
		return m
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return m
	}
	body, err := sealed(data, memoryMagic)
	if err != nil {
		return m
	}
	d := decoder{data: body}
	for name := d.text(maxPath); name != ""; name = d.text(maxPath) {
		s := repository.Stamp{Size: d.signed(), Mtime: d.signed(), Ctime: d.signed()}
		s.Inode, s.Device = d.number(1<<64-1), d.number(1<<64-1)
		m[name] = remembered{stamp: s, pieces: d.pieces()}
	}
	if d.err != nil {
		return memory{}
	}
	return m
}

// save replaces the file of a memory. It is not synced: after a crash of the machine the hash in it shows what is whole.
func (m memory) save(path string) error {
	b := []byte(memoryMagic)
	for name, r := range m {
		b = appendText(b, name)
		for _, n := range []int64{r.stamp.Size, r.stamp.Mtime, r.stamp.Ctime} {
			b = binary.AppendVarint(b, n)
		}
		b = binary.AppendUvarint(binary.AppendUvarint(b, r.stamp.Inode), r.stamp.Device)
		b = appendPieces(b, r.pieces)
	}
	b = binary.AppendUvarint(b, 0)
	sum := repository.HashOf(b)
	f, err := os.CreateTemp(filepath.Dir(path), ".sent-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, sum[:]...))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// moment returns the time of the file system that the memory is on, zero if it cannot be told: then nothing is settled.
func (t *Tree) moment() time.Time {
	if t.options.Memory == "" {
		return time.Time{}
	}
	now, err := repository.FileClock(filepath.Dir(t.options.Memory))
	if err != nil {
		return time.Time{}
	}
	return now
}
