package code

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

func sample() *Manifest {
	return &Manifest{Entries: []Entry{
		{Path: "a\xff", Kind: repository.Dir, Mode: 0o755, Mtime: -5},
		{Path: "a\xff/link", Kind: repository.Link, Mode: 0o777, Target: "../b"},
		{Path: "b", Mode: 0o4644, Mtime: 1772600767123456789, Size: 5, Pieces: []Piece{{Hash: replicate.Hash{1}, Size: 3}, {Hash: replicate.Hash{2}, Size: 2}}},
		{Path: "empty"},
	}}
}

func TestManifestMakesTheRoundTrip(t *testing.T) {
	got, err := ParseManifest(sample().Append(nil))
	must(t, err)
	if !reflect.DeepEqual(got, sample()) {
		t.Errorf("got %+v", got)
	}
}

// FuzzManifest parses anything as the inside of a manifest: what is accepted encodes to the same again, and stays below its root.
func FuzzManifest(f *testing.F) {
	text := sample().Append(nil)
	f.Add(text[len(manifestMagic) : len(text)-32])
	f.Add([]byte{1, '.', 2, 0, 0, 0})
	f.Add([]byte{0})
	f.Fuzz(func(t *testing.T, data []byte) {
		b := append([]byte(manifestMagic), data...)
		sum := repository.HashOf(b)
		m, err := ParseManifest(append(b, sum[:]...))
		if err != nil {
			return
		}
		again, err := ParseManifest(m.Append(nil))
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Fatalf("%v\n%+v\n%+v", err, m, again)
		}
		for _, e := range m.Entries {
			if !filepath.IsLocal(e.Path) || filepath.Clean(e.Path) != e.Path {
				t.Fatalf("%q is accepted", e.Path)
			}
		}
	})
}

// FuzzReceive says anything to a receiver. Nothing may appear but in its directories, and a tree only if it says so.
func FuzzReceive(f *testing.F) {
	root := f.TempDir()
	write(f, root+"/f", []byte("content"))
	write(f, root+"/g", []byte("other"))
	tree := scan(f, Options{Root: root})
	s := &sender{Tree: tree}
	must(f, s.read(f.Context()))
	var b bytes.Buffer
	w := newWire(&b)
	must(f, w.manifest(&s.manifest, []byte{0}))
	f.Add(bytes.Clone(b.Bytes()))
	must(f, w.say(msgChunks, []byte("contentother")))
	f.Add(bytes.Clone(b.Bytes()))
	b.Reset()
	must(f, w.manifest(&s.manifest, []byte{3}))
	must(f, w.say(msgChunks, []byte("contentother")))
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, said []byte) {
		top := t.TempDir()
		var answer bytes.Buffer
		err := Receive(t.Context(), script{bytes.NewReader(said), &answer}, ReceiveOptions{Chunks: top + "/chunks", Target: top + "/target"})
		_, statErr := os.Lstat(top + "/target")
		if (err == nil) != (statErr == nil) {
			t.Fatalf("received: %v, target: %v", err, statErr)
		}
		names, _ := os.ReadDir(top)
		for _, e := range names {
			if n := e.Name(); n != "chunks" && n != "target" && n != "target.part" {
				t.Fatalf("%s appeared", n)
			}
		}
	})
}

// closing gives a script a Close.
type closing struct{ script }

// Close does nothing.
func (closing) Close() error { return nil }

// FuzzSend answers anything to a sender: it ends, and is done only if it was told so.
func FuzzSend(f *testing.F) {
	root := f.TempDir()
	write(f, root+"/f", []byte("content"))
	tree := scan(f, Options{Root: root})
	var b bytes.Buffer
	w := newWire(&b)
	must(f, w.say(msgWanted, []byte{1}))
	must(f, w.say(msgDone, nil))
	f.Add(b.Bytes())
	f.Add([]byte{msgError, 3, 0, 0, 0, 4, 0, 0, 0, 0, 'x', 0, 'y'})
	f.Fuzz(func(t *testing.T, said []byte) {
		_, err := tree.Send(t.Context(), closing{script{bytes.NewReader(said), io.Discard}}, SendOptions{})
		if err == nil && !bytes.Contains(said, []byte{msgDone}) {
			t.Fatal("done without a word")
		}
	})
}
