package repository

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/replicate/replicate"
)

func cacheSample() []cachedFile {
	pack := func(b byte) replicate.Hash { return replicate.Hash{b} }
	ref := func(p replicate.Hash, off uint32) Ref {
		return Ref{Pack: p, Off: off, Len: 10, Raw: 9, Hash: replicate.Hash{9}}
	}
	return []cachedFile{
		{path: "a/b", size: 9, mtime: -1, ctime: 2, inode: 3, device: 4, hash: pack(7), extents: []Extent{{Ref: Ref{Pack: pack(1), Off: 24, Len: 10, Raw: 20}, From: 11}}},
		{path: "a\xff", size: 0, hash: pack(8)},
		{path: "b", size: 18, extents: []Extent{{Ref: ref(pack(2), 24)}, {Ref: ref(pack(1), 34)}}},
		{path: "c", size: 1 << 40, recipe: new(ref(pack(1), 100)), packs: []replicate.Hash{pack(1), pack(3)}},
	}
}

func TestStatCacheRoundTrip(t *testing.T) {
	path := t.TempDir() + "/stat"
	want := cacheSample()
	must(t, saveStatCache(path, want))
	got := loadStatCache(path)
	if !slices.EqualFunc(got, want, func(a, b cachedFile) bool {
		x, y := a.entry(), b.entry()
		return x.equal(&y) && a.ctime == b.ctime && a.inode == b.inode && a.device == b.device && slices.Equal(a.packs, b.packs)
	}) {
		t.Errorf("got %+v", got)
	}
	data, err := os.ReadFile(path)
	must(t, err)
	for i := range data {
		broken := bytes.Clone(data)
		broken[i] ^= 1
		if _, err := decodeStatCache(broken); err == nil {
			t.Fatalf("a flipped bit at %d is not seen", i)
		}
	}
	must(t, os.WriteFile(path, data[:len(data)/2], 0o600))
	if loadStatCache(path) != nil || loadStatCache(path+"x") != nil {
		t.Error("half a cache is not empty")
	}
}

func FuzzStatCache(f *testing.F) {
	seal := func(b []byte) []byte { h := hashOf(b); return append(b, h[:]...) }
	f.Add(encodeStatCache(nil)[:16])
	f.Add(encodeStatCache(cacheSample())[:200])
	whole := encodeStatCache(cacheSample())
	f.Add(whole[:len(whole)-32])
	f.Fuzz(func(t *testing.T, body []byte) {
		files, err := decodeStatCache(seal(bytes.Clone(body)))
		if err != nil {
			return
		}
		again, err := decodeStatCache(encodeStatCache(files))
		if err != nil || len(again) != len(files) {
			t.Fatal(err)
		}
	})
}

func FuzzMeta(f *testing.F) {
	f.Add([]byte(`{"experiment":"9f000000000000000000000000000000","writer":"0123456789abcdef","pid":1,"host":"h","boot":"b","begun":true}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseMeta(text)
		if err == nil && (m.Experiment == "" || len(m.Writer) != 16) {
			t.Fatalf("%+v", m)
		}
	})
}
