package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"sync/atomic"
	"time"

	"github.com/moby/moby/client"

	"github.com/replicate/replicate"
)

// PutArchive lays the files of a tar, gzipped or not, into a directory of a container, which exists but need not run. Owners are
// those of the tar. A volume that is mounted there receives them; a tmpfs does not.
func (e *Engine) PutArchive(ctx context.Context, name, dir string, tar io.Reader) error {
	return e.upload(ctx, "send files to", name+":"+dir, tar, func(ctx context.Context, tar io.Reader) error {
		_, err := e.api.CopyToContainer(ctx, name, client.CopyToContainerOptions{DestinationPath: dir, Content: tar, AllowOverwriteDirWithFile: true})
		return err
	})
}

// upload runs a call that sends what a reader gives. The reader's own error is the error of the call.
func (e *Engine) upload(ctx context.Context, op, path string, from io.Reader, f func(context.Context, io.Reader) error) error {
	source := &source{from: from}
	return e.call(ctx, op, path, func(ctx context.Context) error {
		err := f(ctx, source)
		if failed := source.failed.Load(); err != nil && failed != nil {
			return failed
		}
		return err
	})
}

// A source remembers the error of a reader, which the client would take for one of the connection.
type source struct {
	from   io.Reader
	failed atomic.Pointer[localError]
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.failed.Store(&localError{err})
	}
	return n, err
}

// A File is a small file to be put into a container.
type File struct {
	Name string // relative, with slashes
	Mode fs.FileMode
	Data []byte
}

// PutFiles lays small files into a directory of a container, as root's.
func (e *Engine) PutFiles(ctx context.Context, name, dir string, files ...File) error {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for _, f := range files {
		head := &tar.Header{Name: f.Name, Mode: int64(f.Mode.Perm()), Size: int64(len(f.Data)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}
		if err := errors.Join(w.WriteHeader(head), second(w.Write(f.Data))); err != nil {
			return &replicate.Error{Op: "send", Path: f.Name, Kind: replicate.Internal, Err: err}
		}
	}
	w.Close()
	return e.PutArchive(ctx, name, dir, &archive)
}

func second(_ int, err error) error { return err }

// GetArchive returns a file or directory of a container, running or not, as a tar. Whoever called closes it. What is in it was
// written by the container's programs: names, types and sizes are theirs. The kind of the error is NotFound if there is nothing at path.
func (e *Engine) GetArchive(ctx context.Context, name, path string) (io.ReadCloser, error) {
	var content io.ReadCloser
	err := e.call(ctx, "fetch", name+":"+path, func(ctx context.Context) error {
		answer, err := e.api.CopyFromContainer(ctx, name, client.CopyFromContainerOptions{SourcePath: path})
		content = answer.Content
		return err
	})
	return content, err
}

// GetFile copies one regular file of a container, running or not, and returns its size. Anything else, and more than limit bytes, is an
// error of kind Corrupt; nothing is written beyond the limit.
func (e *Engine) GetFile(ctx context.Context, name, file string, limit int64, to io.Writer) (int64, error) {
	archive, err := e.GetArchive(ctx, name, file)
	if err != nil {
		return 0, err
	}
	defer archive.Close()
	refuse := func(why error) error {
		return &replicate.Error{Op: "fetch", Path: name + ":" + file, Kind: replicate.Corrupt, Err: why}
	}
	reader := tar.NewReader(archive)
	head, err := reader.Next()
	switch {
	case err != nil:
		return 0, refuse(err)
	case head.Name != path.Base(file):
		return 0, refuse(errors.New("another file came in its place"))
	case head.Typeflag != tar.TypeReg:
		return 0, refuse(errors.New("not a regular file"))
	case head.Size > limit:
		return 0, refuse(fmt.Errorf("%d bytes, where at most %d are expected", head.Size, limit))
	}
	n, err := io.Copy(to, reader)
	if err != nil {
		return n, &replicate.Error{Op: "fetch", Path: name + ":" + file, Kind: replicate.Unavailable, Err: err}
	}
	return n, nil
}

// A Stat is what the engine knows of a path in a container.
type Stat struct {
	Size int64
	Mode fs.FileMode
}

// Stat looks at a path of a container, running or not, without following a link at its end.
func (e *Engine) Stat(ctx context.Context, name, path string) (Stat, error) {
	var stat Stat
	err := e.call(ctx, "look at", name+":"+path, func(ctx context.Context) error {
		answer, err := e.api.ContainerStatPath(ctx, name, client.ContainerStatPathOptions{Path: path})
		stat = Stat{Size: answer.Stat.Size, Mode: answer.Stat.Mode}
		return err
	})
	return stat, err
}
