package legacy

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// untar extracts an object that holds all files of a side.
func (r *Repository) untar(ctx context.Context, t *target, o storage.Object) error {
	body, err := r.store.Get(ctx, o.Key, 0, -1)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := extractTar(ctx, t, &fetched{Reader: body}); err != nil {
		return &replicate.Error{Op: "read", Path: o.Key, Kind: replicate.KindOf(err), Err: err}
	}
	return nil
}

// fetched tells what went wrong with a storage from what is wrong with the bytes it gave.
type fetched struct {
	io.Reader
	err error
}

func (f *fetched) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if err != nil && err != io.EOF {
		f.err = err
	}
	return n, err
}

// extractTar extracts a tarball, whose entries are <id>/<path in the project>: regular files, and nothing else that could be used.
func extractTar(ctx context.Context, t *target, from *fetched) error {
	broken := func(err error) error {
		if from.err != nil {
			return from.err
		}
		if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = errors.New("it is cut off")
		}
		return replicate.Errorf(replicate.Corrupt, "the tarball is damaged: %w", err)
	}
	zipped, err := gzip.NewReader(bufio.NewReaderSize(from, 1<<20))
	if err != nil {
		return broken(err)
	}
	content := &fetched{Reader: zipped}
	for entries := tar.NewReader(content); ; {
		header, err := entries.Next()
		if err == io.EOF {
			if _, err = io.Copy(io.Discard, content); err != nil { // to the checksum
				return broken(err)
			}
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return broken(err)
		}
		if err := extractEntry(t, header, entries); err != nil {
			if content.err != nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader) {
				err = broken(err)
			}
			return err
		}
	}
}

// extractEntry extracts one entry, or notes why not.
func extractEntry(t *target, header *tar.Header, content io.Reader) error {
	_, name, ok := strings.Cut(header.Name, "/")
	switch {
	case header.Typeflag == tar.TypeDir, header.Typeflag == tar.TypeXGlobalHeader:
		return nil
	case strings.HasPrefix(header.Name, "/") || !ok:
		name = header.Name
	}
	err := checkName(name)
	if header.Name == name {
		err = fmt.Errorf("%q is not below a folder", name)
	}
	if err != nil {
		t.note("a file is left out: %v", err)
		return nil
	}
	if header.Typeflag != tar.TypeReg && header.Typeflag != '\x00' {
		t.note("%s is left out: a link whose target was not kept", name)
		return nil
	}
	return t.file(name, fs.FileMode(header.Mode), header.ModTime, content)
}
