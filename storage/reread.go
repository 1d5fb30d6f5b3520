package storage

import (
	"bytes"
	"context"
	"io"
	"sync/atomic"
)

// headSize is how much of an object Get reads before it returns: what is smaller is read whole, again from the beginning if need be.
const headSize = 256 << 10

// Get opens an object, and goes on where its body breaks off.
func (r *retrier) Get(ctx context.Context, key string, off, n int64) (io.ReadCloser, error) {
	open := func(ctx context.Context) (io.ReadCloser, error) { return r.Store.Get(ctx, key, off, n) }
	for t := r.try(); ; {
		body, err := r.getOnce(ctx, open, n, t)
		if err == nil {
			return body, nil
		}
		if err := t.again(ctx, err); err != nil {
			return nil, err
		}
	}
}

func (r *retrier) getOnce(ctx context.Context, open func(context.Context) (io.ReadCloser, error), n int64, t *try) (io.ReadCloser, error) {
	defer r.slot(ctx)()
	w := r.policy.watch(ctx)
	body, end, err := r.hedge(w.ctx, n, open)
	if err != nil {
		defer w.end()
		return nil, w.judge(err)
	}
	head, more, err := readHead(body, n, w, &r.answers.received)
	if err != nil || !more {
		defer w.end()
		defer end()
		defer body.Close()
		return io.NopCloser(bytes.NewReader(head)), w.judge(err)
	}
	w.pause()
	return &rereader{ctx: ctx, try: t, watch: w, end: end, first: body, body: body, head: head, at: int64(len(head)), received: &r.answers.received}, nil
}

// readHead reads up to headSize of a body that has n bytes, if n ≥ 0, or more, and adds to received what it gets. more is whether it did not see the
// end.
func readHead(body io.Reader, n int64, w *watch, received *atomic.Int64) (head []byte, more bool, err error) {
	size := int64(4 << 10) // most objects of an unknown size are records
	if n >= 0 {
		size = min(n+1, headSize) // one more, to see the end without growing
	}
	for head = make([]byte, 0, size); len(head) < headSize; {
		if len(head) == cap(head) {
			head = append(head, 0)[:len(head)]
		}
		w.tick()
		n, err := body.Read(head[len(head):min(cap(head), headSize)])
		head = head[:len(head)+n]
		received.Add(int64(n))
		if err == io.EOF {
			return head, false, nil
		}
		if err != nil {
			return nil, false, err
		}
	}
	return head, true, nil
}

// A rereader is a body that outlives its connection.
type rereader struct {
	ctx   context.Context
	try   *try
	watch *watch             // of the present request
	end   context.CancelFunc // of the first one
	first io.ReadCloser
	body  io.ReadCloser
	head  []byte // read and not yet given
	at    int64  // read, head included

	received *atomic.Int64 // bytes of all reads
}

func (r *rereader) Read(p []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	for {
		r.watch.tick()
		n, err := r.body.Read(p)
		r.watch.pause()
		r.at += int64(n)
		r.received.Add(int64(n))
		if n > 0 {
			r.try.progress()
			return n, nil // an error comes again
		}
		if err == nil || err == io.EOF {
			return n, err
		}
		if err := r.reopen(r.watch.judge(err)); err != nil {
			return 0, err
		}
	}
}

// reopen goes on behind what was read, after a body broke with err.
func (r *rereader) reopen(err error) error {
	first, ok := r.first.(Resumer)
	if !ok {
		return err
	}
	for {
		if err := r.try.again(r.ctx, err); err != nil {
			return err
		}
		r.body.Close()
		r.watch.end()
		r.watch = r.try.policy.watch(r.ctx)
		var body io.ReadCloser
		if body, err = first.Resume(r.watch.ctx, r.at); err == nil {
			r.body = body
			return nil
		}
		err = r.watch.judge(err)
	}
}

func (r *rereader) Close() error {
	defer r.end()
	defer r.watch.end()
	return r.body.Close()
}
