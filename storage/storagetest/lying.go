package storagetest

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/replicate/replicate/storage"
)

// A Lie is a way of returning something else than what was stored.
type Lie int

// The lies. A store tells the same one each time it is asked.
const (
	FlipBit   Lie = iota // one bit of the middle byte of the object is flipped
	CutOff               // the second half of the object is missing, and Stat and List show the size that is left
	ShortRead            // a read returns half of what was asked for, and the sizes are right
	LongRead             // a read returns the bytes that follow, too, or zeros
	WrongSize            // Stat and List show one byte more than there is
)

// Lying returns s with a lie about the objects for whose keys about returns true. The Path of a Local store leads to copies that
// have the same lie in them.
func Lying(t testing.TB, s storage.Store, lie Lie, about func(key string) bool) storage.Store {
	l := liar{t, s, lie, about, ""}
	if _, ok := s.(storage.Local); ok {
		l.copies = t.TempDir()
	}
	return Wrap(s, Hooks{Data: l.data, Object: l.object, Path: l.path})
}

type liar struct {
	t      testing.TB
	store  storage.Store
	lie    Lie
	about  func(key string) bool
	copies string // folder of damaged files, of Local stores
}

// data returns the lie about data, which are up to n bytes from off.
func (l *liar) data(c Call, data []byte, off, n int64) []byte {
	if !l.about(c.Key()) {
		return data
	}
	o, err := l.store.Stat(l.t.Context(), c.Key())
	if err != nil {
		return data
	}
	if l.lie == ShortRead {
		return data[:len(data)/2]
	}
	if l.lie == LongRead {
		return append(bytes.Clone(data), make([]byte, 7)...)
	}
	return l.damage(bytes.Clone(data), off, o.Size)
}

// damage changes data, which lies at off of an object.
func (l *liar) damage(data []byte, off, size int64) []byte {
	middle := size/2 - off
	if middle < 0 || middle >= int64(len(data)) {
		if l.lie == CutOff && middle < 0 {
			return nil
		}
		return data
	}
	switch l.lie {
	case FlipBit:
		data[middle] ^= 1
	case CutOff:
		data = data[:middle]
	}
	return data
}

func (l *liar) object(o storage.Object) (storage.Object, bool) {
	if l.about(o.Key) {
		switch l.lie {
		case CutOff:
			o.Size /= 2
		case WrongSize:
			o.Size++
		}
	}
	return o, true
}

// path returns a damaged copy of the file at path. Files are read as far as they go, so that short and long reads are lies about
// their length.
func (l *liar) path(key, path string) string {
	data, err := os.ReadFile(path)
	if err != nil || !l.about(key) {
		return path
	}
	switch l.lie {
	case ShortRead:
		data = data[:len(data)/2]
	case LongRead, WrongSize:
		data = append(data, make([]byte, 7)...)
	default:
		data = l.damage(data, 0, int64(len(data)))
	}
	file := filepath.Join(l.copies, filepath.FromSlash(key))
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		l.t.Error(err)
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		l.t.Error(err)
	}
	return file
}
