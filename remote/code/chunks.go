package code

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

const (
	// freshFor is how long the time of a chunk may be behind its last use: writing it each time would cost as much as looking for it.
	freshFor = 24 * time.Hour
	// tempName begins the names of chunks that are being written.
	tempName = ".chunk-"
)

// chunks is a directory of chunks by content. Several processes may use it at once; any file in it may be deleted at any time.
type chunks struct{ dir string }

func (c chunks) path(h replicate.Hash) string {
	name := h.String()
	return filepath.Join(c.dir, name[:2], name)
}

// has reports whether there is a chunk of the right size, and notes that it is used.
func (c chunks) has(p Piece, now time.Time) bool {
	path := c.path(p.Hash)
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() || info.Size() != p.Size {
		return false
	}
	if now.Sub(info.ModTime()) > freshFor {
		_ = os.Chtimes(path, now, now) // only a hint for Prune
	}
	return true
}

// put adds a chunk whose content was verified.
func (c chunks) put(h replicate.Hash, content []byte) error {
	path := c.path(h)
	err := writeWhole(path, content)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		err = writeWhole(path, content)
	}
	return err
}

// writeWhole makes a file of a directory of chunks, whole or not at all.
func writeWhole(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), tempName)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// errDamaged says that a chunk is not there, or not what it should be.
var errDamaged = errors.New("damaged chunk")

// get returns a chunk in buf. The error is errDamaged if it has to be fetched again; then it is not there any more.
func (c chunks) get(p Piece, buf []byte) ([]byte, error) {
	f, err := openAt(nil, c.path(p.Hash), unix.O_RDONLY)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errDamaged
		}
		return nil, err
	}
	defer f.Close()
	buf = buf[:p.Size]
	if _, err = io.ReadFull(f, buf); err == nil && repository.HashOf(buf) == p.Hash {
		return buf, nil
	}
	if err := os.Remove(c.path(p.Hash)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return nil, errDamaged
}
