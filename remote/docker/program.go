package docker

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// A Program is what every container of ours begins with: our binary for the host, and the Python package that goes with it.
// Containers have it read-only at ProgramDir, as bin/replicate and python/.
type Program struct {
	hash   string
	binary string
	python fs.FS
}

// programHash is how many digits of its hash tell one program from another.
const programHash = 12

// binaryName is where the binary is below ProgramDir.
const binaryName = "bin/replicate"

// NewProgram reads a binary and a Python package to name them by their content. Nothing of them is kept in memory.
func NewProgram(binary string, python fs.FS) (Program, error) {
	sum, err := SumBinary(binary)
	if err != nil {
		return Program{}, err
	}
	return NameProgram(binary, sum, python)
}

// SumBinary reads a binary and returns what NameProgram wants to know of it.
func SumBinary(binary string) (string, error) {
	file, err := os.Open(binary)
	if err == nil {
		defer file.Close()
		files := listing{}
		if err = files.add(binaryName, file); err == nil {
			return files[binaryName], nil
		}
	}
	return "", &replicate.Error{Op: "read", Path: binary, Kind: replicate.KindOf(err), Err: err}
}

// NameProgram is NewProgram for a binary that was read before: reading one takes a moment.
func NameProgram(binary, sum string, python fs.FS) (Program, error) {
	p := Program{binary: binary, python: python}
	files := listing{binaryName: sum}
	err := p.each(func(head *tar.Header, content io.Reader) error {
		if head.Name == binaryName {
			return nil
		}
		return files.add(head.Name, content)
	})
	if err != nil {
		return p, &replicate.Error{Op: "read", Path: binary, Kind: replicate.KindOf(err), Err: err}
	}
	p.hash = files.hash()
	return p, nil
}

// A listing is the SHA-256 of files by their names, as an archive lists them in any order.
type listing map[string]string

func (l listing) add(name string, content io.Reader) error {
	sum := sha256.New()
	_, err := io.Copy(sum, content)
	l[name] = hex.EncodeToString(sum.Sum(nil))
	return err
}

func (l listing) hash() string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(l)) {
		fmt.Fprintf(sum, "%s  %s\n", l[name], name)
	}
	return hex.EncodeToString(sum.Sum(nil))[:programHash]
}

// Volume is the name of the program's volume. Two programs with the same content have the same.
func (p Program) Volume() string { return binVolumes + p.hash }

// Mount shows the program in a container.
func (p Program) Mount() Mount {
	return Mount{Volume: p.Volume(), Target: ProgramDir, Labels: p.labels(), ReadOnly: true}
}

// Image is the reference that says, as long as it is there, that the volume is whole. Containers that need nothing but the program are made from it.
func (p Program) Image() string { return binImages + ":" + p.hash }

// parcel is a reference under which one client sends the program.
func (p Program) parcel() string { return p.Image() + "-" + strings.ToLower(rand.Text()) }

func (p Program) labels() map[string]string { return map[string]string{LabelKind: KindBin} }

// each calls f with every file of the program, in the order of their names. They all have the same time: the archive of a program
// is the same wherever it is made.
func (p Program) each(f func(*tar.Header, io.Reader) error) error {
	binary, err := os.Open(p.binary)
	if err != nil {
		return err
	}
	defer binary.Close()
	if err := eachFile(binary, binaryName, 0o755, f); err != nil {
		return err
	}
	return fs.WalkDir(p.python, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		file, err := p.python.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		return eachFile(file, "python/"+path, 0o644, f)
	})
}

func eachFile(file fs.File, name string, mode int64, f func(*tar.Header, io.Reader) error) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	return f(&tar.Header{Name: name, Mode: mode, Size: info.Size(), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg}, file)
}

// archivePiece is how much of an archive is sent at once. gzip gives it away in pieces of 240 bytes, each of which would be a packet, and sshd moves all that
// the engine has not taken yet for each packet: a busy host would do nothing else any more.
const archivePiece = 64 << 10

// archive writes the program as a gzipped tar of the image it is sent in: a new volume is filled with what the image has in the
// same place.
func (p Program) archive(to io.Writer) error {
	pieces := bufio.NewWriterSize(to, archivePiece)
	packed, err := gzip.NewWriterLevel(pieces, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(packed)
	err = p.each(func(head *tar.Header, content io.Reader) error {
		head.Name = path.Join(ProgramDir[1:], head.Name)
		if err := archive.WriteHeader(head); err != nil {
			return err
		}
		_, err := io.Copy(archive, content)
		return err
	})
	return errors.Join(err, archive.Close(), packed.Close(), pieces.Flush())
}
