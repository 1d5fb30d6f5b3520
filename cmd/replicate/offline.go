package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/legacy"
	"github.com/replicate/replicate/storage/repository"
)

const (
	// offlineAfter is how long a storage that was reached before may take to answer until what is on this machine is shown instead.
	offlineAfter = 5 * time.Second
	// offlinePatience is how long one call to it is tried again then.
	offlinePatience = time.Second
	// firstRequests is how many requests the first look at a storage makes at the same time: listings, and records that are not merged yet.
	firstRequests = 16
)

// A known is what this machine remembers of the repository at a URL.
type known struct {
	URL    string    `json:"url"`
	ID     string    `json:"id"`
	Synced time.Time `json:"synced"` // when the index was last brought up to date
}

func (w *world) knownPath(url string) string {
	sum := sha256.Sum256([]byte(url))
	return filepath.Join(w.cacheDir(), "replicate", "known", hex.EncodeToString(sum[:16])+".json")
}

// recall returns what is remembered of a URL.
func (w *world) recall(url string) (k known, ok bool) {
	text, err := os.ReadFile(w.knownPath(url))
	return k, err == nil && json.Unmarshal(text, &k) == nil && k.URL == url && k.ID != ""
}

// remember notes that the repository at a URL was reached. What goes wrong is not worth a word: nothing is lost but a comfort.
func (w *world) remember(url string, r *repository.Repository) {
	if _, local := r.Store().(storage.Local); local || r.IsForeign() {
		return
	}
	text, err := json.Marshal(known{url, r.ID(), w.now()})
	if err != nil {
		return
	}
	path := w.knownPath(url)
	if os.MkdirAll(filepath.Dir(path), 0o700) != nil {
		return
	}
	_ = repository.ReplaceFile(path, text)
}

// openRepository opens the repository at a URL, of today's format or of those of 2020 and 2021. cache returns the folder for what can be made
// again from the repository with an id, and patience is how long a storage may be away. If it does not answer, and was reached from this machine before, offline is
// true and what is on this machine is all there is. While it is asked, meanwhile, which may be nil, gets the repository that was there before: mostly the one that is
// returned.
func (w *world) openRepository(ctx context.Context, url string, patience time.Duration, cache func(id string) string,
	meanwhile func(*repository.Repository)) (r *repository.Repository, offline bool, err error) {
	store, err := w.openStore(ctx, url, patience)
	if err != nil {
		return nil, false, err
	}
	type opened struct {
		r   *repository.Repository
		err error
	}
	k, ok := w.recall(url)
	if !ok {
		storage.Expect(store, firstRequests)
	}
	asking, stop := context.WithCancel(ctx)
	store = repository.Ahead(asking, store)
	done := make(chan opened, 1)
	go func() {
		r, err := legacy.Open(asking, store, func(id string) string { return filepath.Join(cache(id), "files") })
		done <- opened{r, err}
	}()
	var before *repository.Repository
	var late <-chan time.Time
	if ok {
		timer := time.NewTimer(offlineAfter)
		defer timer.Stop()
		late = timer.C
		if meanwhile != nil {
			before = repository.Known(store, k.ID)
			meanwhile(before)
		}
	}
	select {
	case o := <-done: // its calls go on as long as ctx
		if !ok || replicate.KindOf(o.err) != replicate.Unavailable {
			context.AfterFunc(ctx, stop)
			if before != nil && o.err == nil && o.r.ID() == k.ID && !o.r.IsForeign() {
				o.r = before
			}
			return o.r, false, o.err
		}
	case <-late:
	}
	stop()
	if store, err = w.openStore(ctx, url, offlinePatience); err != nil {
		return nil, false, err
	}
	w.say("replicate: %s does not answer: what is shown was brought up to date %s, and may be old", url, ago(w.now(), k.Synced))
	return repository.Known(store, k.ID), true, nil
}
