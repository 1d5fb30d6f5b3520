package repository

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

const (
	idA = replicate.ID("9f0c1d2e3f405162738495a6b7c8d9ea")
	idB = replicate.ID("3be0c21d4f5061728394a5b6c7d8e9fa")
)

// place returns a sound Ref that differs with n.
func place(n int) Ref {
	return Ref{Pack: hashOf([]byte{byte(n), 1}), Off: 24 + uint32(n), Len: 101, Raw: 100, Hash: hashOf([]byte{byte(n)})}
}

func sampleRecords() map[string]Record {
	at := time.Date(2026, 3, 4, 5, 6, 7, 89_000_000, time.UTC)
	code := 1
	row := Row{Tree: []Ref{place(1), place(2)}, Packs: []replicate.Hash{place(1).Pack, place(2).Pack}, Before: at.Add(time.Hour)}
	params := replicate.Values{
		{Name: "lr", Value: replicate.Float(0.01)}, {Name: "n", Value: replicate.Int(math.MaxInt64)}, {Name: "nan", Value: replicate.Float(math.Inf(-1))},
		{Name: "<&>", Value: replicate.Text("NaN")}, {Name: "none"}, {Name: "sub", Value: replicate.Map(replicate.Values{{Name: "a", Value: replicate.List([]replicate.Value{replicate.Bool(true)})}})},
	}
	return map[string]Record{
		"experiment": {Experiment: &ExperimentRow{Row: row, Experiment: replicate.Experiment{
			ID: idA, Created: at, Name: "näme \"\n", User: "u", Host: "h", Command: []string{"train.py", "", "<x>"}, Params: params,
			Metric: &replicate.Metric{Name: "loss", Goal: replicate.Minimize}, Parent: idB, Status: replicate.Failed, Ended: at, ExitCode: &code,
			Failure: &replicate.Failure{Type: "ValueError", Message: "a < b"}, Tags: []string{"a", "b"}, Note: "n",
			Git: &replicate.Git{Commit: "c", Dirty: true}, Python: &replicate.Python{Version: "3.11", Packages: map[string]string{"torch": "2"}},
			Machine: &replicate.Machine{OS: "linux", Cores: 2}, Environment: replicate.Values{{Name: "RANK", Value: replicate.Text("0")}},
		}}},
		"experiment of nothing": {Experiment: &ExperimentRow{Experiment: replicate.Experiment{ID: idA}}},
		"commit": {Commit: &CommitRow{Row: row, Commit: replicate.Commit{
			ID: idB, Experiment: idA, Parent: idA, Seq: 17, Time: at, Step: -3, Metrics: params, Message: "m", Files: 3, Bytes: 1 << 40, Added: 5,
		}}},
		"commit without a step": {Commit: &CommitRow{Commit: replicate.Commit{ID: idB, Experiment: idA, Step: replicate.NoStep}}},
		"stream": {Stream: &StreamRow{Stream: MetricsStream, Experiment: idA, Writer: "5c00000000000000", Seq: 12, From: 4096, To: 8190, Frame: new(place(3)),
			Summary: map[string]replicate.Summary{"loss": {
				First: &replicate.Point{Step: replicate.NoStep, N: 4096, Value: replicate.Text("x")}, Last: &replicate.Point{Step: 9, N: 8189, Value: replicate.Float(1)},
				Min: &replicate.Point{N: 5000, Value: replicate.Int(-1)}, Max: &replicate.Point{N: 5001, Value: replicate.Float(math.Inf(1))},
			}, "text": {First: &replicate.Point{}, Last: &replicate.Point{}}},
			Row: Row{Packs: []replicate.Hash{place(3).Pack}, Before: at}}},
		"stream inline": {Stream: &StreamRow{Stream: OutputStream, Experiment: idA, Writer: "5c", To: 3, Inline: []byte("\x00abc"), Row: Row{Before: at}}},
		"set":           {Set: &Set{Experiment: idA, At: at, By: "u@h", Fields: map[string]json.RawMessage{"status": json.RawMessage(`"failed"`), "tags": json.RawMessage(`{"paper":true}`), "x\ny": json.RawMessage(`[1]`)}}},
		"delete":        {Delete: &Delete{ID: idB, At: at, By: "u@h"}},
	}
}

func TestRecordsSurviveTheLine(t *testing.T) {
	for name, want := range sampleRecords() {
		t.Run(name, func(t *testing.T) {
			want, err := want.Encode()
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseRecord(want.Line)
			if err != nil {
				t.Fatalf("%v\n%s", err, want.Line)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v\nline %s", got, want, want.Line)
			}
		})
	}
}

func sampleTree() *Tree {
	long := place(9)
	t := &Tree{Entries: []Entry{
		{Path: "a", Kind: Dir, Mode: 0o755, Mtime: -1},
		{Path: "a/b", Kind: Dir, Mode: 0o1777},
		{Path: "a/b/c.txt", Mode: 0o4644, Size: 10, Mtime: 1e18, Hash: hashOf([]byte("c")), Extents: []Extent{{Ref: place(1), From: 7}}},
		{Path: "a/z", Mode: 0o600, Hash: hashOf(nil)},
		{Path: "a-b", Mode: 7, Size: 200, Hash: hashOf([]byte("2")), Extents: []Extent{{Ref: place(2)}, {Ref: place(3)}}, Torn: true},
		{Path: "big", Size: 1 << 40, Hash: hashOf([]byte("4")), Recipe: &long},
		{Path: "l\n\"", Kind: Link, Mode: 0o777, Target: "../\xff"},
		{Path: "\xff\xfe", Kind: Link, Mode: 0o777, Target: "x"},
	}}
	t.Entries[2].Extents[0].Hash = replicate.Hash{}
	return t
}

func TestTreeSurvivesFrames(t *testing.T) {
	tree := sampleTree()
	own := hashOf([]byte("own"))
	tree.Entries[4].Extents[1].Pack = replicate.Hash{}
	raws, packs, err := encodeTree(tree)
	if err != nil {
		t.Fatal(err)
	}
	if tree.Files != 6 || tree.Bytes != 10+200+1<<40 {
		t.Errorf("%d files, %d bytes", tree.Files, tree.Bytes)
	}
	if len(packs) != 4 || len(raws) != 1 {
		t.Errorf("%d packs, %d frames", len(packs), len(raws))
	}
	got, err := decodeTree(raws, own)
	if err != nil {
		t.Fatalf("%v\n%s", err, raws[0])
	}
	tree.Entries[4].Extents[1].Pack = own
	if !reflect.DeepEqual(got, tree) {
		t.Errorf("got  %+v\nwant %+v\n%s", got, tree, raws[0])
	}
}

func TestTreeFindsPaths(t *testing.T) {
	tree := sampleTree()
	for i := range tree.Entries {
		if e := tree.Lookup(tree.Entries[i].Path); e != &tree.Entries[i] {
			t.Errorf("Lookup(%q) = %v", tree.Entries[i].Path, e)
		}
	}
	for _, path := range []string{"", "a/", "a/c", "zzz", "/"} {
		if e := tree.Lookup(path); e != nil {
			t.Errorf("Lookup(%q) = %v", path, e)
		}
	}
	for dir, want := range map[string]string{"": "a a-b big l\n\" \xff\xfe", "a": "a/b a/z", "a/b": "a/b/c.txt", "big": "", "none": ""} {
		var got []string
		for i, e := range tree.Children(dir) {
			if e != &tree.Entries[i] {
				t.Errorf("entry %d of %q is not its index's", i, dir)
			}
			got = append(got, e.Path)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("Children(%q) = %q", dir, got)
		}
	}
}

func TestPackReadsBack(t *testing.T) {
	var b bytes.Buffer
	p := newPackWriter(&b, [16]byte{1, 2, 3})
	contents := [][]byte{[]byte("hello"), bytes.Repeat([]byte("abc"), 1e5), fill(make([]byte, 1e6), 3), nil}
	var refs []Ref
	for _, raw := range contents {
		ref, err := p.append(kindChunk, raw, hashOf(raw))
		if err != nil {
			t.Fatal(err)
		}
		refs = append(refs, ref)
	}
	bound := p.size()
	name, err := p.finish()
	if err != nil || int64(b.Len()) > bound {
		t.Fatalf("%v; %d bytes, bound %d", err, b.Len(), bound)
	}
	d, err := readPackDirectory(bytes.NewReader(b.Bytes()), int64(b.Len()), name)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range d.Frames {
		refs[i].Pack = name
		if f.Ref != refs[i] || f.Kind != kindChunk {
			t.Errorf("frame %d is %+v, want %+v", i, f, refs[i])
		}
		raw, err := decodeFrame(nil, b.Bytes()[f.Off:f.Off+f.Len], f.Ref)
		if err != nil || !bytes.Equal(raw, contents[i]) {
			t.Errorf("frame %d: %v, %d bytes", i, err, len(raw))
		}
	}
}

func TestRecipeReadsBack(t *testing.T) {
	var want []Extent
	for i := range 20 {
		want = append(want, Extent{Ref: place(i % 12)})
	}
	want[3].Pack = replicate.Hash{}
	raw, err := encodeRecipe(want)
	if err != nil {
		t.Fatal(err)
	}
	own := hashOf([]byte("own"))
	want[3].Pack = own
	got, err := decodeRecipe(raw, own, 2000)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v\ngot  %v\nwant %v", err, got, want)
	}
}
