package repository

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/replicate/replicate"
)

// packsAtOnce is how many packs are on their way at the same time. Each of them, up to 64 MiB, is a file of the spool meanwhile.
const packsAtOnce = 8

// A packCopy is the packs that are being copied, in the order in which rows need them.
type packCopy struct {
	copier  *copier
	work    *importer
	cancel  context.CancelFunc
	workers sync.WaitGroup
	shown   *progress
	done    map[replicate.Hash]chan struct{} // closed when the pack is there, or is left out
	damaged sync.Map                         // of replicate.Hash: those left out
	failed  chan struct{}                    // closed when err is set
	err     error
}

// startPacks begins to copy the packs that the rows of experiments lack.
func (c *copier) startPacks(ctx context.Context, experiments []*copied) (*packCopy, error) {
	work, err := c.newWork()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &packCopy{copier: c, work: work, cancel: cancel, done: map[replicate.Hash]chan struct{}{}, failed: make(chan struct{})}
	var order []replicate.Hash
	for _, e := range experiments {
		for _, r := range e.rows {
			for _, name := range r.row().Packs {
				if _, missing := c.missing[name]; missing && p.done[name] == nil {
					p.done[name] = make(chan struct{})
					order = append(order, name)
				}
			}
		}
	}
	p.shown = showProgress(c.report.Bytes, c.options.Progress)
	p.workers.Go(func() {
		err := parallel(ctx, packsAtOnce, len(order), func(ctx context.Context, i int) error {
			if err := p.copy(ctx, order[i]); err != nil {
				return err
			}
			close(p.done[order[i]])
			return nil
		})
		if err != nil {
			p.err = err
			close(p.failed)
		}
	})
	return p, nil
}

// wait returns when packs are there.
func (p *packCopy) wait(ctx context.Context, packs []replicate.Hash) error {
	for _, name := range packs {
		if p.done[name] == nil {
			continue // it was there before
		}
		select {
		case <-p.done[name]:
		case <-p.failed:
			return p.err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// lacks reports whether one of these packs was left out. They must have been waited for.
func (p *packCopy) lacks(packs []replicate.Hash) bool {
	return slices.ContainsFunc(packs, func(name replicate.Hash) bool {
		_, damaged := p.damaged.Load(name)
		return damaged
	})
}

// copy copies one pack. One that is damaged is copied as it is, if that is what stands there: the frames that are whole are worth having, and readers
// verify each.
func (p *packCopy) copy(ctx context.Context, name replicate.Hash) error {
	path := filepath.Join(p.work.project.build, name.String())
	defer os.Remove(path)
	size := p.copier.missing[name]
	err := p.fetch(ctx, name, size, path)
	if replicate.KindOf(err) == replicate.Corrupt { // on the way?
		err = p.fetch(ctx, name, size, path)
	}
	switch {
	case replicate.KindOf(err) == replicate.Corrupt:
		p.copier.warn(err)
		if p.copier.options.Distrust {
			p.damaged.Store(name, true)
			return nil
		}
	case err != nil:
		return err
	}
	p.shown.add(size)
	return putPacks(ctx, p.copier.to.store, []builtPack{{name: name, path: path, size: size}})
}

// fetch writes a pack to a file, makes that durable and verifies it.
func (p *packCopy) fetch(ctx context.Context, name replicate.Hash, size int64, path string) error {
	body, err := p.copier.from.openPack(ctx, name, 0, size)
	if err != nil {
		return packError(name, err)
	}
	defer body.Close()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(f, body)
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return packError(name, err)
	}
	if err := fdatasync(f); err != nil {
		return err
	}
	return verifyPack(f, size, name)
}

// verifyPack reads every frame of a pack. An error of kind Corrupt names the pack.
func verifyPack(f io.ReaderAt, size int64, name replicate.Hash) error {
	d, err := readPackDirectory(f, size, name)
	if err != nil {
		return err
	}
	var stored, decoded []byte
	for _, frame := range d.Frames {
		stored = resize(stored, int(frame.Len))
		if err := readFull(f, stored, int64(frame.Off)); err != nil {
			return err
		}
		decoded = resize(decoded, int(frame.Raw))
		ref := frame.Ref
		ref.Pack = name
		if _, err := openFrame(decoded[:0], stored, ref); err != nil {
			return err
		}
	}
	return nil
}

// stop ends what is under way.
func (p *packCopy) stop() {
	p.cancel()
	p.workers.Wait()
	p.shown.stop()
	p.work.close()
}
