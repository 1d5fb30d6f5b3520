package code

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
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
	f, err := os.CreateTemp(filepath.Dir(path), tempName)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		f, err = os.CreateTemp(filepath.Dir(path), tempName)
	}
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

// Prune deletes the chunks that no Receive has used since a moment, to within a day, and what killed ones left. It returns how many bytes these
// were. It may run beside a Receive, which asks again for a chunk that vanishes.
func Prune(dir string, before time.Time) (freed int64, err error) {
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return nil // another one deleted it
		}
		old := before.Add(-freshFor)
		if strings.HasPrefix(e.Name(), tempName) {
			old = time.Now().Add(-freshFor)
		}
		if !info.ModTime().Before(old) {
			return nil
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("delete a chunk: %w", err)
		}
		freed += info.Size()
		return nil
	})
	return freed, problem("prune", dir, err)
}
