package repository

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// refuses fails unless err is of kind Corrupt and says want.
func refuses(t *testing.T, err error, want string) {
	t.Helper()
	if replicate.KindOf(err) != replicate.Corrupt || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want one that says %q", err, want)
	}
}

func TestRecordsThatAreNone(t *testing.T) {
	const id = `"9f0c1d2e3f405162738495a6b7c8d9ea"`
	const hash = `"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"`
	for name, tt := range map[string]struct{ line, want string }{
		"nothing":              {``, `byte 0: want '{'`},
		"no object":            {`[1]`, `byte 0: want '{'`},
		"torn":                 {`{"experiment":` + id + `,"name":"x`, "byte 56: string without an end"},
		"text behind":          {`{"experiment":` + id + `}x`, "byte 49: unexpected 'x'"},
		"line end":             {"{\"a\":\n1}", "byte 5: line end"},
		"short id":             {`{"experiment":"9f0c"}`, "byte 20: want an id"},
		"upper-case id":        {`{"commit":"9F0C1D2E3F405162738495A6B7C8D9EA"}`, "byte 44: want an id"},
		"no id":                {`{"experiment":null}`, "without an id"},
		"commit of none":       {`{"commit":` + id + `}`, "without an id"},
		"bad time":             {`{"experiment":` + id + `,"created":"yesterday"}`, "want a time"},
		"fractional seq":       {`{"commit":` + id + `,"seq":1.5}`, "byte 51: want an integer"},
		"negative seq":         {`{"commit":` + id + `,"seq":-1}`, "byte 51: -1 is not from 0"},
		"params no object":     {`{"experiment":` + id + `,"params":[1]}`, "byte 58: want an object"},
		"stream without place": {`{"stream":"metrics","experiment":` + id + `,"writer":"5c","range":[0,1]}`, "exactly one of frame and inline"},
		"range backwards":      {`{"stream":"metrics","experiment":` + id + `,"range":[2,1]}`, "want a range"},
		"range of three":       {`{"stream":"metrics","experiment":` + id + `,"range":[0,1,2]}`, "want two numbers"},
		"bad base64":           {`{"stream":"metrics","inline":"a"}`, "base64"},
		"set without a time":   {`{"set":` + id + `,"name":"x"}`, "without a time"},
		"frame without pack":   {`{"experiment":` + id + `,"tree":[{"off":24,"len":1,"raw":1,"hash":` + hash + `}]}`, "frame without a pack"},
		"frame too large": {`{"experiment":` + id + `,"tree":[{"pack":` + hash + `,"off":24,"len":9,"raw":4294967295,"hash":` + hash + `}]}`,
			"frame of 4294967295 bytes is larger"},
		"frame outside":     {`{"experiment":` + id + `,"tree":[{"pack":` + hash + `,"off":67108864,"len":9,"raw":9,"hash":` + hash + `}]}`, "outside a pack"},
		"pack without name": {`{"experiment":` + id + `,"packs":[""]}`, "want the name of a pack"},
		"bad escape":        {`{"later":"\x"}`, "bad escape"},
		"deep":              {`{"later":` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + `}`, "nested more than"},
		"huge":              {`{"later":"` + strings.Repeat("x", MaxLine) + `"}`, "is longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseRecord([]byte(tt.line))
			refuses(t, err, tt.want)
		})
	}
}

func TestRowsThatCannotBeWritten(t *testing.T) {
	at := time.Unix(1, 0)
	for name, r := range map[string]Record{
		"nothing":        {},
		"two rows":       {Set: &Set{Experiment: idA, At: at}, Delete: &Delete{ID: idA, At: at}},
		"no id":          {Experiment: &ExperimentRow{}},
		"bad id":         {Experiment: &ExperimentRow{Experiment: replicate.Experiment{ID: "x"}}},
		"late century":   {Experiment: &ExperimentRow{Experiment: replicate.Experiment{ID: idA, Created: at.AddDate(20000, 0, 0)}}},
		"own pack":       {Experiment: &ExperimentRow{Experiment: replicate.Experiment{ID: idA}, Row: Row{Tree: []Ref{{Off: 24, Len: 1}}}}},
		"no time":        {Delete: &Delete{ID: idA}},
		"field at":       {Set: &Set{Experiment: idA, At: at, Fields: map[string]json.RawMessage{"at": json.RawMessage(`1`)}}},
		"field no JSON":  {Set: &Set{Experiment: idA, At: at, Fields: map[string]json.RawMessage{"x": json.RawMessage(`{`)}}},
		"stream of none": {Stream: &StreamRow{Experiment: idA, Writer: "5c", Inline: []byte{0}}},
		"no place":       {Stream: &StreamRow{Stream: OutputStream, Experiment: idA, Writer: "5c"}},
		"too long":       {Set: &Set{Experiment: idA, At: at, By: strings.Repeat("x", MaxLine)}},
	} {
		t.Run(name, func(t *testing.T) {
			if r, err := r.Encode(); replicate.KindOf(err) != replicate.Usage {
				t.Errorf("error %v, line %s", err, r.Line)
			}
		})
	}
}

func TestLogKeepsWhatCanBeRead(t *testing.T) {
	good, err := sampleRecords()["delete"].Encode()
	if err != nil {
		t.Fatal(err)
	}
	object := bytes.Join([][]byte{good.Line, []byte(`{"commit":1}`), good.Line, []byte(`{"torn`)}, []byte{'\n'})
	records, err := parseLog(logKey(object), object)
	refuses(t, err, fmt.Sprintf("line at byte %d", len(good.Line)+1))
	refuses(t, err, "has no end")
	if len(records) != 2 {
		t.Errorf("%d records", len(records))
	}
	records, err = parseLog(logKey(nil), object)
	refuses(t, err, "not those that were stored")
	if len(records) != 0 {
		t.Errorf("%d records", len(records))
	}
}

func TestTreesThatAreNone(t *testing.T) {
	const head = `{"tree":1,"packs":["af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"],"files":%d,"bytes":%d}` + "\n"
	const h = `"h":"af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"`
	one := fmt.Sprintf(head, 1, 0)
	ten := fmt.Sprintf(head, 1, 10)
	for name, tt := range map[string]struct{ text, want string }{
		"nothing":             {"", "no lines"},
		"no head":             {`{"p":"a","m":"0644","s":0,` + h + "}\n", "line at byte 0: not the first line"},
		"of the future":       {`{"tree":2,"packs":{}}` + "\n", "frame 0, line at byte 0"},
		"version":             {`{"tree":2}` + "\n", "version 2 needs a newer replicate"},
		"torn":                {one + `{"p":"a"`, fmt.Sprintf("line at byte %d has no end", len(one))},
		"fewer files":         {one, "holds 0 files"},
		"other bytes":         {fmt.Sprintf(head, 1, 1) + `{"p":"a"}` + "\n", "holds 1 files of 0 bytes"},
		"absolute":            {one + `{"p":"/a"}` + "\n", "is no path"},
		"parent":              {one + `{"p":"../a"}` + "\n", "is no path"},
		"dot":                 {one + `{"p":"."}` + "\n", "is no path"},
		"empty path":          {one + `{"m":"0644"}` + "\n", "is no path"},
		"NUL":                 {one + `{"p":"a\u0000b"}` + "\n", "is no path"},
		"no directory":        {one + `{"p":"a/b"}` + "\n", "is in no directory"},
		"file as directory":   {fmt.Sprintf(head, 2, 0) + `{"p":"a"}` + "\n" + `{"p":"a/b"}` + "\n", "is in no directory"},
		"twice":               {fmt.Sprintf(head, 2, 0) + `{"p":"a"}` + "\n" + `{"p":"a"}` + "\n", "stands behind"},
		"unsorted":            {fmt.Sprintf(head, 2, 0) + `{"p":"a.b"}` + "\n" + `{"p":"a"}` + "\n", "stands behind"},
		"mode":                {one + `{"p":"a","m":"100644"}` + "\n", "want a mode"},
		"kind":                {one + `{"p":"a","k":"socket"}` + "\n", "needs a newer replicate"},
		"size without place":  {ten + `{"p":"a","s":10}` + "\n", "extents are 0 bytes together, the file 10"},
		"place without size":  {one + `{"p":"a","at":[[0,24,5,4]]}` + "\n", "0 bytes from 0 of a frame of 4"},
		"past the frame":      {ten + `{"p":"a","s":10,"at":[[0,24,20,10,1]]}` + "\n", "10 bytes from 1 of a frame of 10"},
		"pack number":         {ten + `{"p":"a","s":10,"at":[[1,24,20,10]]}` + "\n", "1 is not from 0 to 0"},
		"negative number":     {ten + `{"p":"a","s":10,"at":[[-1,24,20,10]]}` + "\n", "-1 is not from 0 to 0"},
		"huge frame":          {ten + `{"p":"a","s":10,"at":[[0,24,20,4294967295]]}` + "\n", "larger than"},
		"chunk without hash":  {ten + `{"p":"a","s":10,"at":[[0,24,20,5],[0,50,20,5]]}` + "\n", "not a whole frame with a hash"},
		"recipe without hash": {ten + `{"p":"a","s":10,"r":[0,24,20,5]}` + "\n", "recipe without a hash"},
		"nine chunks":         {ten + `{"p":"a","s":10,"at":[` + strings.Repeat(`[0,24,5,4],`, 8) + `[0,24,5,4]]}` + "\n", "more than 8 extents"},
		"link to nothing":     {one + `{"p":"a","k":"l"}` + "\n", "a link needs a target"},
		"directory of bytes":  {fmt.Sprintf(head, 0, 0) + `{"p":"a","k":"d","s":1}` + "\n", "is no file"},
		"long line":           {one + `{"p":"` + strings.Repeat("x", maxTreeLine) + `"}` + "\n", "longer than 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeTree([][]byte{[]byte(tt.text)}, replicate.Hash{1})
			refuses(t, err, tt.want)
		})
	}
	_, err := decodeTree(nil, replicate.Hash{1})
	refuses(t, err, "no frames")
}

func TestTreesThatCannotBeWritten(t *testing.T) {
	for name, entries := range map[string][]Entry{
		"unsorted":        {{Path: "b"}, {Path: "a"}},
		"no directory":    {{Path: "a/b"}},
		"way out":         {{Path: ".."}},
		"long path":       {{Path: strings.Repeat("x", maxTreeLine)}},
		"mode":            {{Path: "a", Mode: 0o100644}},
		"negative":        {{Path: "a", Size: -1}},
		"kind":            {{Path: "a", Kind: 9}},
		"many extents":    {{Path: "a", Size: 900, Extents: make([]Extent, 9)}},
		"both":            {{Path: "a", Size: 100, Extents: []Extent{{Ref: place(1)}}, Recipe: new(place(1))}},
		"impossible size": {{Path: "a", Size: 101, Extents: []Extent{{Ref: place(1)}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := encodeTree(&Tree{Entries: entries}); replicate.KindOf(err) != replicate.Usage {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestLargeTreesAreCutAtLineEnds(t *testing.T) {
	tree := &Tree{}
	for i := range 100_000 {
		r := place(i % 200)
		r.Hash = replicate.Hash{}
		tree.Entries = append(tree.Entries, Entry{Path: fmt.Sprintf("file-%06d", i), Mode: 0o644, Size: 100, Mtime: 1772600767123456789,
			Hash: hashOf([]byte{byte(i)}), Extents: []Extent{{Ref: r}}})
	}
	raws, packs, err := encodeTree(tree)
	if err != nil || len(raws) < 2 || len(packs) != 200 {
		t.Fatalf("%d frames, %d packs, %v", len(raws), len(packs), err)
	}
	for i, raw := range raws {
		if len(raw) > maxTreePiece || raw[len(raw)-1] != '\n' || i < len(raws)-1 && len(raw) < maxTreePiece-1000 {
			t.Errorf("frame %d has %d bytes", i, len(raw))
		}
	}
	got, err := decodeTree(raws, replicate.Hash{1})
	if err != nil || len(got.Entries) != len(tree.Entries) || got.Bytes != 10_000_000 || got.Entries[99_999].Path != "file-099999" {
		t.Errorf("%v, %d entries", err, len(got.Entries))
	}
	if empty, _, err := encodeTree(&Tree{}); err != nil || len(empty) != 1 {
		t.Errorf("an empty tree has %d frames, %v", len(empty), err)
	}
}

func TestRecipesThatAreNone(t *testing.T) {
	sound, err := encodeRecipe([]Extent{{Ref: place(1)}, {Ref: place(2)}})
	if err != nil {
		t.Fatal(err)
	}
	chunks := 2 + 2*32
	change := func(at int, value uint32) []byte {
		raw := bytes.Clone(sound)
		binary.LittleEndian.PutUint32(raw[at:], value)
		return raw
	}
	for name, tt := range map[string]struct {
		raw  []byte
		size int64
		want string
	}{
		"nothing":      {nil, 0, "0 bytes is no recipe's size"},
		"cut":          {sound[:len(sound)-1], 200, fmt.Sprintf("byte %d: ends in the middle", len(sound)-1)},
		"many packs":   {change(0, 0xffff), 200, "ends in the middle"},
		"other size":   {sound, 201, "chunks are 200 bytes together, the file 201"},
		"pack number":  {change(chunks+recipeChunk, 2), 200, fmt.Sprintf("byte %d: pack 2 of 2", chunks+recipeChunk)},
		"huge chunk":   {change(chunks+12, 1<<31), 200, fmt.Sprintf("byte %d: frame of", chunks)},
		"no bytes":     {change(chunks+8, 0), 200, "stored in 0 bytes"},
		"in the head":  {change(chunks+4, 3), 200, "outside a pack"},
		"past the end": {change(chunks+4, MaxPack), 200, "outside a pack"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := decodeRecipe(tt.raw, replicate.Hash{1}, tt.size)
			refuses(t, err, tt.want)
		})
	}
	for name, x := range map[string]Extent{"part": {Ref: place(1), From: 1}, "no hash": {Ref: Ref{Off: 24, Len: 1}}, "no place": {Ref: Ref{Hash: replicate.Hash{1}}}} {
		if _, err := encodeRecipe([]Extent{x}); err == nil {
			t.Errorf("%s is written", name)
		}
	}
}

func TestPacksThatAreNone(t *testing.T) {
	var b bytes.Buffer
	p := newPackWriter(&b, [nonceSize]byte{5})
	for i := range 40 {
		raw := fill(make([]byte, 5000), uint64(i))
		if _, err := p.append(kindChunk, raw, hashOf(raw)); err != nil {
			t.Fatal(err)
		}
	}
	name, err := p.finish()
	if err != nil {
		t.Fatal(err)
	}
	sound, trailer := b.Bytes(), b.Len()-packTrailer
	dir := binary.LittleEndian.Uint32(sound[trailer:])
	change := func(at int) []byte {
		data := bytes.Clone(sound)
		data[at] ^= 1
		return data
	}
	for what, tt := range map[string]struct {
		data []byte
		want string
	}{
		"empty":                 {nil, "0 bytes is no pack's size"},
		"cut":                   {sound[:len(sound)-1], "not the end of a pack"},
		"only a trailer":        {sound[trailer:], "40 bytes is no pack's size"},
		"trailer's end":         {change(len(sound) - 1), fmt.Sprintf("trailer at byte %d: not the end", trailer)},
		"directory's place":     {change(trailer), fmt.Sprintf("trailer at byte %d: impossible directory", trailer)},
		"directory's size":      {change(trailer + 4), "impossible directory"},
		"number of frames":      {change(trailer + 12), "impossible directory"},
		"directory":             {change(int(dir) + 100), fmt.Sprintf("directory at byte %d", dir)},
		"another pack":          {otherPack(t), "is another pack's, or damaged"},
		"bytes before":          {append([]byte("x"), sound...), "impossible directory"},
		"longer than a pack is": {make([]byte, MaxPack+1), "is no pack's size"},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := readPackDirectory(bytes.NewReader(tt.data), int64(len(tt.data)), name)
			refuses(t, err, tt.want)
			refuses(t, err, name.String())
		})
	}
	_, err = readPackDirectory(bytes.NewReader(sound[:100]), int64(len(sound)), name)
	refuses(t, err, "ends at byte")
	broken := errors.New("broken disk")
	if _, err = readPackDirectory(brokenReader{broken}, int64(len(sound)), name); !errors.Is(err, broken) || replicate.KindOf(err) == replicate.Corrupt {
		t.Errorf("error %v of kind %s", err, replicate.KindOf(err))
	}
}

type brokenReader struct{ err error }

func (r brokenReader) ReadAt([]byte, int64) (int, error) { return 0, r.err }

func otherPack(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	if _, err := newPackWriter(&b, [nonceSize]byte{6}).finish(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestLargeDirectoriesAreRead(t *testing.T) {
	var b bytes.Buffer
	p := newPackWriter(&b, [nonceSize]byte{7})
	for i := range 5000 {
		if _, err := p.append(kindChunk, []byte{byte(i)}, hashOf([]byte(fmt.Sprint(i)))); err != nil {
			t.Fatal(err)
		}
	}
	name, err := p.finish()
	if err != nil {
		t.Fatal(err)
	}
	d, err := readPackDirectory(bytes.NewReader(b.Bytes()), int64(b.Len()), name)
	if err != nil || len(d.Frames) != 5000 || b.Len() < 2*directoryGuess {
		t.Fatalf("%v, pack of %d bytes", err, b.Len())
	}
}

func TestPacksEndInTime(t *testing.T) {
	p := newPackWriter(io.Discard, [nonceSize]byte{})
	big := frame{payload: make([]byte, maxRaw), raw: maxRaw}
	n := 0
	for p.fits(big.stored()) {
		big.hash = replicate.Hash{byte(n)}
		if _, err := p.appendFrame(kindChunk, big); err != nil {
			t.Fatal(err)
		}
		n++
	}
	if n != 3 {
		t.Errorf("%d frames of 16 MiB fit", n)
	}
	if _, err := p.appendFrame(kindChunk, big); err == nil {
		t.Error("a frame that does not fit is written")
	}
	if _, err := p.finish(); err != nil || p.size() > MaxPack {
		t.Errorf("%d bytes, %v", p.size(), err)
	}
}

func TestPackReportsWriteErrors(t *testing.T) {
	p := newPackWriter(io.Discard, [nonceSize]byte{})
	full := errors.New("full")
	p.w = writerFunc(func(b []byte) (int, error) { return 0, full })
	if _, err := p.append(kindChunk, []byte("x"), hashOf([]byte("x"))); !errors.Is(err, full) {
		t.Errorf("append: %v", err)
	}
	p.w = io.Discard
	if _, err := p.finish(); !errors.Is(err, full) {
		t.Errorf("finish: %v", err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestSegmentsThatCannotBeWritten(t *testing.T) {
	for _, generation := range []int{0, 10, -1} {
		if _, _, err := encodeSegment(generation, nil, nil); replicate.KindOf(err) != replicate.Usage {
			t.Errorf("generation %d: %v", generation, err)
		}
	}
}
