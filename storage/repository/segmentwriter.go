package repository

import (
	"bytes"
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/replicate/replicate"
)

// encodeSegment returns the segment of records, which need their lines and hashes, and its key. They are sorted; of equal lines one is kept. Digests
// are given as records of their lines. inputs are the keys of the objects that the segment is to stand for.
func encodeSegment(generation int, records []Record, inputs []string) (key string, object []byte, err error) {
	return encodeOrigin(generation, records, origin{inputs: inputs})
}

// An origin says what a segment was made of.
type origin struct {
	inputs []string // keys of objects
	part   bool     // other segments hold the rest of what they say

	digests bool // the records have a digest of every experiment with commits or streams
}

// errLargeSegment says that records must become several segments.
var errLargeSegment = errors.New("too large for one segment")

func encodeOrigin(generation int, records []Record, from origin) (key string, object []byte, err error) {
	w := segmentWriter{object: make([]byte, segmentFirst)}
	w.directory = append(w.directory, `{"segment":1,`...)
	if from.part {
		w.directory = append(w.directory, `"part":true,`...)
	}
	if from.digests {
		w.directory = append(w.directory, `"digests":true,`...)
	}
	w.directory = append(w.directory, `"inputs":[`...)
	for i, input := range from.inputs {
		if i > 0 {
			w.directory = append(w.directory, ',')
		}
		w.directory = replicate.AppendJSONString(w.directory, input)
	}
	w.directory = append(w.directory, "]}\n"...)
	raw := 0
	all := placed(records)
	if from.digests {
		all = append(all, names(all)...)
	}
	for _, p := range all {
		w.add(p)
		raw += len(p.Line) + 1
	}
	w.flush()
	if len(w.object)+len(w.directory) > MaxObject || len(w.directory) > maxRaw || raw > maxSegmentRaw {
		err = errLargeSegment
	} else if generation < 1 || generation > lastGeneration {
		err = errors.New("no such generation")
	}
	if err != nil {
		return "", nil, replicate.Errorf(replicate.Usage, "write segment of generation %d, %d records: %w", generation, len(records), err)
	}
	key, object = w.finish(generation)
	return key, object, nil
}

// A position is where in a segment a record belongs.
type position struct {
	*Record
	kind       string // of its block
	experiment replicate.ID
	rank       int64 // among the records of an experiment
	name       string
}

// position says where r belongs: in the head by what it is about; commits by (experiment, seq, id), streams by (experiment, stream, writer, from).
func (r *Record) position() position {
	p := position{Record: r, kind: blockHead}
	switch {
	case r.Commit != nil:
		p.kind, p.experiment, p.rank, p.name = blockCommits, r.Commit.Experiment, r.Commit.Seq, string(r.Commit.ID)
	case r.Stream != nil:
		s := r.Stream
		p.kind, p.experiment, p.rank, p.name = blockStreams, s.Experiment, s.From, string(s.Stream)+"\x00"+s.Writer
	case r.Experiment != nil:
		p.experiment = r.Experiment.ID
	case r.Set != nil:
		p.experiment, p.rank, p.name = r.Set.Experiment, 1, r.Set.At.UTC().Format("2006-01-02T15:04:05.000000000")
	case r.Delete != nil:
		p.experiment, p.rank = r.Delete.ID, 3
	case r.Digest != nil:
		p.experiment, p.rank = r.Digest.Experiment, 2
	}
	return p
}

var blockOrder = []string{blockHead, blockCommits, blockStreams, blockNames}

func (p position) compare(q position) int {
	c := cmp.Or(
		cmp.Compare(slices.Index(blockOrder, p.kind), slices.Index(blockOrder, q.kind)),
		strings.Compare(string(p.experiment), string(q.experiment)),
	)
	if c != 0 {
		return c
	}
	rank, name := cmp.Compare(p.rank, q.rank), strings.Compare(p.name, q.name)
	if p.kind == blockStreams {
		rank, name = name, rank
	}
	return cmp.Or(rank, name, bytes.Compare(p.Hash[:], q.Hash[:]))
}

// placed returns the records in the order of a segment, each line once.
func placed(records []Record) []position {
	all := make([]position, len(records))
	for i := range records {
		all[i] = records[i].position()
	}
	slices.SortFunc(all, position.compare)
	return slices.CompactFunc(all, func(p, q position) bool { return p.Hash == q.Hash })
}

// names returns the lines of the blocks that find a commit by the beginning of its id: [beginning, beginning of its experiment], by id.
func names(all []position) (lines []position) {
	var last replicate.ID
	for _, p := range all {
		if p.Commit == nil || p.Commit.ID == last { // rows of one commit are neighbours
			continue
		}
		last = p.Commit.ID
		line := append(append([]byte(`["`), short(p.Commit.ID)...), `","`...)
		line = append(append(line, short(p.Commit.Experiment)...), `"]`...)
		lines = append(lines, position{Record: &Record{Line: line}, kind: blockNames, experiment: p.Commit.ID})
	}
	slices.SortFunc(lines, func(p, q position) int { return strings.Compare(string(p.experiment), string(q.experiment)) })
	return lines
}

// short is the beginning of an id that stands for it in the blocks of names.
func short(id replicate.ID) replicate.ID { return id[:min(len(id), shortName)] }

type segmentWriter struct {
	object    []byte // from the first frame on, which is filled in at the end
	head      int    // where the head ends
	directory []byte
	lines     []byte // of the block in the making
	block     segmentBlock
}

func (w *segmentWriter) add(p position) {
	if len(w.lines) > 0 && (p.kind != w.block.Kind || len(w.lines)+len(p.Line)+1 > maxBlock) {
		w.flush()
	}
	if len(w.lines) == 0 {
		w.block.Kind, w.block.First = p.kind, p.experiment
	}
	w.block.Last = p.experiment
	w.lines = append(append(w.lines, p.Line...), '\n')
}

func (w *segmentWriter) flush() {
	if len(w.lines) == 0 {
		return
	}
	b := w.block
	b.Off, b.Raw, b.Hash = uint32(len(w.object)), uint32(len(w.lines)), hashOf(w.lines)
	w.object = encoder1().EncodeAll(w.lines, w.object)
	b.Stored = uint32(len(w.object)) - b.Off
	if b.Kind == blockHead {
		w.head = len(w.object) - segmentFirst
	}
	w.lines = w.lines[:0]
	d := append(append(w.directory, `{"kind":"`...), b.Kind...)
	d = append(d, '"')
	for _, m := range []struct {
		key string
		n   uint32
	}{{`,"off":`, b.Off}, {`,"stored":`, b.Stored}, {`,"raw":`, b.Raw}} {
		d = strconv.AppendUint(append(d, m.key...), uint64(m.n), 10)
	}
	d = append(append(d, `,"first":"`...), b.First...)
	d = append(append(d, `","last":"`...), b.Last...)
	d = appendHex(append(d, `","hash":"`...), b.Hash[:])
	w.directory = append(d, "\"}\n"...)
}

// finish appends the directory and fills in the first frame.
func (w *segmentWriter) finish(generation int) (key string, object []byte) {
	stored := encoder1().EncodeAll(w.directory, nil)
	h := segmentHeader{
		Head: uint32(w.head), Off: uint32(len(w.object)), Stored: uint32(len(stored)), Raw: uint32(len(w.directory)),
		HeadHash:  hashOf(w.object[segmentFirst : segmentFirst+w.head]),
		Directory: hashOf(w.directory),
	}
	object = append(appendSkippable(w.object, len(stored)), stored...)
	first := h.append(object[:0])
	return indexKey(generation, first), object
}
