package index

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A new index is built in a file of its own, which gets its name when the first sync is complete: a crash leaves nothing half made,
// nobody waits for a build, and SQLite writes every page once, as there is nothing to go back to. Of several processes that build
// at once the first one's file stays.

const (
	buildAlone = "locking_mode(EXCLUSIVE)"
	buildName  = ".*.new" // behind the name of the index
	// abandonedAfter is the age at which a file under construction belongs to nobody: no first sync takes that long.
	abandonedAfter = 24 * time.Hour
)

// buildSettings are those of a file under construction. Its journal is in memory, for an error; what is appended is not in it.
// A long list looks up its experiments one by one: a page of 16 KiB has 16 of them, one of 4 KiB has 4.
var buildSettings = []string{"page_size(16384)", buildAlone, "journal_mode(MEMORY)", "synchronous(OFF)", "cache_size(-32768)", "temp_store(MEMORY)"}

// openOrBuild opens the file, or begins to build it.
func (x *Index) openOrBuild(ctx context.Context) (*sql.DB, error) {
	if x.path == "" {
		return openFile(ctx, "")
	}
	if _, err := os.Lstat(x.path); !errors.Is(err, fs.ErrNotExist) {
		return openFile(ctx, x.path)
	}
	removeAbandoned(x.path)
	path, err := createPrivate(x.path + buildName)
	if err != nil {
		return nil, &noFile{err}
	}
	x.building = path
	db, err := openWith(ctx, path, buildSettings)
	if err != nil {
		err = errors.Join(err, x.abandon())
	}
	return db, err
}

// createPrivate creates an empty file for this user alone.
func createPrivate(pattern string) (path string, err error) {
	dir, name := filepath.Split(pattern)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, name)
	if err != nil {
		return "", err
	}
	return f.Name(), f.Close()
}

// removeAbandoned removes what builders left that died.
func removeAbandoned(path string) {
	left, _ := filepath.Glob(path + buildName) // a path with magic characters keeps them a little longer
	for _, name := range left {
		if info, err := os.Lstat(name); err == nil && time.Since(info.ModTime()) > abandonedAfter {
			os.Remove(name)
		}
	}
}

// abandon removes the file under construction.
func (x *Index) abandon() error {
	if x.building == "" {
		return nil
	}
	path := x.building
	x.building = ""
	return os.Remove(path)
}

// publish gives the file under construction its name and opens it as every index is opened. It reports whether another process was
// first: then its file is open, and may be behind.
func (x *Index) publish(ctx context.Context) (behind bool, err error) {
	x.file.Lock()
	defer x.file.Unlock()
	if x.building == "" {
		return false, nil
	}
	if err = errors.Join(x.db.Close(), syncFile(x.building)); err == nil {
		behind, err = giveName(x.building, x.path)
	}
	x.abandon() // it has another name, or is not needed
	return behind, errors.Join(err, x.open(context.WithoutCancel(ctx)))
}

// giveName names a file, unless another one has the name.
func giveName(path, name string) (taken bool, err error) {
	err = os.Link(path, name)
	if errors.Is(err, fs.ErrExist) {
		return true, nil
	}
	if err != nil { // some file systems have no links; two builders at once must then share the last one's luck
		err = os.Rename(path, name)
	}
	if err != nil {
		err = &noFile{err}
	}
	return false, err
}

// syncFile makes a file durable, so that a power cut cannot leave an index of which a part is missing.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
