package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

const (
	// tellFrom is the wait before another attempt from which people are told that there is trouble: shorter ones pass unnoticed.
	tellFrom = time.Second
	// tellEvery is how long nothing more is said about it.
	tellEvery = time.Minute
	// probeFor is how long a storage may take to say whether it has a bucket. A training does not wait for a network.
	probeFor = 10 * time.Second
)

// openStore opens a storage for somebody who waits with some patience, and says so when it does not answer.
func (w *world) openStore(ctx context.Context, url string, patience time.Duration) (storage.Store, error) {
	s, err := storage.Open(ctx, url)
	if err != nil {
		return nil, err
	}
	return storage.WithPolicy(s, storage.Policy{Patience: patience, Tell: w.tellRetry()}), nil
}

// tellRetry says that a call is tried again, now and then.
func (w *world) tellRetry() func(error, time.Duration) {
	var mu sync.Mutex // guards last
	var last time.Time
	return func(err error, wait time.Duration) {
		mu.Lock()
		silent := wait < tellFrom || w.now().Sub(last) < tellEvery
		if !silent {
			last = w.now()
		}
		mu.Unlock()
		if !silent {
			w.say("replicate: %s; trying again", oneLine(err.Error()))
		}
	}
}

// createFlag belongs to commands that write to a storage which may not be there yet.
func createFlag() cli.Flag {
	return &cli.BoolFlag{Name: "create", Usage: "create the bucket of the storage if there is none"}
}

// ensureBucket creates the bucket of a storage that has none: with --create, or if the person at the terminal says yes. Anybody else
// meets the error of the first access.
func (w *world) ensureBucket(c *cli.Context, url string) error {
	create, terminal := c.Bool("create"), w.inTerminal && w.errTerminal
	if !create && !terminal {
		return nil
	}
	s, err := storage.Open(c.Context, url)
	if err != nil {
		return err
	}
	err = probe(c.Context, s)
	if !errors.Is(err, storage.ErrNoBucket) {
		if create {
			return err
		}
		return nil
	}
	if !create {
		yes, askErr := w.confirm(err.Error() + ". Create it?")
		if askErr != nil || !yes {
			return errors.Join(askErr, err)
		}
	}
	if err := storage.CreateBucket(c.Context, s); err != nil {
		return err
	}
	w.say("replicate: created the bucket of %s", s.URL())
	return nil
}

// probe lists next to nothing: whether there is a bucket is all that is asked.
func probe(ctx context.Context, s storage.Store) error {
	ctx, cancel := context.WithTimeout(ctx, probeFor)
	defer cancel()
	for _, err := range s.List(ctx, "replicate.json", "") {
		if errors.Is(err, context.DeadlineExceeded) {
			return &replicate.Error{Op: "open", Path: s.URL(), Kind: replicate.Unavailable, Err: errors.New("no answer for 10 s")}
		}
		return err
	}
	return nil
}
