package repository

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/replicate/replicate"
)

// puts is what an uploader knows of the packs that it sends.
type puts struct {
	began time.Time // of the process, by this machine's clock

	mu    sync.Mutex                       // guards what follows
	at    map[replicate.Hash]time.Time     // when this process put packs, by the store's clock
	busy  map[replicate.Hash]chan struct{} // those on their way; closed when that has ended
	tried map[replicate.Hash]bool          // those that were on their way
}

// when returns when a pack was put by this process.
func (p *puts) when(name replicate.Hash) (at time.Time, put bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at, put = p.at[name]
	return at, put
}

// claim makes the caller the one who sends a pack, and returns what it calls with the time at which it was put, zero if that is not known. It
// waits for who sends it already; mine is false if that went well.
func (p *puts) claim(ctx context.Context, name replicate.Hash) (done func(at time.Time), mine bool, err error) {
	for {
		p.mu.Lock()
		_, put := p.at[name]
		busy := p.busy[name]
		if !put && busy == nil {
			break
		}
		p.mu.Unlock()
		if put {
			return nil, false, nil
		}
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, false, ctx.Err()
		}
	}
	defer p.mu.Unlock()
	busy := make(chan struct{})
	p.busy[name] = busy
	return func(at time.Time) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !at.IsZero() {
			p.at[name] = at
		}
		p.tried[name] = true
		delete(p.busy, name)
		close(busy)
	}, true, nil
}

func (p *puts) wasTried(name replicate.Hash) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tried[name]
}

// forget makes the next one who needs a pack look for it.
func (p *puts) forget(name replicate.Hash) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.at, name)
}

// sendPacks puts the packs that wait here. An object of a pack's name and size has its content.
func (u *uploader) sendPacks(ctx context.Context, packs []replicate.Hash) error {
	return parallel(ctx, putsAtOnce, len(packs), func(ctx context.Context, i int) error {
		return u.sendPack(ctx, packs[i], u.path(packsName, packs[i].String()))
	})
}

// sendEarly puts the packs of snapshots that are being taken, as far as they are complete: what needs them comes later, or never, and then they are
// packs that nobody needs. It tries each once.
func (u *uploader) sendEarly(ctx context.Context) error {
	paths, err := filepath.Glob(u.spool.path("*", buildName, "*"))
	if err != nil {
		return err
	}
	return parallel(ctx, putsAtOnce, len(paths), func(ctx context.Context, i int) error {
		name, err := replicate.ParseHash(filepath.Base(paths[i]))
		if err != nil || u.puts.wasTried(name) { // it is in the making, or left to who publishes
			return nil
		}
		return u.sendPack(ctx, name, paths[i])
	})
}

// sendPack puts a pack, once.
func (u *uploader) sendPack(ctx context.Context, name replicate.Hash, path string) error {
	done, mine, err := u.puts.claim(ctx, name)
	if err != nil || !mine {
		return err
	}
	var at time.Time
	defer func() { done(at) }()
	f, err := os.Open(path)
	if err != nil {
		return missingIsNil(err) // it is in the storage, or doubtful; or it is ready by now
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	key := packKey(name)
	if u.puts.wasTried(name) || !info.ModTime().After(u.puts.began) { // else nobody can have put it
		o, err := u.store.Stat(ctx, key)
		if err == nil && o.Size == info.Size() {
			u.report.sent(info.Size())
			return nil // how old it is does not matter: it is checked
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	body := &counted{File: f, count: u.report.sent}
	if at, err = u.store.Put(ctx, key, body, info.Size()); err != nil {
		body.takeBack()
	}
	return err
}

// counted is a file that tells how much of it was read.
type counted struct {
	*os.File
	count func(n int64)
	done  int64 // counted
	at    int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.File.Read(p)
	c.at += int64(n)
	if c.at > c.done {
		c.count(c.at - c.done)
		c.done = c.at
	}
	return n, err
}

func (c *counted) Seek(offset int64, whence int) (int64, error) {
	at, err := c.File.Seek(offset, whence)
	if err == nil {
		c.at = at
	}
	return at, err
}

func (c *counted) takeBack() { c.count(-c.done) }
