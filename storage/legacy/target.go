package legacy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// A target is the folder that files are extracted to. Nothing is written outside of it.
type target struct {
	root    *os.Root
	created time.Time // of the side that is being extracted

	mu    sync.Mutex // guards what follows
	notes []string
	dirs  map[string]time.Time // made, and the mtime they get
}

// maxNotes bounds what is said about one commit.
const maxNotes = 20

func newTarget(dir string) (*target, error) {
	root, err := os.OpenRoot(dir)
	return &target{root: root, dirs: map[string]time.Time{}}, err
}

func (t *target) close() { t.root.Close() }

// begin is called before the files of a side, with the time for what has none of its own.
func (t *target) begin(created time.Time) { t.created = created }

func (t *target) note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.notes) < maxNotes {
		t.notes = append(t.notes, fmt.Sprintf(format, args...))
	}
}

// checkName refuses names that are no path in the folder.
func checkName(name string) error {
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." || strings.ContainsRune(part, 0) {
			return fmt.Errorf("%q is not a path in the project", name)
		}
	}
	if clean := path.Clean(name); clean == "." || clean[0] == '/' {
		return fmt.Errorf("%q is not a path in the project", name)
	}
	return nil
}

// file writes one file, replacing what is there. mode and mtime are those it gets.
func (t *target) file(name string, mode fs.FileMode, mtime time.Time, content io.Reader) (err error) {
	name = path.Clean(name)
	if err := t.folders(path.Dir(name)); err != nil {
		return err
	}
	f, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		if err := t.remove(name); err != nil {
			return err
		}
		f, err = t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	}
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	if err == nil {
		err = f.Chmod(mode&0o777 | 0o400) // it must be readable, or it cannot be stored
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return t.root.Chtimes(name, mtime, mtime)
}

// remove makes room for a file.
func (t *target) remove(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for dir := range t.dirs {
		if dir == name || strings.HasPrefix(dir, name+"/") {
			delete(t.dirs, dir)
		}
	}
	return t.root.RemoveAll(name)
}

// folders makes a folder and those above it. A file in its place goes away.
func (t *target) folders(dir string) error {
	if dir == "." {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.folder(dir)
}

// folder does that. t.mu is held, as two files may want one folder.
func (t *target) folder(dir string) error {
	if _, ok := t.dirs[dir]; ok {
		return nil
	}
	if above := path.Dir(dir); above != "." {
		if err := t.folder(above); err != nil {
			return err
		}
	}
	if info, err := t.root.Lstat(dir); err == nil && !info.IsDir() {
		if err := t.root.Remove(dir); err != nil {
			return err
		}
	}
	if err := t.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	t.dirs[dir] = t.created
	return nil
}

// finish gives folders the mode and time that they get, the innermost first.
func (t *target) finish() error {
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(t.dirs))) {
		mtime := t.dirs[name]
		if err := cmp.Or(t.root.Chmod(name, 0o755), t.root.Chtimes(name, mtime, mtime)); err != nil {
			return err
		}
	}
	return nil
}

// copyFiles copies objects whose keys are <folder>/<id>/<path in the project>.
func (r *Repository) copyFiles(ctx context.Context, t *target, objects []storage.Object) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	slots := make(chan struct{}, filesAtOnce)
	for _, o := range objects {
		_, rest, _ := strings.Cut(o.Key, "/")
		_, name, _ := strings.Cut(rest, "/")
		if err := checkName(name); err != nil {
			t.note("%s is left out: %v", o.Key, err)
			continue
		}
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := r.copyFile(ctx, t, o.Key, name); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func (r *Repository) copyFile(ctx context.Context, t *target, key, name string) error {
	body, err := r.store.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := t.file(name, 0o644, t.created, body); err != nil {
		return &replicate.Error{Op: "read", Path: key, Kind: replicate.KindOf(err), Err: err}
	}
	return nil
}
