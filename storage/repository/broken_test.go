package repository

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/replicate/replicate"
)

// A broken repository has two commits. One is damaged by a test; the other, and every file that the damage does not touch, must stay readable.
type broken struct {
	*builder
	row    Row // of the commit that is damaged
	tree   *Tree
	key    string // of the object that holds its record
	record Record
	other  Row
}

func newBroken(t *testing.T) *broken {
	b := newBuilder(t, memStore(t))
	b.chunk = 20_000
	fakes := []fake{fakeSmall("group/a", "small a"), fakeSmall("group/b", "small b"), fakeDir("group"),
		fakeFile("chunks", string(noise(1, 50_000))), fakeFile("whole", string(noise(2, 20_000))), fakeFile("recipe", string(noise(3, 300_000)))}
	v := &broken{builder: b, row: b.tree(fakes...), other: b.tree(fakeFile("other", "other"))}
	v.record = b.commit(v.row)
	v.key = b.log(v.record)
	b.log(b.commit(v.other))
	_, v.tree = b.opened(v.row)
	return v
}

// pack is the key of the pack that everything of the damaged commit lies in.
func (v *broken) packKey() string { return packKey(v.row.Packs[0]) }

// damage changes an object.
func (v *broken) damage(key string, change func(data []byte) []byte) {
	v.put(key, change(bytes.Clone(v.get(key))))
}

// flip returns a change of one bit, counted from the end if at is negative.
func flip(at int) func([]byte) []byte {
	return func(data []byte) []byte {
		if at < 0 {
			at += len(data)
		}
		data[at] ^= 4
		return data
	}
}

func cut(n int) func([]byte) []byte { return func(data []byte) []byte { return data[:n] } }

var otherKeys = regexp.MustCompile(`\b(log|index)/[0-9a-f-]{32,}`)

// names replaces what differs from run to run.
func (v *broken) names(text string) string {
	commit := v.record.Commit
	return strings.NewReplacer(v.row.Packs[0].String(), "PACK", v.row.Packs[0].String()[:12]+"…", "PACK", string(commit.ID), "COMMIT",
		string(commit.Experiment), "EXPERIMENT").Replace(otherKeys.ReplaceAllString(strings.ReplaceAll(text, v.key, "LOG"), "$1/…"))
}

// state returns every sentence that a user of the repository can see, one a line, and checks that the other commit is readable.
func (v *broken) state() (lines []string) {
	say := func(format string, args ...any) { lines = append(lines, v.names(fmt.Sprintf(format, args...))) }
	r, err := Open(v.t.Context(), v.store)
	if err != nil {
		v.t.Fatal(err)
	}
	records := 0
	for batch, err := range r.Sync(v.t.Context(), nothingKnown) {
		if err != nil {
			v.t.Fatal(err)
		}
		if batch.Err != nil {
			say("sync: %v", batch.Err)
		}
		records += len(batch.Records)
	}
	if records != 2 {
		say("sync: %d records", records)
	}
	if _, err := r.Tree(v.t.Context(), v.row); err != nil {
		say("tree: %v", err)
	}
	for i := range v.tree.Entries {
		if e := &v.tree.Entries[i]; e.Kind == File {
			if err := r.WriteFile(v.t.Context(), new(bytes.Buffer), e); err != nil {
				say("%v", err)
				if hint := replicate.HintOf(err); hint != "replicate check lists every damaged file; others can be read" {
					v.t.Errorf("%v: hint %q", err, hint)
				}
			}
		}
	}
	if _, err := r.Check(v.t.Context(), CheckOptions{ReadData: true}, func(p Problem) {
		say("check: %s", strings.Join(strings.Fields(strings.Join([]string{p.Key, string(p.Experiment), string(p.Commit), p.Path, ": " + p.Err.Error()}, " ")), " "))
	}); err != nil {
		v.t.Fatal(err)
	}
	other, err := r.Tree(v.t.Context(), v.other)
	if err == nil {
		err = r.WriteFile(v.t.Context(), new(bytes.Buffer), other.Lookup("other"))
	}
	if err != nil {
		v.t.Errorf("the other commit: %v", err)
	}
	return lines
}

// segment puts a segment of the damaged commit's record, and more, without taking the input away.
func (v *broken) segment(more ...Record) string {
	v.t.Helper()
	key, object, err := encodeSegment(1, append(more, v.record), []string{v.key})
	if err != nil {
		v.t.Fatal(err)
	}
	v.put(key, object)
	return key
}

func TestBrokenRepositories(t *testing.T) {
	tests := []struct {
		name   string
		damage func(v *broken)
		want   []string
	}{
		{"nothing", func(v *broken) {}, nil},
		{"missing pack", func(v *broken) { v.store.Delete(v.t.Context(), v.packKey()) }, []string{
			"tree: read the list of files: pack PACK is missing",
			"read chunks: pack PACK is missing",
			"read group/a: pack PACK is missing",
			"read group/b: pack PACK is missing",
			"read recipe: pack PACK is missing",
			"read whole: pack PACK is missing",
			"check: EXPERIMENT COMMIT : the list of files: pack PACK is missing",
		}},
		{"pack cut off", func(v *broken) { v.damage(v.packKey(), cut(30_000)) }, []string{
			"tree: read the list of files: pack PACK is cut off",
			"read chunks: pack PACK is cut off",
			"read group/a: pack PACK is cut off",
			"read group/b: pack PACK is cut off",
			"read recipe: pack PACK is cut off",
			"read whole: pack PACK is cut off",
			"check: EXPERIMENT COMMIT : the list of files: pack PACK is cut off",
		}},
		{"empty pack", func(v *broken) { v.put(v.packKey(), nil) }, []string{
			"tree: read the list of files: pack PACK is cut off",
			"read chunks: pack PACK is cut off",
			"read group/a: pack PACK is cut off",
			"read group/b: pack PACK is cut off",
			"read recipe: pack PACK is cut off",
			"read whole: pack PACK is cut off",
			"check: EXPERIMENT COMMIT : the list of files: pack PACK is cut off",
		}},
		{"bit of a chunk", func(v *broken) { v.damage(v.packKey(), flip(int(v.tree.Lookup("chunks").Extents[1].Off)+77)) }, []string{
			"read chunks: 20001 bytes of pack PACK at 20025 are damaged: the bytes are not those that were stored",
			"check: EXPERIMENT COMMIT chunks : 20001 bytes of pack PACK at 20025 are damaged: the bytes are not those that were stored",
		}},
		{"bit of a whole file", func(v *broken) { v.damage(v.packKey(), flip(int(v.tree.Lookup("whole").Extents[0].Off)+77)) }, []string{
			"read whole: 20001 bytes of pack PACK at 350641 are damaged: the bytes are not those that were stored",
			"check: EXPERIMENT COMMIT whole : 20001 bytes of pack PACK at 350641 are damaged: the bytes are not those that were stored",
		}},
		{"codec of a chunk", func(v *broken) { v.damage(v.packKey(), flip(int(v.tree.Lookup("chunks").Extents[1].Off))) }, []string{
			"read chunks: 20001 bytes of pack PACK at 20025 are damaged: codec 4 needs a newer replicate",
			"check: EXPERIMENT COMMIT chunks : 20001 bytes of pack PACK at 20025 are damaged: codec 4 needs a newer replicate",
		}},
		{"bit of a small file", func(v *broken) { v.damage(v.packKey(), flip(int(v.tree.Lookup("group/a").Extents[0].Off)+1)) }, []string{
			"read group/a: 15 bytes of pack PACK at 370642 are damaged: the bytes are not those that were stored",
			"check: EXPERIMENT COMMIT group/a : 15 bytes of pack PACK at 370642 are damaged: the bytes are not those that were stored",
		}},
		{"bit of a recipe", func(v *broken) { v.damage(v.packKey(), flip(int(v.tree.Lookup("recipe").Recipe.Off)+77)) }, []string{
			"read recipe: 599 bytes of pack PACK at 350042 are damaged: the bytes are not those that were stored",
			"check: EXPERIMENT COMMIT recipe : 599 bytes of pack PACK at 350042 are damaged: the bytes are not those that were stored",
		}},
		{"bit of a tree", func(v *broken) { v.damage(v.packKey(), flip(int(v.row.Tree[0].Off)+77)) }, []string{
			"tree: read the list of files: 608 bytes of pack PACK at 370657 are damaged: the bytes are not those that were stored",
			"check: EXPERIMENT COMMIT : the list of files: 608 bytes of pack PACK at 370657 are damaged: the bytes are not those that were stored",
		}},
		{"bit of a directory", func(v *broken) { v.damage(v.packKey(), flip(-packTrailer-10)) }, []string{
			"check: EXPERIMENT COMMIT : read pack PACK: directory at byte 371265 is another pack's, or damaged",
		}},
		{"bit of a trailer", func(v *broken) { v.damage(v.packKey(), flip(-packTrailer+1)) }, []string{
			"check: EXPERIMENT COMMIT : read pack PACK: trailer at byte 372192: impossible directory",
		}},
		{"end of a trailer", func(v *broken) { v.damage(v.packKey(), flip(-1)) }, []string{
			"check: EXPERIMENT COMMIT : read pack PACK: trailer at byte 372192: not the end of a pack",
		}},
		{"record cut off", func(v *broken) { v.damage(v.key, cut(100)) }, []string{
			"sync: read LOG: the bytes are not those that were stored",
			"sync: 1 records",
			"check: LOG : read LOG: the bytes are not those that were stored",
		}},
		{"empty object of records", func(v *broken) { v.put(v.key, nil) }, []string{
			"sync: read LOG: the bytes are not those that were stored",
			"sync: 1 records",
			"check: LOG : read LOG: the bytes are not those that were stored",
		}},
		{"bit of a record", func(v *broken) { v.damage(v.key, flip(50)) }, []string{
			"sync: read LOG: the bytes are not those that were stored",
			"sync: 1 records",
			"check: LOG : read LOG: the bytes are not those that were stored",
		}},
		{"record that is no JSON", func(v *broken) { v.log(Record{Line: []byte("{\"commit\":")}) }, []string{
			"sync: read log/…: line at byte 0: read record: byte 10: want a string",
			"check: log/… : read log/…: line at byte 0: read record: byte 10: want a string",
		}},
		{"record without an end", func(v *broken) {
			object := []byte(`{"delete":"`)
			v.put(logKey(object), object)
		}, []string{
			"sync: read log/…: line at byte 0 has no end",
			"check: log/… : read log/…: line at byte 0 has no end",
		}},
		{"unknown kind", func(v *broken) { v.log(Record{Line: []byte(`{"wormhole":1}`)}) }, []string{
			"sync: 3 records",
		}},
		{"foreign keys", func(v *broken) {
			for _, key := range []string{"log/README", "index/0-00000000000000000000000000000000", "index/x", "pack/zz", "pack/ab/cd", "other/thing", "gc/notes", "live/x", "log/0000/0000"} {
				v.put(key, []byte("not ours"))
			}
		}, nil},
		{"segment beside its input", func(v *broken) { v.segment() }, []string{
			"sync: 3 records",
		}},
		{"segment whose digest lies", func(v *broken) {
			v.segment(Record{Digest: &Digest{}, Line: []byte(`{"digest":"` + string(v.record.Commit.Experiment) + `","commits":99,"seqs":[0,98]}`)})
		}, []string{
			"sync: 4 records",
			"check: index/… : what it says of experiment fef55fe is not what its rows say: ls may show wrong numbers until the object is merged",
		}},
		{"segment cut off", func(v *broken) { v.damage(v.segment(), cut(200)) }, []string{
			"sync: read index/…: cut off at byte 381",
			"check: index/… : read index/…: cut off at byte 381",
		}},
		{"empty segment", func(v *broken) { v.put(v.segment(), nil) }, []string{
			"sync: read index/…: the first 96 bytes are not those that were stored",
			"check: index/… : read index/…: the first 96 bytes are not those that were stored",
		}},
		{"bit of a segment's head", func(v *broken) { v.damage(v.segment(), flip(20)) }, []string{
			"sync: read index/…: the first 96 bytes are not those that were stored",
			"check: index/… : read index/…: the first 96 bytes are not those that were stored",
		}},
		{"bit of a segment's block", func(v *broken) { v.damage(v.segment(), flip(segmentFirst+20)) }, []string{
			"sync: read index/…: block at byte 96: fse decompress returned: unexpected EOF",
			"check: index/… : read index/…: block at byte 96: fse decompress returned: unexpected EOF",
		}},
		{"bit of a segment's directory", func(v *broken) { v.damage(v.segment(), flip(-20)) }, []string{
			"sync: read index/…: directory at byte 373: the bytes are not those that were stored",
			"check: index/… : read index/…: directory at byte 373: the bytes are not those that were stored",
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := newBroken(t)
			tt.damage(v)
			if got := v.state(); !slices.Equal(got, tt.want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
			}
		})
	}
}
