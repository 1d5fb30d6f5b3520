package repository

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/replicate/replicate"
)

// sendPacks puts the packs that wait here. An object of a pack's name and size has its content.
func (u *uploader) sendPacks(ctx context.Context, packs []replicate.Hash) error {
	var mu sync.Mutex // guards u.put
	return parallel(ctx, putsAtOnce, len(packs), func(ctx context.Context, i int) error {
		name := packs[i]
		mu.Lock()
		_, sent := u.put[name]
		mu.Unlock()
		if sent {
			return nil
		}
		f, err := os.Open(u.path(packsName, name.String()))
		if err != nil {
			return missingIsNil(err) // it is in the storage, or doubtful
		}
		defer f.Close()
		at, err := u.sendPack(ctx, packKey(name), f)
		if err == nil && !at.IsZero() {
			mu.Lock()
			u.put[name] = at
			mu.Unlock()
		}
		return err
	})
}

func (u *uploader) sendPack(ctx context.Context, key string, f *os.File) (time.Time, error) {
	info, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	o, err := u.store.Stat(ctx, key)
	if err == nil && o.Size == info.Size() {
		u.report.sent(info.Size())
		return time.Time{}, nil // how old it is does not matter: it is checked
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, err
	}
	body := &counted{File: f, count: u.report.sent}
	at, err := u.store.Put(ctx, key, body, info.Size())
	if err != nil {
		body.takeBack()
	}
	return at, err
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
