package repository

import (
	"bytes"
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"github.com/replicate/replicate"
)

// Every decoder is given arbitrary bytes. It must not panic and not allocate on their word; what it accepts must survive encoding
// and decoding again.

func FuzzRecord(f *testing.F) {
	for _, r := range sampleRecords() {
		r, err := r.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(r.Line)
	}
	for _, s := range []string{`{}`, `{"later":[1,{"a":null}]}`, `[]`, ``, `{"set":"9f0c1d2e3f405162738495a6b7c8d9ea","at":"2026-03-04T05:06:07Z","x":1e5}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseRecord(line)
		if err != nil {
			if replicate.KindOf(err) != replicate.Corrupt {
				t.Errorf("error of kind %s: %v", replicate.KindOf(err), err)
			}
			return
		}
		if !json.Valid(line) {
			t.Errorf("%q is no JSON", line)
		}
		if r.Experiment == nil && r.Commit == nil && r.Stream == nil && r.Set == nil && r.Delete == nil {
			return
		}
		once, err := r.Encode()
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		again, err := ParseRecord(once.Line)
		if err != nil {
			t.Fatalf("%q: %v", once.Line, err)
		}
		if twice, err := again.Encode(); err != nil || !bytes.Equal(twice.Line, once.Line) {
			t.Errorf("%v\n%q\n%q", err, once.Line, twice.Line)
		}
	})
}

func FuzzSetField(f *testing.F) {
	f.Add("tags", []byte(`{"a":true,"b":false}`))
	f.Add("exit_code", []byte(`-9`))
	f.Add("python", []byte(`{"version":"3","packages":{"a":"1"}}`))
	f.Add("ended", []byte(`"2026-03-04T05:06:07.5Z"`))
	f.Add("params", []byte(`{"a":{"b":[1.0,"NaN"]}}`))
	f.Fuzz(func(t *testing.T, field string, value []byte) {
		e := replicate.Experiment{ID: idA, Tags: []string{"b", "c"}}
		if SetField(&e, field, value) == nil && !slices.IsSorted(e.Tags) {
			t.Errorf("tags %q", e.Tags)
		}
	})
}

func FuzzPoint(f *testing.F) {
	f.Add([]byte(`[7,1772600767123,{"loss":0.31}]`))
	f.Add([]byte(`[null,-1,{},"3be0c21d4f5061728394a5b6c7d8e9fa",{}]`))
	f.Fuzz(func(t *testing.T, line []byte) {
		p, err := parsePoint(line)
		if err != nil {
			return
		}
		once := appendPoint(nil, p)
		again, err := parsePoint(once)
		if err != nil || !bytes.Equal(appendPoint(nil, again), once) || bytes.Count(once, []byte{'\n'}) != 1 {
			t.Errorf("%v: %q from %q", err, once, line)
		}
		summarize(map[string]replicate.Summary{}, p, 3)
	})
}

// FuzzCursor compares what is skipped with what encoding/json calls valid.
func FuzzCursor(f *testing.F) {
	for _, s := range []string{`{"a":[1,-0.5e+7,"\u00e9\n",true,false,null]}`, `[[[]]]`, `"\x"`, `01`, `1.`, "\"\xff\"", "nul", `{"a":1,}`, `{"\ud800":1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &cursor{data: data}
		_, err := c.raw()
		if err == nil {
			err = c.end()
		}
		if valid := json.Valid(data); valid != (err == nil) && bytes.Count(data, []byte{'['})+bytes.Count(data, []byte{'{'}) <= maxDepth {
			t.Errorf("%q: %v, but valid is %v", data, err, valid)
		}
		if c.pos > len(data) {
			t.Errorf("%q: at byte %d", data, c.pos)
		}
	})
}

func FuzzFrame(f *testing.F) {
	for _, raw := range [][]byte{nil, []byte("abc"), bytes.Repeat([]byte("abc"), 1000)} {
		f.Add(appendFrame(nil, raw), uint32(len(raw)))
		f.Add(encoder1().EncodeAll(raw, []byte{codecZstd4}), uint32(len(raw)))
	}
	f.Fuzz(func(t *testing.T, stored []byte, size uint32) {
		raw, err := decodeFrame(nil, stored, Ref{Len: uint32(len(stored)), Raw: size})
		if err != nil {
			return
		}
		again := appendFrame(nil, raw)
		back, err := decodeFrame([]byte("x"), again, refOf(again, raw))
		if uint32(len(raw)) != size || err != nil || !bytes.Equal(back[1:], raw) {
			t.Errorf("%d bytes of %d: %v", len(raw), size, err)
		}
	})
}

func FuzzPack(f *testing.F) {
	for _, n := range []int{0, 1, 3} {
		var b bytes.Buffer
		p := newPackWriter(&b, [nonceSize]byte{1})
		for i := range n {
			if _, err := p.append(kindChunk, fill(make([]byte, 10*i), 1), replicate.Hash{byte(i)}); err != nil {
				f.Fatal(err)
			}
		}
		if _, err := p.finish(); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := readPackDirectory(bytes.NewReader(data), int64(len(data)), replicate.Hash{})
		if err != nil {
			return
		}
		for _, frame := range d.Frames {
			if int(frame.Off)+int(frame.Len) > len(data) {
				t.Errorf("frame at %d of %d bytes lies outside %d", frame.Off, frame.Len, len(data))
			}
		}
		if _, err := readPackDirectory(bytes.NewReader(data), int64(len(data)), d.Name); err != nil {
			t.Errorf("under its own name: %v", err)
		}
		if _, err := readPackDirectory(bytes.NewReader(data), int64(len(data)), hashOf(data)); err == nil {
			t.Error("another name is accepted")
		}
	})
}

func FuzzTree(f *testing.F) {
	raws, _, err := encodeTree(sampleTree())
	if err != nil {
		f.Fatal(err)
	}
	cut := bytes.IndexByte(raws[0], '\n') + 1
	f.Add(raws[0], []byte{})
	f.Add(raws[0][:cut], raws[0][cut:])
	f.Add([]byte(`{"tree":1,"packs":[],"files":0,"bytes":0}`+"\n"), []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		own := hashOf([]byte("own"))
		tree, err := decodeTree([][]byte{a, b}, own)
		if err != nil {
			return
		}
		raws, _, err := encodeTree(tree)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeTree(raws, own)
		if err != nil || !reflect.DeepEqual(again, tree) {
			t.Errorf("%v: %q", err, raws)
		}
		for i := range tree.Entries {
			if tree.Lookup(tree.Entries[i].Path) != &tree.Entries[i] {
				t.Errorf("%q is not found", tree.Entries[i].Path)
			}
		}
	})
}

func FuzzRecipe(f *testing.F) {
	raw, err := encodeRecipe([]Extent{{Ref: place(1)}, {Ref: place(2)}, {Ref: Ref{Off: 24, Len: 3, Raw: 5, Hash: replicate.Hash{1}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, int64(205))
	f.Add([]byte{0, 0}, int64(0))
	f.Fuzz(func(t *testing.T, raw []byte, size int64) {
		own := hashOf([]byte("own"))
		extents, err := decodeRecipe(raw, own, size)
		if err != nil {
			return
		}
		once, err := encodeRecipe(extents)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeRecipe(once, own, size)
		if err != nil || len(again) != len(extents) || len(again) > 0 && !reflect.DeepEqual(again, extents) {
			t.Errorf("%v: %v instead of %v", err, again, extents)
		}
	})
}

// FuzzSegment gives the header a key that fits, so that what follows is reached.
func FuzzSegment(f *testing.F) {
	_, object, err := encodeSegment(1, manyRecords(f, 3), []string{"log/1"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(object, true)
	_, empty, err := encodeSegment(1, nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(empty, true)
	f.Fuzz(func(t *testing.T, object []byte, named bool) {
		key := "index/1-00000000000000000000000000000000"
		if named && len(object) >= segmentFirst {
			key = indexKey(1, object[:segmentFirst])
		}
		inputs, records, err := parseSegment(key, object)
		if err != nil {
			return
		}
		key, again, err := encodeSegment(2, records, inputs)
		if err != nil {
			t.Fatal(err)
		}
		if _, back, err := parseSegment(key, again); err != nil || len(back) > len(records) {
			t.Errorf("%d records instead of %d: %v", len(back), len(records), err)
		}
	})
}

// FuzzSegmentDirectory reaches the directory's own parser, which hashes guard in FuzzSegment.
func FuzzSegmentDirectory(f *testing.F) {
	key, object, err := encodeSegment(1, manyRecords(f, 3), []string{"log/1"})
	if err != nil {
		f.Fatal(err)
	}
	h, err := parseSegmentHeader(key, object)
	if err != nil {
		f.Fatal(err)
	}
	raw, err := unzstd(nil, object[h.Off+skippableHead:], int(h.Raw))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, h.Off)
	f.Fuzz(func(t *testing.T, raw []byte, off uint32) {
		stored := encoder1().EncodeAll(raw, nil)
		h := segmentHeader{Off: off, Stored: uint32(len(stored)), Raw: uint32(len(raw)), Directory: hashOf(raw)}
		d, err := h.parseDirectory(stored)
		if err != nil {
			return
		}
		for _, b := range d.Blocks {
			if b.Off+b.Stored > off || b.Raw > MaxLine+1 {
				t.Errorf("block %+v before byte %d", b, off)
			}
		}
	})
}

func FuzzForcedCuts(f *testing.F) {
	f.Add("a.safetensors", safetensors("x", make([]byte, minForced), []byte("abcd")))
	f.Add("a.zip", []byte("PK\x05\x06\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		cuts := forcedCuts(name, bytes.NewReader(data), int64(len(data)))
		for i, cut := range cuts {
			if cut < 0 || cut > int64(len(data)) || i > 0 && cuts[i-1] >= cut {
				t.Errorf("cuts at %v of %d bytes", cuts, len(data))
			}
		}
	})
}

func FuzzKeys(f *testing.F) {
	f.Add(packKey(replicate.Hash{1}))
	f.Add(indexKey(3, nil))
	f.Add(logKey(nil))
	f.Add(liveKey(idA))
	f.Fuzz(func(t *testing.T, key string) {
		if name, ok := parsePackKey(key); ok && packKey(name) != key {
			t.Errorf("%q is not the key of %s", key, name)
		}
		if id, ok := parseLiveKey(key); ok && liveKey(id) != key {
			t.Errorf("%q is not the key of %s", key, id)
		}
		if generation, _, ok := parseIndexKey(key); ok && (generation < 1 || generation > 9) {
			t.Errorf("generation %d of %q", generation, key)
		}
	})
}
