package repository

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

const (
	// maxConfig bounds what is read of replicate.json.
	maxConfig = 64 << 10
	// formatVersion is the newest format that this code reads, and the one it writes.
	formatVersion = 1
	// chunkingName is the rule by which this code cuts files.
	chunkingName = "gear1/256Ki/1Mi/4Mi"
)

// config is replicate.json.
type config struct {
	Version  int       `json:"replicate"`
	ID       string    `json:"id"`
	Created  time.Time `json:"created"`
	Chunking string    `json:"chunking"`
	Needs    string    `json:"needs,omitempty"` // the oldest replicate that reads a format above 1
}

// A Repository reads what a storage holds. It is safe for use by several goroutines.
type Repository struct {
	store storage.Store
	local storage.Local // store, if it is one
	id    string

	foreign  *foreign // another format in the same storage, nil if there is none
	readOnly bool     // there is nothing else

	trees    *cache[string, *Tree]
	frames   *frameCache
	near     atomic.Pointer[excerpt] // read with the last tree
	timing   timing
	cache    *Cache       // nil: nothing is kept beyond this process
	underway atomic.Int64 // bytes of frames that were asked for and are not here
	crowd    crowd
	serial   bool // one request at a time: for a simulation that must run the same twice
}

// Open reads replicate.json. An error of kind NotFound means that the storage is empty: there is no repository yet. A storage that
// holds something else, and a newer format, are of kind Conflict; the latter names the version needed.
func Open(ctx context.Context, store storage.Store) (*Repository, error) {
	c, err := readConfig(ctx, store)
	if errors.Is(err, fs.ErrNotExist) {
		why := explainMissing(ctx, store)
		if c, err = readConfig(ctx, store); errors.Is(err, fs.ErrNotExist) { // else it was made between the two looks
			err = why
		}
	}
	if err != nil {
		return nil, openError(store, err)
	}
	return newRepository(store, c), nil
}

// Known opens a repository whose id is known, without asking the storage anything: that may be out of reach, or hold another repository by now.
func Known(store storage.Store, id string) *Repository { return newRepository(store, config{ID: id}) }

// IsForeign reports whether the repository is of another format, which this one reads.
func (r *Repository) IsForeign() bool { return r.foreign != nil }

// Create opens the repository of a store, making replicate.json first if there is none. Two programs that do so at the same time
// agree on one repository.
func Create(ctx context.Context, store storage.Store) (*Repository, error) {
	c, err := readConfig(ctx, store)
	if errors.Is(err, fs.ErrNotExist) {
		c, err = makeConfig(ctx, store)
	}
	if err != nil {
		return nil, openError(store, err)
	}
	return newRepository(store, c), nil
}

// ID is the repository's own id, 32 hex digits, made with it. It names what machines keep for themselves: index, spool, cache.
func (r *Repository) ID() string { return r.id }

// Store returns where the bytes are.
func (r *Repository) Store() storage.Store { return r.store }

func newRepository(store storage.Store, c config) *Repository {
	local, _ := store.(storage.Local)
	return &Repository{
		store: store, local: local, id: c.ID, trees: newCache[string, *Tree](treeBudget), frames: newFrameCache(), timing: documented,
	}
}

func openError(store storage.Store, err error) error {
	return &replicate.Error{Op: "open", Path: store.URL(), Kind: replicate.KindOf(err), Err: err}
}

func readConfig(ctx context.Context, store storage.Store) (config, error) {
	data, err := readObject(ctx, store, configKey, 0, maxConfig)
	if err != nil {
		return config{}, err
	}
	return parseConfig(data)
}

// parseConfig reads the version before everything else, as all else may change with it.
func parseConfig(data []byte) (config, error) {
	var v struct {
		Version int    `json:"replicate"`
		Needs   string `json:"needs"`
	}
	if err := json.Unmarshal(data, &v); err != nil {
		return config{}, damagedConfig(err)
	}
	if v.Version > formatVersion {
		needed := v.Needs
		if needed == "" {
			needed = fmt.Sprintf("that reads format %d,", v.Version)
		}
		return config{}, replicate.Errorf(replicate.Conflict, "the repository has format %d, and replicate %s reads formats up to %d",
			v.Version, replicate.Version, formatVersion).WithHint("install replicate %s or newer", needed)
	}
	var c config
	if err := json.Unmarshal(data, &c); err != nil {
		return config{}, damagedConfig(err)
	}
	if _, err := replicate.ParseID(c.ID); err != nil || c.Version < 1 {
		return config{}, damagedConfig(fmt.Errorf("version %d, id %q", c.Version, c.ID))
	}
	return c, nil
}

func damagedConfig(err error) error {
	return replicate.Errorf(replicate.Corrupt, "%s is damaged: %w", configKey, err).
		WithHint("delete %s: the next commit makes it anew, and nothing that is stored depends on it", configKey)
}

// explainMissing tells an empty storage from one that holds something else.
func explainMissing(ctx context.Context, store storage.Store) error {
	for o, err := range store.List(ctx, "", "") {
		switch {
		case err != nil:
			return err
		case isOurs(o.Key):
			return replicate.Errorf(replicate.Corrupt, "%s is missing beside %s", configKey, o.Key).
				WithHint("the next commit makes it anew")
		}
		return replicate.Errorf(replicate.Conflict, "this is no repository, it holds other files: %s", o.Key).
			WithHint("check storage in replicate.yaml, or -S")
	}
	return replicate.Errorf(replicate.NotFound, "there is no repository yet").WithHint("the first experiment makes it")
}

func isOurs(key string) bool {
	for _, prefix := range []string{packPrefix, logPrefix, indexPrefix, livePrefix, gcPrefix} {
		if strings.HasPrefix(key, prefix) {
			return true
		}
	}
	return false
}

// makeConfig puts a new replicate.json and returns the one that remained, which may be somebody else's.
func makeConfig(ctx context.Context, store storage.Store) (config, error) {
	id, err := replicate.NewID(rand.Reader)
	if err != nil {
		return config{}, err
	}
	now, err := store.Now(ctx)
	if err != nil {
		return config{}, err
	}
	data, err := json.Marshal(config{Version: formatVersion, ID: string(id), Created: now.UTC(), Chunking: chunkingName})
	if err != nil {
		return config{}, err
	}
	data = append(data, '\n')
	if _, err := store.Put(ctx, configKey, bytes.NewReader(data), int64(len(data))); err != nil {
		return config{}, err
	}
	return readConfig(ctx, store)
}

// atOnce is how many requests of a kind may be under way.
func (r *Repository) atOnce(n int) int {
	if r.serial {
		return 1
	}
	return n
}

// readObject reads up to n bytes of an object from off, to its end if n < 0.
func readObject(ctx context.Context, store storage.Store, key string, off, n int64) ([]byte, error) {
	return readSized(ctx, store, key, off, n, 0)
}

// readSized is readObject where size bytes are expected, for which room is made at once.
func readSized(ctx context.Context, store storage.Store, key string, off, n, size int64) ([]byte, error) {
	body, err := store.Get(ctx, key, off, n)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	from := io.Reader(body)
	if n >= 0 {
		from = io.LimitReader(body, n)
	}
	var data bytes.Buffer
	data.Grow(int(size) + bytes.MinRead)
	if _, err := data.ReadFrom(from); err != nil {
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return data.Bytes(), nil
}
