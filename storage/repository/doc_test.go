package repository

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"go/parser"
	"go/token"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// A docSample is what doc.go shows: one small commit, as it is stored.
type docSample struct {
	pack  bytes.Buffer
	name  replicate.Hash
	tree  []byte
	lines []string // everything shown that is JSON
}

func newDocSample(t *testing.T) *docSample {
	t.Helper()
	s := &docSample{}
	p := newPackWriter(&s.pack, [nonceSize]byte{0: 1, 15: 2})
	put := func(kind frameKind, raw []byte) Ref {
		ref, err := p.append(kind, raw, hashOf(raw))
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	train, notes := []byte("import replicate\n"), []byte("lr 0.01 is best\n")
	group := put(kindGroup, append(bytes.Clone(train), notes...))
	group.Hash = replicate.Hash{}
	weights := fill(make([]byte, 2<<20), 1)
	var chunks []Extent
	for c := newChunker(bytes.NewReader(weights), nil); ; {
		b, err := c.next()
		if err != nil {
			break
		}
		chunks = append(chunks, Extent{Ref: put(kindChunk, b)})
	}
	mtime := time.Date(2026, 3, 4, 5, 6, 7, 123456789, time.UTC)
	file := func(path string, content []byte, extents ...Extent) Entry {
		return Entry{Path: path, Mode: 0o644, Size: int64(len(content)), Mtime: mtime.UnixNano(), Hash: hashOf(content), Extents: extents}
	}
	raws, _, err := encodeTree(&Tree{Entries: []Entry{
		{Path: "ckpt", Kind: Dir, Mode: 0o755, Mtime: mtime.UnixNano()},
		{Path: "ckpt/latest", Kind: Link, Mode: 0o777, Mtime: mtime.UnixNano(), Target: "weights.bin"},
		file("ckpt/weights.bin", weights, chunks...),
		file("empty", nil),
		file("notes-\xff.txt", notes, Extent{Ref: group, From: uint32(len(train))}),
		file("train.py", train, Extent{Ref: group}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	s.tree = raws[0]
	tree := put(kindTree, s.tree)
	commit := &CommitRow{Commit: replicate.Commit{ID: idB, Experiment: idA, Time: mtime, Step: 8,
		Metrics: replicate.Values{{Name: "loss", Value: replicate.Float(0.3)}, {Name: "accuracy", Value: replicate.Float(1)}},
		Files:   5, Bytes: int64(len(weights) + len(train) + len(notes)), Added: 2 << 20}}
	note := s.record(t, Record{Commit: commit})
	put(kindNote, note)
	if s.name, err = p.finish(); err != nil {
		t.Fatal(err)
	}
	tree.Pack = s.name
	stored := Row{Packs: []replicate.Hash{s.name}, Before: mtime.Add(time.Hour)}
	code := stored
	stored.Tree, code.Tree = []Ref{tree}, []Ref{tree}
	commit.Row = stored
	s.lines = append(s.lines, strings.Split(strings.TrimSpace(string(s.tree)), "\n")...)
	s.records(t, mtime, commit, code)
	return s
}

func (s *docSample) record(t *testing.T, r Record) []byte {
	t.Helper()
	r, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	s.lines = append(s.lines, string(r.Line))
	return r.Line
}

func (s *docSample) records(t *testing.T, at time.Time, commit *CommitRow, code Row) {
	t.Helper()
	s.record(t, Record{Experiment: &ExperimentRow{Row: code, Experiment: replicate.Experiment{ID: idA, Created: at, User: "dev", Host: "gpu1",
		Command: []string{"train.py", "--lr", "0.01"}, Params: replicate.Values{{Name: "lr", Value: replicate.Float(0.01)}, {Name: "seed", Value: replicate.Int(7)}},
		Metric: &replicate.Metric{Name: "loss", Goal: replicate.Minimize}}}})
	s.record(t, Record{Commit: commit})
	var points []byte
	summary := map[string]replicate.Summary{}
	for i, p := range []Point{
		{Step: 7, Time: at, Metrics: replicate.Values{{Name: "loss", Value: replicate.Float(0.31)}}},
		{Step: 8, Time: at.Add(time.Second), Metrics: commit.Metrics, Commit: commit.ID},
	} {
		summarize(summary, p, int64(i))
		points = appendPoint(points, p)
	}
	s.lines = append(s.lines, strings.Split(strings.TrimSpace(string(points)), "\n")...)
	s.record(t, Record{Stream: &StreamRow{Stream: MetricsStream, Experiment: idA, Writer: "5c0de1f2a3b4c5d6", Seq: 0, To: 2,
		Inline: appendFrame(nil, points), Summary: summary, Row: Row{Before: at.Add(time.Hour)}}})
	s.record(t, Record{Set: &Set{Experiment: idA, At: at.Add(time.Minute), By: "dev@gpu1",
		Fields: map[string]json.RawMessage{"status": json.RawMessage(`"failed"`), "exit_code": json.RawMessage(`1`), "tags": json.RawMessage(`{"paper":true}`)}}})
	s.record(t, Record{Delete: &Delete{ID: idB, Experiment: idA, At: at.Add(time.Hour), By: "dev@gpu1"}})
	var all []Record
	for _, line := range s.lines {
		if r, err := ParseRecord([]byte(line)); err == nil && r.row() != nil && !r.row().Before.IsZero() {
			all = append(all, r)
		}
	}
	digests, err := digestsOf(all)
	if err != nil || len(digests) != 1 {
		t.Fatal(len(digests), err)
	}
	s.lines = append(s.lines, string(digests[0].Line))
	sentence, err := json.Marshal(&gcList{Condemned: at})
	if err != nil {
		t.Fatal(err)
	}
	s.lines = append(s.lines, string(sentence))
}

// shown returns the JSON documents and the dumps of bytes in the preformatted text of doc.go. A line that ends in the middle goes on in the next.
func shown(t *testing.T) (documents []string, dumps map[string][]byte) {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "doc.go", nil, parser.ParseComments|parser.PackageClauseOnly)
	if err != nil {
		t.Fatal(err)
	}
	dumps = map[string][]byte{}
	open := ""
	for line := range strings.Lines(f.Doc.Text()) {
		text, isSample := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "\t")
		name, dump, isDump := strings.Cut(text, ": ")
		switch {
		case !isSample && open != "":
			t.Errorf("sample without an end: %s", open)
			open = ""
		case isSample && (open != "" || text[0] == '{' || text[0] == '['):
			if open += text; json.Valid([]byte(open)) {
				documents = append(documents, open)
				open = ""
			}
		case isSample && isDump && !strings.Contains(name, " "):
			b, err := hex.DecodeString(strings.ReplaceAll(dump, " ", ""))
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
			dumps[name] = append(dumps[name], b...)
		}
	}
	return documents, dumps
}

func TestDocShowsWhatIsWritten(t *testing.T) {
	s := newDocSample(t)
	documents, dumps := shown(t)
	written := map[string]bool{}
	for _, line := range s.lines {
		written[line] = true
	}
	seen := map[string]bool{}
	for _, d := range documents {
		seen[d] = true
		if !written[d] && !strings.HasPrefix(d, `{"replicate":1,`) {
			t.Errorf("doc.go shows what is not written: %s", d)
		}
	}
	for _, line := range s.lines {
		if !seen[line] {
			t.Errorf("doc.go does not show: %s", line)
		}
	}
	pack := s.pack.Bytes()
	directory, err := readPackDirectory(bytes.NewReader(pack), int64(len(pack)), s.name)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{
		"head":    pack[:packHead],
		"frame":   pack[packHead:directory.Frames[1].Off],
		"entry":   appendPackEntry(nil, directory.Frames[0]),
		"trailer": pack[len(pack)-packTrailer:],
	} {
		if !bytes.Equal(dumps[name], want) {
			t.Errorf("doc.go shows %s as % x, written is % x", name, dumps[name], want)
		}
	}
}

func TestDocSampleReads(t *testing.T) {
	documents, _ := shown(t)
	kinds := map[string]int{}
	for _, d := range documents {
		switch {
		case d[0] == '[':
			if _, err := parsePoint([]byte(d)); err != nil {
				t.Errorf("%s: %v", d, err)
			}
			kinds["point"]++
		case !strings.HasPrefix(d, `{"p":`) && !strings.HasPrefix(d, `{"b":`):
			r, err := ParseRecord([]byte(d))
			if err != nil {
				t.Errorf("%s: %v", d, err)
			}
			first, _ := (&cursor{data: r.Line}).first()
			kinds[string(first)]++
		}
	}
	for _, kind := range []string{"replicate", "experiment", "commit", "stream", "set", "delete", "point", "tree"} {
		if kinds[kind] == 0 {
			t.Errorf("doc.go has no sample of %s", kind)
		}
	}
}
