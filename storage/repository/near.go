package repository

import (
	"bytes"
	"context"
	"io"

	"github.com/replicate/replicate"
)

// nearTree is how much of a pack is read with the tree behind it: a millisecond at 1 Gbit/s, and more than most commits of small files
// stored.
const nearTree = 128 << 10

// An excerpt is bytes of a pack that were read before somebody asked for them.
type excerpt struct {
	pack replicate.Hash
	off  int64
	data []byte
}

// open returns n bytes of a pack from off, nil if they are not in it.
func (s *excerpt) open(pack replicate.Hash, off, n int64) io.ReadCloser {
	if s == nil || s.pack != pack || off < s.off || off+n > s.off+int64(len(s.data)) {
		return nil
	}
	return io.NopCloser(bytes.NewReader(s.data[off-s.off:][:n]))
}

// TreeNear is Tree for who then reads a small file: where the bytes are far away, what lies before the tree in its pack comes with it, and of a
// file that is stored there no further request is made.
func (r *Repository) TreeNear(ctx context.Context, row Row) (*Tree, error) {
	return r.tree(ctx, row, r.readNear)
}

// readNear reads a tree with what lies before it.
func (r *Repository) readNear(ctx context.Context, refs []Ref) (*Tree, int64, error) {
	if ref := refs[0]; r.local == nil && len(refs) == 1 && ref.check() == nil && !r.cache.has(ref) {
		from := max(0, int64(ref.Off)-nearTree)
		data := make([]byte, end(ref)-from)
		if err := r.readPack(ctx, ref.Pack, from, data); err != nil {
			return nil, 0, err
		}
		r.near.Store(&excerpt{ref.Pack, from, data})
	}
	return r.readTree(ctx, refs)
}
