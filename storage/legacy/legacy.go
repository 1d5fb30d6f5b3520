// Package legacy reads the repositories that Replicate 0.1 to 0.3 and Keepsake 0.4 made in 2020 and 2021, as a repository.Foreign: what it yields are
// records of package repository, and what it extracts are files. It only reads. It knows nothing of packs, of the index and of what is
// shown.
//
// A storage holds such a repository if it has metadata/experiments/. Its keys and ours do not collide, so that one storage may hold both. Seven
// formats occur, in storages that were upgraded several of them side by side: what an object is like decides, one by one.
//
//	F1  commits/<id>/**: the whole working directory       metadata/commits/<id>.json, with "labels"
//	F2  experiments/<experiment>/** and commits/<id>/**    the same, with "path"
//	F3  checkpoints/<id>/** instead of commits/            metadata/checkpoints/<id>.json
//	F4  the same                                           "metrics" and "primary_metric" instead of "labels"
//	F5  experiments/<experiment>.tar.gz, checkpoints/<id>.tar.gz; the metadata of checkpoints is inside their experiment's
//	F6  the same, and repository.json is {"version":1}     "python_packages", "replicate_version"
//	F7  the same                                           "keepsake_version"
//
// Each experiment has metadata/experiments/<experiment>.json and mostly metadata/heartbeats/<experiment>.json:
//
//	{"id":"0f9d…","created":"2020-08-25T23:58:45.691932Z","params":{"lr":0.01},"user":"ben","host":"gpu1","command":"train.py 0.01",
//	 "config":{"python":"3.8","metrics":[{"name":"loss","goal":"minimize","primary":true}],"storage":".replicate/storage/"}}
//	{"experiment_id":"0f9d…","last_heartbeat":"2020-08-25T23:58:45.695573Z"}
//
// Ids have 64 digits. The files of a commit are those of its experiment with its own on top. These formats cannot tell an end from a crash: an
// experiment whose last heartbeat is younger than 30 seconds is running, and all others have finished.
package legacy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/repository"
)

const (
	// maxObject bounds an object of metadata. From F5 an experiment's has all its commits: this is some 100,000 of them.
	maxObject = 64 << 20
	// newest is the highest version of repository.json that is read, which is the only one there ever was.
	newest = 1
	// versionKey says which.
	versionKey = "repository.json"
)

// A Repository reads what is in a storage. It is safe for use by several goroutines.
type Repository struct {
	store storage.Store
	newer error            // a version that is not read
	now   func() time.Time // this machine's clock: heartbeats carry the time of clients too
}

var _ repository.Foreign = (*Repository)(nil)

// Open opens the repository of a storage, be it of this format, of 2020 or 2021, or both. Files of old commits that were read are kept in
// folder(id). It costs no more round trips than repository.Open if nothing old is there.
func Open(ctx context.Context, store storage.Store, folder func(id string) string) (*repository.Repository, error) {
	type found struct {
		old *Repository
		err error
	}
	looked := make(chan found, 1)
	go func() {
		old, err := find(ctx, store)
		looked <- found{old, err}
	}()
	native, err := repository.Open(ctx, store)
	old := <-looked
	switch {
	case old.err != nil && err == nil:
		return nil, &replicate.Error{Op: "open", Path: store.URL(), Kind: replicate.KindOf(old.err), Err: old.err}
	case old.old == nil && replicate.KindOf(err) == replicate.Conflict:
		if old.old, _ = findEmpty(ctx, store); old.old == nil {
			return nil, err
		}
	case old.old == nil:
		return native, err
	}
	if err != nil && old.old.newer != nil {
		return nil, &replicate.Error{Op: "open", Path: store.URL(), Err: old.old.newer}
	}
	return repository.OpenForeign(ctx, store, old.old, func(id string) (storage.Local, error) {
		return disk.New(folder(id))
	})
}

// find returns the old repository of a storage, nil if there is none.
func find(ctx context.Context, store storage.Store) (*Repository, error) {
	for _, err := range store.List(ctx, experimentsPrefix, "") {
		if err != nil {
			return nil, err
		}
		r := newRepository(store)
		r.newer = r.checkVersion(ctx)
		return r, nil
	}
	return nil, nil
}

// findEmpty returns the old repository of a storage that has no experiments, which from F6 can be told by its version.
func findEmpty(ctx context.Context, store storage.Store) (*Repository, error) {
	r := newRepository(store)
	if _, err := store.Stat(ctx, versionKey); err != nil {
		return nil, err
	}
	r.newer = r.checkVersion(ctx)
	if replicate.KindOf(r.newer) == replicate.Corrupt {
		return nil, r.newer
	}
	return r, nil
}

func newRepository(store storage.Store) *Repository {
	if w, ok := store.(storage.Wild); ok {
		store = w.Wild()
	}
	return &Repository{store: store, now: time.Now}
}

// checkVersion refuses a repository that later programs made. Before F6 there is no version.
func (r *Repository) checkVersion(ctx context.Context) error {
	data, err := r.read(ctx, versionKey)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var v struct {
		Version int `json:"version"`
	}
	if err == nil {
		err = json.Unmarshal(data, &v)
	}
	switch {
	case err != nil, v.Version < 1:
		return &replicate.Error{Op: "read", Path: versionKey, Kind: replicate.Corrupt, Err: fmt.Errorf("no version: %.40q", data)}
	case v.Version > newest:
		return replicate.Errorf(replicate.Conflict, "%s says version %d, and replicate %s reads version %d of the old formats",
			versionKey, v.Version, replicate.Version, newest).WithHint("read it with the program that wrote it")
	}
	return nil
}

// ID is made of the storage's URL.
func (r *Repository) ID() string { return stamp("legacy", r.store.URL()) }

// stamp returns 32 hex digits that depend on all texts.
func stamp(texts ...string) string {
	h := sha256.New()
	for _, t := range texts {
		fmt.Fprintf(h, "%d:%s", len(t), t)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// read returns an object of metadata.
func (r *Repository) read(ctx context.Context, key string) ([]byte, error) {
	body, err := r.store.Get(ctx, key, 0, maxObject+1)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(body)
	if err == nil && len(data) > maxObject {
		err = replicate.Errorf(replicate.Corrupt, "larger than %d bytes", maxObject)
	}
	return data, err
}

// damaged is the error of an object that does not say what it should.
func damaged(key string, err error) error {
	return &replicate.Error{Op: "read", Path: key, Kind: replicate.Corrupt, Err: err}
}
