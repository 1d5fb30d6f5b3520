package pipe

import (
	"context"
	"io"
	"math"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// A download reads one object piece by piece, a few of them ahead.
type download struct {
	store  *Store
	ctx    context.Context
	cancel context.CancelFunc
	key    string
	next   int64 // offset of the next request
	end    int64 // nothing is asked for from here on
	queue  []piece
	data   []byte // of the piece being read
	err    error
}

// A piece is a request under way.
type piece struct {
	from <-chan *answer
	id   uint64
	n    int64
}

// Get reads n bytes of an object from off, to its end if n < 0.
func (s *Store) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	if err := storage.CheckKey(key); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d := &download{store: s, key: key, next: off, end: math.MaxInt64}
	if n >= 0 && n < math.MaxInt64-off {
		d.end = off + n
	}
	d.ctx, d.cancel = context.WithCancel(ctx)
	if n == 0 { // whether it exists is still a question
		if _, err := s.Stat(ctx, key); err != nil {
			return nil, err
		}
		d.err = io.EOF
		return d, nil
	}
	if d.fill(); d.err != nil {
		d.Close()
		return nil, d.err
	}
	return d, nil
}

// fill waits for the next piece, and asks for those behind it before it hands that out. Behind the first, which for most objects is all, a few are
// under way.
func (d *download) fill() {
	if len(d.queue) == 0 {
		d.ask(1)
	}
	if d.err != nil {
		return
	}
	if len(d.queue) == 0 {
		d.err = io.EOF
		return
	}
	p := d.queue[0]
	d.queue = d.queue[1:]
	d.data, d.err = d.store.await(d.ctx, p.from, p.id)
	switch size := int64(len(d.data)); {
	case d.err != nil:
	case size > p.n:
		d.data, d.err = nil, replicate.Errorf(replicate.Corrupt, "%d bytes came instead of %d", size, p.n)
	case size < p.n: // the object ends here
		d.end = d.next
		d.drop()
	default:
		d.ask(piecesAhead)
	}
}

// ask has up to n requests under way.
func (d *download) ask(n int) {
	for len(d.queue) < n && d.next < d.end {
		size := min(pieceSize, d.end-d.next)
		from, id, err := d.store.start(request{Op: opGet, Key: d.key, Off: d.next, N: size})
		if err != nil {
			d.err = err
			return
		}
		d.queue = append(d.queue, piece{from, id, size})
		d.next += size
	}
}

// drop forgets what is under way.
func (d *download) drop() {
	for _, p := range d.queue {
		d.store.forget(p.id)
	}
	d.queue = nil
}

func (d *download) Read(p []byte) (int, error) {
	for len(d.data) == 0 {
		if d.err != nil {
			return 0, d.err
		}
		d.fill()
	}
	n := copy(p, d.data)
	d.data = d.data[n:]
	return n, nil
}

func (d *download) Close() error {
	d.cancel()
	d.drop()
	return nil
}
