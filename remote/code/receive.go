package code

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// maxRounds is how often chunks that turn out to be damaged are asked for: a disk that damages them each time is no place for a job.
const maxRounds = 3

// ReceiveOptions says where a tree goes.
type ReceiveOptions struct {
	Chunks string // directory that keeps chunks for the next time; made if it is missing
	Target string // directory that the tree becomes; nothing may be there but an empty directory
	Owner  *Owner // whom its files belong to; nil: whoever runs this
	Name   string // of the tree, for Prune: a file name; "": Prune knows its chunks by their age only
}

// Receive takes a tree from a Send at the other end of rw and lays it out. The target is there with everything in it, every byte verified, or not at all. A
// receiver that was killed leaves <Target>.part behind, which the next one replaces. The sender is told of errors. When ctx ends, Receive closes rw if it can be closed.
// Nothing is read beyond what Send says.
func Receive(ctx context.Context, rw io.ReadWriter, o ReceiveOptions) error {
	if c, ok := rw.(io.Closer); ok {
		defer context.AfterFunc(ctx, func() { c.Close() })()
	}
	r := &receiver{wire: newWire(rw), chunks: chunks{o.Chunks}, options: o}
	err := r.receive(ctx)
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	err = problem("receive", o.Target, err)
	if err != nil {
		r.wire.sendError(err)
	}
	return err
}

type receiver struct {
	wire    *wire
	chunks  chunks
	options ReceiveOptions
	tree    *Manifest
	pieces  []place
	unasked []place // what the sender sends at once
}

// errAgain says that the sender begins again: its next message is another manifest.
var errAgain = errors.New("begins again")

func (r *receiver) receive(ctx context.Context) error {
	if err := free(r.options.Target); err != nil {
		return err
	}
	if err := os.MkdirAll(r.options.Chunks, 0o700); err != nil {
		return err
	}
	err := errAgain
	for err == errAgain {
		if err = r.announced(); err == nil {
			err = r.fetch(ctx)
		}
	}
	if err != nil {
		return err
	}
	return r.wire.say(msgDone, nil)
}

// free reports whether a tree can go to a directory.
func free(target string) error {
	names, err := os.ReadDir(target)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(names) == 0 {
		return nil
	}
	if err == nil {
		err = replicate.Errorf(replicate.Conflict, "there are files in it")
	}
	return err
}

// announced receives the manifest.
func (r *receiver) announced() error {
	var data []byte
	for {
		kind, payload, err := r.wire.receive()
		switch {
		case err != nil:
			return err
		case kind == msgManifest && len(data)+len(payload) <= maxManifest:
			data = append(data, payload...)
			continue
		case kind != msgManifestEnd:
			return errProtocol
		}
		if r.tree, err = ParseManifest(data); err != nil {
			return err
		}
		r.pieces = distinct(r.tree)
		if r.unasked, err = chosen(r.pieces, payload); err != nil {
			return err
		}
		if err := r.checkPieces(); err != nil || r.options.Name == "" {
			return err
		}
		return r.chunks.keepTree(r.options.Name, data)
	}
}

// checkPieces refuses what no chunk can be.
func (r *receiver) checkPieces() error {
	sizes := make(map[replicate.Hash]int64, len(r.pieces))
	for _, p := range r.pieces {
		sizes[p.Hash] = p.Size
	}
	for i := range r.tree.Entries {
		for _, p := range r.tree.Entries[i].Pieces {
			if p.Size > repository.MaxChunk || sizes[p.Hash] != p.Size {
				return replicate.Errorf(replicate.Corrupt, "%q: impossible pieces", r.tree.Entries[i].Path)
			}
		}
	}
	if len(r.pieces) > 8*maxMessage {
		return replicate.Errorf(replicate.Usage, "more than %d pieces", 8*maxMessage)
	}
	return nil
}

// fetch asks for what is not here and lays out the tree, until nothing is damaged.
func (r *receiver) fetch(ctx context.Context) error {
	l, err := newLayout(r.options, r.tree, r.chunks)
	if err != nil {
		return err
	}
	defer l.close()
	if err := r.take(ctx, r.unasked); err != nil {
		return err
	}
	for range maxRounds {
		if err := r.want(ctx); err != nil {
			return err
		}
		damaged, err := l.files(ctx)
		if err != nil {
			return err
		}
		if !damaged {
			return l.finish()
		}
	}
	return replicate.Errorf(replicate.Corrupt, "chunks in %s are damaged each time they are written", r.options.Chunks)
}

// want asks for the chunks that are not here, and takes them.
func (r *receiver) want(ctx context.Context) error {
	now := time.Now()
	missing := make([]bool, len(r.pieces))
	err := parallel(ctx, len(r.pieces), func(i int) error {
		missing[i] = !r.chunks.has(r.pieces[i].Piece, now)
		return nil
	})
	if err != nil {
		return err
	}
	bits := bitmap(len(r.pieces), func(i int) bool { return missing[i] })
	if err := r.wire.say(msgWanted, bits); err != nil {
		return err
	}
	wanted, err := chosen(r.pieces, bits)
	if err != nil {
		return err
	}
	return r.take(ctx, wanted)
}

// take receives chunks. They are verified and written side by side.
func (r *receiver) take(ctx context.Context, wanted []place) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var writers sync.WaitGroup
	defer func() {
		writers.Wait()
		if cause := context.Cause(ctx); cause != nil && err == nil {
			err = cause
		}
	}()
	turns := make(chan struct{}, hands())
	for len(wanted) > 0 {
		m, err := r.wire.receiveStored()
		if err != nil {
			return err
		}
		if m.kind == msgManifest {
			r.wire.unreceive(m)
			return errAgain
		}
		n, size := 0, int64(0)
		for ; n < len(wanted) && size < int64(m.raw); n++ {
			size += wanted[n].Size
		}
		if m.kind != msgChunks || size != int64(m.raw) || n == 0 {
			return errProtocol
		}
		m.stored = slices.Clone(m.stored)
		here := wanted[:n]
		wanted = wanted[n:]
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		writers.Go(func() {
			defer func() { <-turns }()
			if err := r.store(m, here); err != nil {
				cancel(err)
			}
		})
	}
	return nil
}

// store keeps the chunks of a message.
func (r *receiver) store(m message, wanted []place) error {
	content, err := m.open(nil)
	if err != nil {
		return err
	}
	for _, p := range wanted {
		chunk := content[:p.Size]
		content = content[p.Size:]
		if repository.HashOf(chunk) != p.Hash {
			return replicate.Errorf(replicate.Corrupt, "%q changed on its way", r.tree.Entries[p.entry].Path)
		}
		if err := r.chunks.put(p.Hash, chunk); err != nil {
			return err
		}
	}
	return nil
}
