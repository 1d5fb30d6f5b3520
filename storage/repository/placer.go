package repository

import (
	"github.com/replicate/replicate"
)

// A placer decides for each chunk of one file whether it is stored or taken from where it is.
type placer struct {
	*captor
	known   *knownChunks
	pack    *openPack // from the first chunk that is stored
	extents []Extent

	run     []Extent // known chunks, one behind the other, that are too few yet
	running int64    // bytes of the run, those that are enough included
	last    Extent   // of the run
	next    int      // where in known.sequence the run goes on, -1 for nowhere
}

func (p *placer) reset(size int64) {
	p.extents, p.run, p.running, p.next = make([]Extent, 0, size/avgChunk+1), nil, 0, -1
	p.held = p.held[:0]
}

// place takes the next chunk of the file.
func (p *placer) place(chunk []byte, hash replicate.Hash) error {
	x, i, ok := p.known.find(hash, p.next)
	if goesOn := i >= 0 && i == p.next || x.Pack == p.last.Pack; p.running > 0 && !(ok && goesOn) {
		if err := p.breakRun(); err != nil {
			return err
		}
	}
	if !ok {
		return p.store(chunk, hash)
	}
	p.last, p.next = x, -1
	if i >= 0 {
		p.next = i + 1
	}
	enough := p.running >= minRun
	p.running += int64(len(chunk))
	switch {
	case enough:
		p.extents = append(p.extents, x)
	case p.running >= minRun:
		p.extents = append(append(p.extents, p.run...), x)
		p.run, p.held = p.run[:0], p.held[:0]
	default:
		p.run = append(p.run, x)
		p.held = append(p.held, chunk...)
	}
	return nil
}

func (p *placer) store(chunk []byte, hash replicate.Hash) (err error) {
	if p.pack == nil {
		if p.pack, err = p.build.take(); err != nil {
			return err
		}
	}
	ref, err := p.build.add(p.pack, kindChunk, newFrame(chunk, hash, &p.stored))
	if err != nil {
		return err
	}
	p.extents = append(p.extents, Extent{Ref: ref})
	p.known.add(Extent{Ref: ref})
	return nil
}

// breakRun ends a run. One that is too short is stored after all.
func (p *placer) breakRun() error {
	held := p.held
	for _, x := range p.run {
		if err := p.store(held[:x.Raw], x.Hash); err != nil {
			return err
		}
		held = held[x.Raw:]
	}
	p.run, p.held, p.running, p.next = p.run[:0], p.held[:0], 0, -1
	return nil
}

// end takes the end of the file. A run that is all of the file is long enough.
func (p *placer) end() error {
	if len(p.extents) == 0 {
		p.extents, p.run = append(p.extents, p.run...), nil
		return nil
	}
	return p.breakRun()
}

// release gives the pack back.
func (p *placer) release() {
	if p.pack != nil {
		p.build.give(p.pack)
	}
}
