package repository

import (
	"cmp"
	"context"
)

// EachEntry calls f for the entries of the tree of a row, in order, until it returns an error. Unlike Tree it does not keep them: there are two
// frames in memory at a time, however large the tree. An entry and its Extents are valid until f returns. What f was told stands only if there
// is no error at the end.
func (r *Repository) EachEntry(ctx context.Context, row Row, f func(*Entry) error) error {
	if _, _, isForeign := row.Foreign(); isForeign && r.foreign != nil {
		kept, home, _, err := r.foreign.home(ctx, row)
		if err != nil {
			return listError(err)
		}
		return kept.EachEntry(ctx, home, f)
	}
	if len(row.Tree) == 0 {
		return nil
	}
	d := treeDecoder{own: row.Tree[0].Pack}
	var stopped error
	err := r.eachFrame(ctx, row.Tree, func(raw []byte) error {
		return d.decode(raw, func(e *Entry) error {
			stopped = f(e)
			d.slab = d.slab[:0]
			return stopped
		})
	})
	if stopped != nil {
		return stopped
	}
	if err == nil {
		err = d.end()
	}
	if err != nil {
		return listError(err)
	}
	return nil
}

// eachFrame calls f for the contents of frames, in order, and reads the next one meanwhile. They are valid until f returns.
func (r *Repository) eachFrame(ctx context.Context, refs []Ref, f func(raw []byte) error) error {
	var rooms [2]frameRoom
	var raws [2][]byte
	read := func(i int) (err error) {
		raws[i%2], err = r.readFrameInto(ctx, refs[i], &rooms[i%2])
		return err
	}
	err := read(0)
	for i := 0; i < len(refs) && err == nil; i++ {
		next := make(chan error, 1)
		if i+1 < len(refs) {
			go func() { next <- read(i + 1) }()
		} else {
			next <- nil
		}
		err = f(raws[i%2])
		err = cmp.Or(err, <-next)
	}
	return err
}
