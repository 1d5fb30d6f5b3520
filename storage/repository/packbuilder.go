package repository

import (
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/replicate/replicate"
)

const (
	// packTail is kept free at the end of a pack that holds files, for the frames of trees, recipes and notes that may follow: nearly
	// every tree fits, and then a commit is one pack.
	packTail = 1 << 20
	// sharedPack is how many bytes go through one pack before others are filled beside it: a small commit is one pack, and a large one
	// keeps all cores busy.
	sharedPack = 32 << 20
	// writeBack is how often the kernel is told to start writing a pack to the disk, so that little is left when it is synced.
	writeBack = 4 << 20
)

// A builtPack is a complete and durable pack that is not in the storage yet.
type builtPack struct {
	name replicate.Hash
	path string
	size int64
}

// A packBuilder fills packs with the frames of one snapshot. Frames are referred to by a name that stands for their pack until it is known:
// resolve turns it into the real one.
type packBuilder struct {
	dir    string
	random io.Reader
	room   func() error // whether there is some for another pack; may be nil
	early  func()       // told that a complete pack has its name in dir; nil: it keeps the one it was made under

	mu     sync.Mutex // guards what follows
	change sync.Cond
	idle   []*openPack
	open   int // packs being filled, idle ones included
	limit  int // of open
	packs  []builtPack
	names  map[replicate.Hash]replicate.Hash // what stands for a pack: its name; zero for the one that is open last
	made   []string
	stored int64
	err    error          // of syncing
	syncs  sync.WaitGroup // packs being synced
}

// An openPack is a pack being filled. One goroutine has it at a time.
type openPack struct {
	*packWriter
	file   *os.File
	handle replicate.Hash // stands for the name
	told   int64          // bytes whose write-back has begun
}

func newPackBuilder(dir string, random io.Reader, expected int64, workers int) *packBuilder {
	b := &packBuilder{dir: dir, random: random, limit: 1, names: map[replicate.Hash]replicate.Hash{}}
	if expected >= sharedPack {
		b.limit = workers
	}
	b.change.L = &b.mu
	return b
}

// take returns a pack for the caller alone, who gives it back with give.
func (b *packBuilder) take() (*openPack, error) {
	b.mu.Lock()
	for len(b.idle) == 0 && b.open >= b.limit {
		b.change.Wait()
	}
	if n := len(b.idle); n > 0 {
		p := b.idle[n-1]
		b.idle = b.idle[:n-1]
		b.mu.Unlock()
		return p, nil
	}
	b.open++
	b.mu.Unlock()
	p := &openPack{}
	if err := b.begin(p); err != nil {
		b.give(p)
		return nil, err
	}
	return p, nil
}

func (b *packBuilder) give(p *openPack) {
	b.mu.Lock()
	if p.file == nil { // it could not be made
		b.open--
	} else {
		b.idle = append(b.idle, p)
	}
	b.mu.Unlock()
	b.change.Signal()
}

// begin makes p a new, empty pack.
func (b *packBuilder) begin(p *openPack) error {
	if b.room != nil {
		if err := b.room(); err != nil {
			return err
		}
	}
	var random [nonceSize + 32]byte
	if _, err := io.ReadFull(b.random, random[:]); err != nil {
		return err
	}
	path := filepath.Join(b.dir, hex.EncodeToString(random[:nonceSize]))
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	*p = openPack{file: f, handle: replicate.Hash(random[nonceSize:])}
	p.packWriter = newPackWriter(f, [nonceSize]byte(random[:nonceSize]))
	b.mu.Lock()
	b.made = append(b.made, path)
	b.mu.Unlock()
	return nil
}

// add appends a frame to p, going on in a new pack when it does not fit.
func (b *packBuilder) add(p *openPack, kind frameKind, f frame) (Ref, error) {
	room := f.stored()
	if kind == kindChunk || kind == kindGroup {
		room += packTail
	}
	if !p.fits(room) && p.frames() > 0 {
		if err := b.next(p); err != nil {
			return Ref{}, err
		}
	}
	ref, err := p.appendFrame(kind, f)
	if err != nil {
		return Ref{}, err
	}
	ref.Pack = p.handle
	b.mu.Lock()
	b.stored += int64(ref.Len)
	b.mu.Unlock()
	if p.off-p.told >= writeBack {
		startWriteBack(p.file, p.told, p.off-p.told)
		p.told = p.off
	}
	return ref, nil
}

// next closes p and makes it a new pack.
func (b *packBuilder) next(p *openPack) error {
	if err := b.close(p); err != nil {
		return err
	}
	return b.begin(p)
}

// close completes a pack. Syncing goes on in the background; wait reports its error.
func (b *packBuilder) close(p *openPack) error {
	name, err := p.finish()
	if err != nil {
		return err
	}
	f, size := p.file, p.off
	p.file = nil
	b.mu.Lock()
	b.names[p.handle] = name
	i := len(b.packs)
	b.packs = append(b.packs, builtPack{name: name, path: f.Name(), size: size})
	b.mu.Unlock()
	b.syncs.Go(func() {
		err := errors.Join(fdatasync(f), f.Close())
		if err == nil && b.early != nil {
			err = b.show(i)
		}
		if err != nil {
			b.mu.Lock()
			b.err = errors.Join(b.err, err)
			b.mu.Unlock()
		}
	})
	return nil
}

// show gives a durable pack its name.
func (b *packBuilder) show(i int) error {
	b.mu.Lock()
	p := b.packs[i]
	b.mu.Unlock()
	to := filepath.Join(b.dir, p.name.String())
	if err := os.Rename(p.path, to); err != nil {
		return err
	}
	b.mu.Lock()
	b.packs[i].path = to
	b.made = append(b.made, to)
	b.mu.Unlock()
	b.early()
	return nil
}

// tail closes all packs but the one with the most room, and returns it, a new one if there is none. Its name resolves to zero from here
// on: it is the own pack of the trees and recipes that go into it.
func (b *packBuilder) tail() (*openPack, error) {
	var p *openPack
	for _, q := range b.idle {
		if p == nil || q.off < p.off {
			p, q = q, p
		}
		if q == nil {
			continue
		}
		if err := b.close(q); err != nil {
			return nil, err
		}
	}
	if p == nil {
		p = &openPack{}
		if err := b.begin(p); err != nil {
			return nil, err
		}
	}
	b.idle = []*openPack{p}
	b.names[p.handle] = replicate.Hash{}
	return p, nil
}

// nextTail goes on in a new pack when a frame of size raw bytes might not fit into the tail.
func (b *packBuilder) nextTail(p *openPack, size int) error {
	if p.fits(size+1) || p.frames() == 0 {
		return nil
	}
	if err := b.next(p); err != nil {
		return err
	}
	b.names[p.handle] = replicate.Hash{}
	return nil
}

// resolve replaces what stands for the pack of a frame.
func (b *packBuilder) resolve(r *Ref) {
	if name, ok := b.names[r.Pack]; ok {
		r.Pack = name
	}
}

// finish closes the tail and waits until everything is durable. The packs are the caller's from here on.
func (b *packBuilder) finish(p *openPack) ([]builtPack, error) {
	if err := b.close(p); err != nil {
		return nil, err
	}
	b.idle = nil
	b.syncs.Wait()
	return b.packs, b.err
}

// discard removes everything that was built. It may follow any error.
func (b *packBuilder) discard() {
	b.syncs.Wait()
	for _, p := range b.idle {
		if p.file != nil {
			p.file.Close()
		}
	}
	for _, path := range b.made {
		os.Remove(path)
	}
}

// addFrame encodes and appends a frame of the snapshot itself: a tree, a recipe, a note.
func (b *packBuilder) addFrame(ctx context.Context, p *openPack, kind frameKind, raw []byte) (Ref, error) {
	if err := ctx.Err(); err != nil {
		return Ref{}, err
	}
	var buf []byte
	return b.add(p, kind, newFrame(raw, hashOf(raw), &buf))
}
