package code

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// ManifestSuffix stands behind the name of the tree's directory in the name of the manifest that Tar puts beside it.
const ManifestSuffix = ".manifest"

// Tar writes the tree as a directory of an archive, and its manifest beside it, as <dir>.manifest. It leaves the archive open for more. Memory
// does not grow with the tree but for the manifest.
//
// A file that cannot be read any more is left out and reported. One that keeps changing is torn; if it shrinks while it is sent, zeros stand for
// what is missing. The manifest has the hashes of what was sent.
func (t *Tree) Tar(ctx context.Context, w *tar.Writer, dir string, owner Owner) (Report, error) {
	a := &archive{Tree: t, w: w, dir: dir, owner: owner}
	err := a.write(ctx)
	return a.report, problem("send", t.options.Root, err)
}

// An archive is a tree on its way into one.
type archive struct {
	*Tree
	w        *tar.Writer
	dir      string
	owner    Owner
	manifest Manifest
	report   Report
}

func (a *archive) write(ctx context.Context) error {
	root := &tar.Header{Typeflag: tar.TypeDir, Name: a.dir + "/", Mode: 0o755, ModTime: time.Now()}
	if err := a.member(root, nil); err != nil {
		return err
	}
	for i := range a.sights {
		if err := ctx.Err(); err != nil {
			return err
		}
		s := &a.sights[i]
		e := Entry{Path: s.Path, Kind: s.Kind, Mode: s.Mode, Mtime: s.Mtime, Target: s.Target}
		err := a.entry(ctx, &e)
		if gone, ok := errors.AsType[errGone](err); ok {
			a.report.LeftOut = append(a.report.LeftOut, repository.LeftOut{Path: s.Path, Why: gone.why})
			continue
		}
		if err != nil {
			return err
		}
		a.manifest.Entries = append(a.manifest.Entries, e)
	}
	text := a.manifest.Append(nil)
	return a.member(&tar.Header{Typeflag: tar.TypeReg, Name: a.dir + ManifestSuffix, Mode: 0o600, ModTime: time.Now(), Size: int64(len(text))}, text)
}

// member writes a header in the one format that holds nanoseconds and names of any bytes, and content.
func (a *archive) member(h *tar.Header, content []byte) error {
	h.Format, h.Uid, h.Gid = tar.FormatPAX, a.owner.UID, a.owner.GID
	if err := a.w.WriteHeader(h); err != nil {
		return err
	}
	_, err := a.w.Write(content)
	return err
}

func (a *archive) header(e *Entry) *tar.Header {
	return &tar.Header{Name: a.dir + "/" + e.Path, Mode: int64(e.Mode), ModTime: time.Unix(0, e.Mtime), Size: e.Size}
}

func (a *archive) entry(ctx context.Context, e *Entry) error {
	h := a.header(e)
	switch e.Kind {
	case repository.Dir:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		return a.member(h, nil)
	case repository.Link:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.Target
		a.report.Files++
		return a.member(h, nil)
	}
	if err := a.file(ctx, e); err != nil {
		return err
	}
	a.report.Files++
	a.report.Bytes += e.Size
	return nil
}

// file writes a file: from memory if it is small, so that it is one state of it, else as it is read.
func (a *archive) file(ctx context.Context, e *Entry) error {
	var data []byte
	large := false
	stamp, torn, err := a.stable(e.Path, func(f *os.File, size int64) (n int64, err error) {
		if large = size > wholeFile; large {
			return size, nil
		}
		data, err = io.ReadAll(io.LimitReader(f, size))
		return int64(len(data)), readError(err)
	})
	if err != nil {
		return err
	}
	if large {
		torn, err = a.stream(ctx, e)
	} else {
		e.Size, e.Mtime = int64(len(data)), stamp.Mtime
		if len(data) > 0 {
			e.Pieces = []Piece{{Hash: repository.HashOf(data), Size: e.Size}}
		}
		err = a.member(a.header(e), data)
	}
	if torn && err == nil {
		a.report.Torn = append(a.report.Torn, e.Path)
	}
	return err
}

// stream writes a file of the size it has now.
func (a *archive) stream(ctx context.Context, e *Entry) (torn bool, err error) {
	f, before, err := a.open(e.Path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	e.Size, e.Mtime = before.Size, before.Mtime
	if err := a.member(a.header(e), nil); err != nil {
		return false, err
	}
	content := io.LimitReader(io.MultiReader(f, zeros{}), e.Size)
	hash, err := repository.HashContent(ctx, io.TeeReader(content, a.w))
	if err != nil {
		return false, err
	}
	if e.Size > 0 {
		e.Pieces = []Piece{{Hash: hash, Size: e.Size}}
	}
	after, _ := repository.StampOf(f)
	return after != before, nil
}

// zeros reads as nothing but zeros.
type zeros struct{}

// Read implements io.Reader.
func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Verify compares the files below a directory with a manifest, to the last byte; modes, mtimes, and what is there besides are not looked at. The
// error is of kind Corrupt and names the first files that are wrong.
func Verify(ctx context.Context, dir string, m *Manifest) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return problem("verify", dir, err)
	}
	defer root.Close()
	wrong := make([]error, len(m.Entries))
	err = parallel(ctx, len(m.Entries), func(i int) error {
		wrong[i] = m.Entries[i].verify(ctx, root)
		return nil
	})
	if err != nil {
		return problem("verify", dir, err)
	}
	return damage(m, wrong)
}

// verify says what is wrong with what is at the path of e.
func (e *Entry) verify(ctx context.Context, root *os.Root) error {
	info, err := root.Lstat(e.Path)
	if err != nil {
		return errors.New(reason(err))
	}
	switch {
	case e.Kind == repository.Dir && info.IsDir():
		return nil
	case e.Kind == repository.Link && info.Mode()&os.ModeSymlink != 0:
		if target, err := root.Readlink(e.Path); err != nil || target != e.Target {
			return errors.New("leads elsewhere")
		}
		return nil
	case e.Kind != repository.File || !info.Mode().IsRegular():
		return errors.New("is something else")
	case info.Size() != e.Size:
		return replicate.Errorf(replicate.Corrupt, "has %d bytes instead of %d", info.Size(), e.Size)
	}
	f, err := root.Open(e.Path)
	if err != nil {
		return errors.New(reason(err))
	}
	defer f.Close()
	for _, p := range e.Pieces {
		if hash, err := repository.HashContent(ctx, io.LimitReader(f, p.Size)); err != nil {
			return err
		} else if hash != p.Hash {
			return errors.New("the bytes are not those that were sent")
		}
	}
	return nil
}

// maxNamed is how many files an error names.
const maxNamed = 5

// damage is the error about entries of a manifest with something wrong, nil if there are none.
func damage(m *Manifest, wrong []error) error {
	var names []string
	n := 0
	for i, err := range wrong {
		if err == nil {
			continue
		}
		if n++; n <= maxNamed {
			names = append(names, m.Entries[i].Path+": "+err.Error())
		}
	}
	switch {
	case n == 0:
		return nil
	case n > maxNamed:
		return replicate.Errorf(replicate.Corrupt, "%d files did not arrive as they were sent, such as %s", n, strings.Join(names, "; "))
	}
	return replicate.Errorf(replicate.Corrupt, "%s", strings.Join(names, "; "))
}
