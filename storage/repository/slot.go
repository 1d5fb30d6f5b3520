package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/zeebo/blake3"

	"github.com/replicate/replicate"
)

// A slot is where an entry is to be, and what is there now.
type slot struct {
	entry  *Entry
	parent *slot // nil in the target itself

	found    found
	occupied bool        // something else is there and will be replaced
	mode     fs.FileMode // of a folder that is there
	chosen   bool        // of a folder: its own mode and mtime are wanted
	made     bool        // of a folder: by this checkout
	opened   bool        // of a folder: made writable for the while

	temp    string       // the name it is written under
	create  sync.Once    // makes temp, of a file in several pieces
	created atomic.Bool  // temp exists
	pieces  atomic.Int64 // that are not written yet
	failure atomic.Pointer[error]
}

// found says what is at a place.
type found int

const (
	nothing   found = iota
	same            // the right content, or a folder
	different       // a file or a link
	folder          // a folder where a file is to be
)

// path is where p is below the target.
func (p *slot) path() string {
	if p == nil {
		return "."
	}
	return p.entry.Path
}

// missing reports whether nothing can be in the folder p, as it is not there.
func (p *slot) missing() bool { return p != nil && p.found != same }

// base is the last name of a path.
func base(path string) string { return path[strings.LastIndexByte(path, '/')+1:] }

// plan finds out what has to be done, and changes nothing.
func (c *checkout) plan(ctx context.Context, t *Tree, entries []*Entry) error {
	folders := map[string]*slot{}
	for _, e := range entries {
		parent, err := c.planFolder(t, folders, parentOf(e.Path))
		if err == nil && e.Kind == Dir {
			var p *slot
			if p, err = c.planFolder(t, folders, e.Path); err == nil {
				p.chosen = true
			}
		}
		if err != nil {
			return checkoutError(e.Path, err)
		}
		if e.Kind != Dir {
			c.files = append(c.files, &slot{entry: e, parent: parent})
		}
	}
	return parallel(ctx, c.repository.workers(), len(c.files), func(ctx context.Context, i int) error {
		if err := c.look(ctx, c.files[i]); err != nil {
			return checkoutError(c.files[i].entry.Path, err)
		}
		return nil
	})
}

// parentOf is the directory that a path is in, "" at the top.
func parentOf(path string) string { return path[:max(0, strings.LastIndexByte(path, '/'))] }

// planFolder returns the place of a directory of the tree, nil for "".
func (c *checkout) planFolder(t *Tree, folders map[string]*slot, path string) (*slot, error) {
	if path == "" {
		return nil, nil
	}
	if p := folders[path]; p != nil {
		return p, nil
	}
	e := t.Lookup(path)
	if e == nil || e.Kind != Dir {
		return nil, replicate.Errorf(replicate.Corrupt, "%q is no directory of the tree", path)
	}
	parent, err := c.planFolder(t, folders, parentOf(path))
	if err != nil {
		return nil, err
	}
	p := &slot{entry: e, parent: parent}
	if !parent.missing() {
		info, err := c.root.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case info.IsDir():
			p.found, p.mode = same, info.Mode()
		default:
			p.found, p.occupied = different, true
		}
	}
	folders[path] = p
	c.folders = append(c.folders, p)
	return p, nil
}

// look finds out what is at the place of a file or a link.
func (c *checkout) look(ctx context.Context, p *slot) error {
	if p.parent.missing() {
		return nil
	}
	info, err := c.root.Lstat(p.entry.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		p.found, p.occupied = folder, true
		return c.checkRemovable(p)
	}
	equal, err := c.equal(ctx, p.entry, info)
	if err != nil {
		return err
	}
	switch {
	case !equal:
		p.found, p.occupied = different, true
	case dressed(p.entry, info) || info.Sys().(*syscall.Stat_t).Nlink == 1:
		p.found = same
	default:
		p.found = different // its other names must not change with it
	}
	return nil
}

// checkRemovable refuses to lose what is in a folder where a file is to be.
func (c *checkout) checkRemovable(p *slot) error {
	if c.options.Keep != "" {
		return nil
	}
	f, err := c.root.Open(p.entry.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Readdirnames(1); err != io.EOF {
		return replicate.Errorf(replicate.Conflict, "a directory with files in it is in the way").
			WithHint("move it away, or check out into another directory")
	}
	return nil
}

// equal reports whether what is there has the content of e. A file of the right size is read: an equal mtime is no proof.
func (c *checkout) equal(ctx context.Context, e *Entry, info fs.FileInfo) (bool, error) {
	if e.Kind == Link {
		if info.Mode().Type() != fs.ModeSymlink {
			return false, nil
		}
		target, err := c.root.Readlink(e.Path)
		return target == e.Target, err
	}
	if !info.Mode().IsRegular() || info.Size() != e.Size {
		return false, nil
	}
	f, err := c.root.Open(e.Path)
	if err != nil {
		return dressed(e, info), nil // a file that its owner cannot read
	}
	defer f.Close()
	hash, err := HashContent(ctx, f)
	return err == nil && hash == e.Hash, ctx.Err()
}

// hashBuffer is how much is read at a time: as much as stays in a core's cache.
const hashBuffer = 256 << 10

// HashContent returns the hash that a tree has for a file with this content.
func HashContent(ctx context.Context, f io.Reader) (replicate.Hash, error) {
	h := blake3.New()
	buf := make([]byte, hashBuffer)
	for {
		n, err := f.Read(buf)
		h.Write(buf[:n])
		switch {
		case err == io.EOF:
			return replicate.Hash(h.Sum(nil)), nil
		case err != nil:
			return replicate.Hash{}, err
		case ctx.Err() != nil:
			return replicate.Hash{}, ctx.Err()
		}
	}
}

// dressed reports whether mode and mtime are those of e.
func dressed(e *Entry, info fs.FileInfo) bool {
	return info.ModTime().UnixNano() == e.Mtime && (e.Kind == Link || info.Mode()&modeBits == fileMode(e.Mode))
}

// modeBits are the bits of a mode that a tree holds.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

// fileMode translates the 07777 of an entry.
func fileMode(mode uint32) fs.FileMode {
	m := fs.FileMode(mode) & fs.ModePerm
	for bit, flag := range map[uint32]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

// makeFolders makes the folders that are missing, and lets those that are there be written into.
func (c *checkout) makeFolders() error {
	for _, p := range c.folders {
		if err := c.makeFolder(p); err != nil {
			return checkoutError(p.entry.Path, err)
		}
	}
	return nil
}

func (c *checkout) makeFolder(p *slot) error {
	if p.found == same {
		if p.mode&0o700 == 0o700 {
			return nil
		}
		p.opened = true
		return c.root.Chmod(p.entry.Path, p.mode&modeBits|0o700)
	}
	if p.found == different {
		dir, err := c.openFolder(p.parent)
		if err != nil {
			return err
		}
		defer dir.close()
		if err := c.keep(dir, p); err != nil {
			return err
		}
		if err := dir.remove(base(p.entry.Path)); err != nil {
			return err
		}
	}
	p.made = true
	return c.root.Mkdir(p.entry.Path, 0o700)
}

// finishFolders gives folders their modes and mtimes, the inner ones first, as whatever is made in a folder changes its mtime, and one
// without the x bit lets nobody in.
func (c *checkout) finishFolders() error {
	var first error
	for _, p := range slices.Backward(c.folders) {
		if err := c.finishFolder(p); err != nil && first == nil {
			first = checkoutError(p.entry.Path, err)
		}
	}
	return first
}

func (c *checkout) finishFolder(p *slot) error {
	switch {
	case p.made, p.chosen && p.found == same:
		dir, err := c.openFolder(p.parent)
		if err != nil {
			return err
		}
		defer dir.close()
		return dir.dress(base(p.entry.Path), p.entry)
	case p.opened:
		return c.root.Chmod(p.entry.Path, p.mode&modeBits)
	}
	return nil
}

// openFolder opens the folder of a place, nil for the target itself. That it lies inside is os.Root's care.
func (c *checkout) openFolder(p *slot) (dirHandle, error) {
	f, err := c.root.Open(p.path())
	return dirHandle{f}, err
}

// keep saves what is at an occupied place, if that is wanted. A file stays where it is as well, so that there is no moment without one.
func (c *checkout) keep(dir dirHandle, p *slot) error {
	if c.options.Keep == "" || !p.occupied {
		return nil
	}
	to := filepath.Join(c.options.Keep, filepath.FromSlash(p.entry.Path))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	if p.found == folder {
		return dir.moveOut(base(p.entry.Path), to)
	}
	return dir.copyOut(base(p.entry.Path), to)
}

// damagedFiles is the error for files that could not be read; the first few are named.
func damagedFiles(files []*slot) error {
	const most = 10
	var text bytes.Buffer
	for i, p := range files {
		if i == most {
			fmt.Fprintf(&text, "\n  and %d more", len(files)-most)
			break
		}
		fmt.Fprintf(&text, "\n  %s: %v", p.entry.Path, *p.failure.Load())
	}
	noun := "files"
	if len(files) == 1 {
		noun = "file"
	}
	return replicate.Errorf(replicate.Corrupt, "%d %s could not be read, the others are there:%s", len(files), noun, text.String()).WithHint(seeCheck)
}
