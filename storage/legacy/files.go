package legacy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/repository"
)

const (
	// filesAtOnce is how many files of a commit are copied at the same time.
	filesAtOnce = 16
	tarSuffix   = ".tar.gz"
)

// A side is the files that were stored with an experiment or with a commit.
type side struct {
	created time.Time
	missing string // what to say if there are none, "" if that is how it should be
	objects []storage.Object
}

// tarball returns the object that holds all files, if they are in one.
func (s *side) tarball() *storage.Object {
	for i := range s.objects {
		if strings.HasSuffix(s.objects[i].Key, tarSuffix) {
			return &s.objects[i]
		}
	}
	return nil
}

// listFiles returns the objects below the prefixes, each of which ends in an id: <prefix>.tar.gz alone if there is one, else <prefix>/….
func (r *Repository) listFiles(ctx context.Context, prefixes ...string) (files []storage.Object, err error) {
	for _, prefix := range prefixes {
		for o, err := range r.store.List(ctx, prefix, "") {
			if err != nil {
				return nil, err
			}
			switch rest := o.Key[len(prefix):]; {
			case rest == tarSuffix:
				return []storage.Object{o}, nil
			case len(rest) > 1 && rest[0] == '/':
				files = append(files, o)
			}
		}
		if len(files) > 0 {
			return files, nil
		}
	}
	return nil, nil
}

// Stamp names the objects that hold the files of a row.
func (r *Repository) Stamp(ctx context.Context, row repository.Row) (string, error) {
	experiment, id, _ := row.Foreign()
	ofExperiment, err := r.experimentFiles(ctx, experiment)
	if err != nil {
		return "", err
	}
	var ofCommit []storage.Object
	if id != experiment {
		if ofCommit, err = r.commitFiles(ctx, id); err != nil {
			return "", err
		}
	}
	var text strings.Builder
	fmt.Fprintln(&text, r.store.URL(), experiment, id)
	for _, o := range append(ofExperiment, ofCommit...) {
		fmt.Fprintln(&text, o.Key, o.Size, o.Time.UTC().Format(time.RFC3339Nano))
	}
	return text.String(), nil
}

func (r *Repository) experimentFiles(ctx context.Context, id replicate.ID) ([]storage.Object, error) {
	return r.listFiles(ctx, "experiments/"+string(id))
}

func (r *Repository) commitFiles(ctx context.Context, id replicate.ID) ([]storage.Object, error) {
	return r.listFiles(ctx, "checkpoints/"+string(id), "commits/"+string(id))
}

// Extract writes the files of a commit, or those that an experiment began with.
func (r *Repository) Extract(ctx context.Context, row repository.Row, dir string) (notes []string, err error) {
	experiment, id, _ := row.Foreign()
	sides, err := r.sides(ctx, experiment, id)
	if err != nil {
		return nil, err
	}
	t, err := newTarget(dir)
	if err != nil {
		return nil, err
	}
	defer t.close()
	for _, s := range sides {
		t.begin(s.created)
		switch tarball := s.tarball(); {
		case len(s.objects) == 0 && s.missing != "":
			t.note("%s", s.missing)
		case tarball != nil:
			err = r.untar(ctx, t, *tarball)
		default:
			err = r.copyFiles(ctx, t, s.objects)
		}
		if err != nil {
			return nil, err
		}
	}
	return t.notes, t.finish()
}

// sides returns what a row's files are put together from: first those of the experiment, then those of the commit. Metadata of the experiment
// that cannot be read is no reason not to show files.
func (r *Repository) sides(ctx context.Context, experiment, id replicate.ID) (sides []side, err error) {
	key := experimentsPrefix + string(experiment) + ".json"
	data, err := r.read(ctx, key)
	if err != nil {
		return nil, err
	}
	var first side
	e, bad := got{storage.Object{Key: key}, data, nil}.experiment()
	if bad == nil {
		first.created, first.missing = e.created, missing(e.path, "experiment", experiment)
	}
	if first.objects, err = r.experimentFiles(ctx, experiment); err != nil {
		return nil, err
	}
	if id == experiment {
		return []side{first}, bad
	}
	c, err := r.commit(ctx, e, id)
	if err != nil {
		return nil, errors.Join(err, bad)
	}
	second := side{created: c.created, missing: missing(c.path, "commit", id)}
	if c.whole {
		second.missing = incomplete("commit", id)
	}
	if second.objects, err = r.commitFiles(ctx, id); err != nil {
		return nil, err
	}
	return []side{first, second}, nil
}

// missing is what to say if there are no files, of which the metadata says where they were.
func missing(path *string, what string, id replicate.ID) string {
	if path == nil || *path == "" {
		return ""
	}
	return incomplete(what, id)
}

func incomplete(what string, id replicate.ID) string {
	return fmt.Sprintf("%s %s is incomplete: the files saved with it are not in the storage", what, id.Short())
}

// commit finds the metadata of a commit: in its experiment e, which is nil if that cannot be read, or in an object of its own.
func (r *Repository) commit(ctx context.Context, e *experiment, id replicate.ID) (*commit, error) {
	if e != nil {
		for i := range e.commits {
			if e.commits[i].id == id {
				return &e.commits[i], nil
			}
		}
	}
	for _, prefix := range []string{checkpointsPrefix, commitsPrefix} {
		key := prefix + string(id) + ".json"
		data, err := r.read(ctx, key)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return got{storage.Object{Key: key}, data, err}.commit()
	}
	return nil, replicate.Errorf(replicate.NotFound, "there is no commit %s", id)
}
