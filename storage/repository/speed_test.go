package repository

import (
	"fmt"
	"testing"

	"github.com/replicate/replicate"
)

// typicalRecord is an experiment as the storage design counts them: 8 parameters.
func typicalRecord(tb testing.TB) Record {
	tb.Helper()
	e := sampleRecords()["experiment"].Experiment
	r := ExperimentRow{Row: e.Row, Experiment: replicate.Experiment{ID: idA, Created: e.Created, User: "dev", Host: "gpu1",
		Command: []string{"train.py", "--lr", "0.01"}, Metric: e.Metric}}
	r.Tree, r.Packs = r.Tree[:1], r.Packs[:1]
	for i := range 8 {
		r.Params = append(r.Params, replicate.Member{Name: fmt.Sprint("param_", i), Value: replicate.Float(float64(i) / 8)})
	}
	rec, err := Record{Experiment: &r}.Encode()
	if err != nil {
		tb.Fatal(err)
	}
	return rec
}

func BenchmarkParseExperiment(b *testing.B) { benchmarkParse(b, typicalRecord(b)) }

func BenchmarkParseCommit(b *testing.B) {
	c := *sampleRecords()["commit"].Commit
	c.Metrics = nil
	for _, name := range []string{"loss", "accuracy", "val/loss", "val/accuracy"} {
		c.Metrics = append(c.Metrics, replicate.Member{Name: name, Value: replicate.Float(0.116912345)})
	}
	c.Tree, c.Packs = c.Tree[:1], c.Packs[:1]
	r, err := Record{Commit: &c}.Encode()
	if err != nil {
		b.Fatal(err)
	}
	benchmarkParse(b, r)
}

func benchmarkParse(b *testing.B, r Record) {
	b.SetBytes(int64(len(r.Line)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := ParseRecord(r.Line); err != nil {
			b.Fatal(err)
		}
	}
}

// typicalTree is a tree of n files in 50 directories, as the storage design counts them.
func typicalTree(n int) *Tree {
	t := &Tree{}
	for i := range n {
		if i%(n/50) == 0 {
			t.Entries = append(t.Entries, Entry{Path: fmt.Sprintf("package-%02d", i/(n/50)), Kind: Dir, Mode: 0o755, Mtime: 1772600767123456789})
		}
		r := Ref{Pack: hashOf([]byte{byte(i / 1000)}), Off: uint32(24 + i*100), Len: 50_001, Raw: 131_072}
		t.Entries = append(t.Entries, Entry{Path: fmt.Sprintf("package-%02d/module_%06d.py", i/(n/50), i), Mode: 0o644, Size: 1000, Mtime: 1772600767123456789 + int64(i),
			Hash: hashOf([]byte(fmt.Sprint(i))), Extents: []Extent{{Ref: r, From: uint32(i % 100)}}})
	}
	return t
}

func BenchmarkTree(b *testing.B) {
	tree := typicalTree(5000)
	raws, _, err := encodeTree(tree)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("encode", func(b *testing.B) {
		b.SetBytes(int64(len(raws[0])))
		b.ReportAllocs()
		for b.Loop() {
			if _, _, err := encodeTree(tree); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.SetBytes(int64(len(raws[0])))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := decodeTree(raws, idHash); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("lookup", func(b *testing.B) {
		for b.Loop() {
			if tree.Lookup("package-25/module_002511.py") == nil {
				b.Fatal("not found")
			}
		}
	})
}

var idHash = hashOf([]byte(idA))

func BenchmarkSegment(b *testing.B) {
	key, object, err := encodeSegment(1, manyRecords(b, 2000), nil)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(object)))
	for b.Loop() {
		if _, _, err := parseSegment(key, object); err != nil {
			b.Fatal(err)
		}
	}
}
