package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

// Export writes what the view shows into an empty folder, with modes and times: every name but two of the root, README.txt, which is about
// mounts, and commits/, which shows the files of experiments/ once more. Of what is still growing it writes as much as there is. progress is called with the number of files
// written so far; it may be nil. After an error the folder holds a part.
func (v *View) Export(ctx context.Context, folder string, progress func(files int64)) error {
	if progress == nil {
		progress = func(int64) {}
	}
	x := &export{View: v, progress: progress}
	return x.dir(ctx, Root, folder)
}

// staleTries is how often the name of a rendered file is looked up again because another process brought the index further.
const staleTries = 5

// An export is one call of Export.
type export struct {
	*View
	progress func(files int64)
	files    int64
}

// dir writes the entries of a directory into a folder, which is there.
func (x *export) dir(ctx context.Context, dir ID, folder string) error {
	var entries []Entry
	err := x.List(ctx, dir, 0, func(_ uint64, e Entry) bool {
		if e.ID != readmeFile && e.ID != commitsDir {
			entries = append(entries, e)
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := x.entry(ctx, dir, e, filepath.Join(folder, e.Name)); err != nil {
			return err
		}
	}
	a, err := x.Attr(ctx, dir)
	if err != nil {
		return err
	}
	return stamp(folder, a)
}

func (x *export) entry(ctx context.Context, dir ID, e Entry, path string) error {
	switch {
	case e.ID.class() == commitDir:
		return x.commitFiles(ctx, e.ID.ord(), path)
	case e.Mode&TypeMask == TypeDir:
		if err := os.Mkdir(path, 0o755); err != nil {
			return exportError(err)
		}
		return x.dir(ctx, e.ID, path)
	case e.Mode&TypeMask == TypeLink:
		return x.link(ctx, e.ID, path)
	}
	err := x.file(ctx, e.ID, path)
	for try := 1; errors.Is(err, ErrStale) && try < staleTries; try++ {
		if _, err = x.Refresh(ctx); err != nil {
			return err
		}
		if e.ID, err = x.Lookup(ctx, dir, e.Name); err == nil {
			err = x.file(ctx, e.ID, path)
		}
	}
	return err
}

// commitFiles writes the files of a commit as a checkout does: several at once, in the order of the packs.
func (x *export) commitFiles(ctx context.Context, ord int64, path string) error {
	row, err := x.row(ctx, ord)
	if err != nil {
		return err
	}
	tree, err := x.repo.Tree(ctx, row)
	if err != nil {
		return err
	}
	report, err := x.repo.Checkout(ctx, tree, repository.CheckoutOptions{Dir: path})
	if err != nil {
		return err
	}
	x.files += report.Files
	x.progress(x.files)
	a, err := x.Attr(ctx, newID(commitDir, ord, 0))
	if err != nil {
		return err
	}
	return stamp(path, a)
}

func (x *export) link(ctx context.Context, id ID, path string) error {
	target, err := x.Link(ctx, id)
	if err != nil {
		return err
	}
	if err := os.Symlink(target, path); err != nil {
		return exportError(err)
	}
	a, err := x.Attr(ctx, id)
	if err != nil {
		return err
	}
	return stamp(path, a)
}

// file writes a rendered or growing file.
func (x *export) file(ctx context.Context, id ID, path string) error {
	a, err := x.Attr(ctx, id)
	if err != nil {
		return err
	}
	content, err := x.Content(ctx, id)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return exportError(err)
	}
	n, err := io.Copy(f, io.NewSectionReader(content, 0, a.Size))
	if err == nil && n != a.Size {
		err = fmt.Errorf("%s has %d bytes, %d were announced", filepath.Base(path), n, a.Size)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return exportError(err)
	}
	x.files++
	x.progress(x.files)
	return stamp(path, a)
}

// stamp gives a path the mode, unless it is a link, and the time of a node.
func stamp(path string, a Attr) error {
	if a.Mode&TypeMask != TypeLink {
		if err := os.Chmod(path, os.FileMode(a.Mode&0o777)); err != nil {
			return exportError(err)
		}
	}
	at := unix.NsecToTimespec(a.Mtime)
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return exportError(&os.PathError{Op: "set the time of", Path: path, Err: err})
	}
	return nil
}

func exportError(err error) error {
	return &replicate.Error{Op: "export", Kind: replicate.KindOf(err), Err: err}
}

// Only is an index in which there are no experiments but some, the newest last.
func Only(x Index, experiments []replicate.ID) Index {
	o := &only{Index: x, there: make(map[replicate.ID]bool, len(experiments))}
	for _, id := range experiments {
		o.there[id], o.newest = true, id
	}
	return o
}

type only struct {
	Index
	there  map[replicate.ID]bool
	newest replicate.ID
}

func (o *only) Each(ctx context.Context, since int64, f func(*index.Experiment) error) (gone []int64, version int64, err error) {
	return o.Index.Each(ctx, since, func(e *index.Experiment) error {
		if !o.there[e.ID] {
			return nil
		}
		return f(e)
	})
}

func (o *only) ExperimentNames(ctx context.Context) (names []index.Name, err error) {
	all, err := o.Index.ExperimentNames(ctx)
	for _, n := range all {
		if o.there[n.ID] {
			names = append(names, n)
		}
	}
	return names, err
}

func (o *only) Resolve(ctx context.Context, ref string) (index.Target, error) {
	if ref == newestRef && o.newest != "" {
		ref = string(o.newest)
	}
	return o.Index.Resolve(ctx, ref)
}
