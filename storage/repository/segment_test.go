package repository

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/replicate/replicate"
)

// manyRecords returns n experiments with a digest, three commits and a stream row each, and one record of an unknown kind.
func manyRecords(t testing.TB, n int) []Record {
	t.Helper()
	var all []Record
	add := func(r Record) {
		r, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	line := func(text string) {
		r, err := ParseRecord([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	samples := sampleRecords()
	for i := range n {
		id := replicate.ID(fmt.Sprintf("%032x", i*7919))
		e := *samples["experiment"].Experiment
		e.ID = id
		add(Record{Experiment: &e})
		line(fmt.Sprintf(`{"digest":"%s","seq":2}`, id))
		for seq := range 3 {
			c := *samples["commit"].Commit
			c.ID, c.Experiment, c.Seq = replicate.ID(fmt.Sprintf("%032x", i*3+seq+1<<40)), id, int64(seq)
			add(Record{Commit: &c})
		}
		s := *samples["stream"].Stream
		s.Experiment = id
		add(Record{Stream: &s})
		d := *samples["set"].Set
		d.Experiment = id
		add(Record{Set: &d})
	}
	add(samples["delete"])
	line(`{"later":"` + strings.Repeat("x", maxBlock) + `"}`)
	return all
}

func TestSegmentReadsBack(t *testing.T) {
	records := manyRecords(t, 500)
	given := append(append([]Record{}, records...), records[:100]...)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(given), func(i, j int) { given[i], given[j] = given[j], given[i] })
	inputs := []string{"log/0123", "index/1-4567"}
	key, object, err := encodeSegment(2, given, inputs)
	if err != nil {
		t.Fatal(err)
	}
	again, same, err := encodeSegment(2, records, inputs)
	if err != nil || again != key || !bytes.Equal(same, object) {
		t.Errorf("the order of records or a duplicate changes the segment: %s, %s, %v", key, again, err)
	}
	gotInputs, got, err := parseSegment(key, object)
	if err != nil || !reflect.DeepEqual(gotInputs, inputs) {
		t.Fatalf("%v, inputs %v", err, gotInputs)
	}
	want := make([]Record, 0, len(records))
	for _, p := range placed(records) {
		want = append(want, *p.Record)
	}
	if len(want) != len(records) || !reflect.DeepEqual(got, want) {
		t.Errorf("%d records instead of %d, or others", len(got), len(records))
	}
	checkSegmentOrder(t, got)
	checkZstdCat(t, object, got)
}

func checkSegmentOrder(t *testing.T, records []Record) {
	t.Helper()
	section := 0
	for i := range records {
		r := &records[i]
		now := map[bool]int{true: 1}[r.Commit != nil] + map[bool]int{true: 2}[r.Stream != nil]
		if now < section {
			t.Fatalf("record %d of section %d behind section %d", i, now, section)
		}
		section = now
		if c := r.Commit; c != nil && i > 0 && records[i-1].Commit != nil {
			if b := records[i-1].Commit; b.Experiment > c.Experiment || b.Experiment == c.Experiment && b.Seq >= c.Seq {
				t.Errorf("commit %d of %s behind %d of %s", c.Seq, c.Experiment, b.Seq, b.Experiment)
			}
		}
	}
}

// checkZstdCat reads the object as zstdcat does.
func checkZstdCat(t *testing.T, object []byte, records []Record) {
	t.Helper()
	d, err := zstd.NewReader(bytes.NewReader(object))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	text, err := io.ReadAll(d)
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	for _, r := range records {
		want = append(append(want, r.Line...), '\n')
	}
	if !bytes.Equal(text, want) {
		t.Errorf("zstdcat prints %d bytes, the lines are %d", len(text), len(want))
	}
}

func TestSegmentBlocksAreNarrow(t *testing.T) {
	key, object, err := encodeSegment(1, manyRecords(t, 300), nil)
	if err != nil {
		t.Fatal(err)
	}
	h, err := parseSegmentHeader(key, object[:segmentFirst])
	if err != nil {
		t.Fatal(err)
	}
	d, err := h.parseDirectory(object[h.Off+skippableHead:])
	if err != nil {
		t.Fatal(err)
	}
	if hashOf(object[segmentFirst:segmentFirst+int(h.Head)]) != h.HeadHash {
		t.Error("the hash of the head is not its hash")
	}
	for i, b := range d.Blocks {
		lines, err := b.decode(object[b.Off : b.Off+b.Stored])
		if err != nil || b.Raw > maxBlock && bytes.Count(lines, []byte{'\n'}) > 1 {
			t.Errorf("block %d: %v, %d bytes", i, err, b.Raw)
		}
		if inHead := b.Off < uint32(segmentFirst)+h.Head; inHead != (b.Kind == blockHead) {
			t.Errorf("block %d of kind %s lies on the wrong side of the head's end", i, b.Kind)
		}
		if i > 0 && d.Blocks[i-1].Kind == b.Kind && d.Blocks[i-1].Last > b.First {
			t.Errorf("block %d begins with %s behind %s", i, b.First, d.Blocks[i-1].Last)
		}
	}
}

func TestSegmentDamageStaysLocal(t *testing.T) {
	records := manyRecords(t, 300)
	key, object, err := encodeSegment(1, records, nil)
	if err != nil {
		t.Fatal(err)
	}
	h, _ := parseSegmentHeader(key, object)
	object[segmentFirst+int(h.Head)/2] ^= 1
	_, got, err := parseSegment(key, object)
	if replicate.KindOf(err) != replicate.Corrupt || !strings.Contains(err.Error(), "block at byte ") {
		t.Errorf("error %v", err)
	}
	if len(got) < len(records)/2 || len(got) >= len(records) {
		t.Errorf("%d records of %d", len(got), len(records))
	}
	for _, at := range []int{9, segmentFirst - 1, len(object) - 1} {
		broken := bytes.Clone(object)
		broken[at] ^= 1
		if _, got, err := parseSegment(key, broken); err == nil || len(got) > 0 {
			t.Errorf("byte %d changed: %d records, %v", at, len(got), err)
		}
	}
	for _, n := range []int{0, 1, segmentFirst, len(object) - 1} {
		if _, got, err := parseSegment(key, object[:n]); err == nil || len(got) > 0 {
			t.Errorf("cut to %d bytes: %d records, %v", n, len(got), err)
		}
	}
}

// parseSegment reads a whole segment.
func parseSegment(key string, object []byte) (inputs []string, records []Record, err error) {
	h, err := parseSegmentHeader(key, object)
	if err != nil {
		return nil, nil, err
	}
	from := int(h.Off) + skippableHead
	if from+int(h.Stored) != len(object) {
		return nil, nil, replicate.Errorf(replicate.Corrupt, "%d bytes instead of %d", len(object), from+int(h.Stored))
	}
	d, err := h.parseDirectory(object[from:])
	if err != nil {
		return nil, nil, err
	}
	records, errs := d.records(object)
	return d.Inputs, records, errors.Join(errs...)
}
