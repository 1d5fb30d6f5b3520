package repository

import (
	"context"
	"errors"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/mem"
	"github.com/replicate/replicate/storage/storagetest"
)

// mergeOnce merges all there is of one generation, into segments of at most limit bytes.
func mergeOnce(ctx context.Context, r *Repository, generation, limit int) error {
	prefix := logPrefix
	if generation > 0 {
		prefix = generationPrefix(generation)
	}
	objects, err := r.list(ctx, prefix)
	if err != nil {
		return err
	}
	m := merger{repository: r, generation: generation, limit: limit}
	return m.merge(ctx, objects)
}

// linesOf is the set of all lines that a new reader sees, digests excepted.
func linesOf(t *testing.T, r *Repository) map[string]bool {
	t.Helper()
	lines := map[string]bool{}
	records, damage := syncAll(t, r, nothingKnown)
	if damage != nil {
		t.Fatal(damage)
	}
	for _, some := range records {
		for _, line := range some {
			if !strings.HasPrefix(line, `{"digest":`) {
				lines[line] = true
			}
		}
	}
	return lines
}

// scattered puts records in small objects, and returns what readers see.
func (b *builder) scattered(random *mrand.Rand, records []Record) map[string]bool {
	b.t.Helper()
	lines := map[string]bool{}
	for len(records) > 0 {
		n := 1 + random.IntN(min(5, len(records)))
		for _, r := range records[:n] {
			if r.Digest == nil {
				lines[string(r.Line)] = true
			}
		}
		b.log(slices.DeleteFunc(slices.Clone(records[:n]), func(r Record) bool { return r.Digest != nil })...)
		records = records[n:]
	}
	return lines
}

// TestMergeChangesNoMeaning merges random objects of random generations, into whole segments and into many parts.
func TestMergeChangesNoMeaning(t *testing.T) {
	for seed := range uint64(30) {
		random := mrand.New(mrand.NewPCG(seed, 7))
		b := newBuilder(t, memStore(t))
		records := manyRecords(t, 1+random.IntN(20))
		want := b.scattered(random, append(records, records[:random.IntN(len(records))]...))
		for range 20 {
			g := random.IntN(4)
			prefix := logPrefix
			if g > 0 {
				prefix = generationPrefix(g)
			}
			objects, err := b.repo.list(t.Context(), prefix)
			if err != nil {
				t.Fatal(err)
			}
			random.Shuffle(len(objects), func(i, j int) { objects[i], objects[j] = objects[j], objects[i] })
			m := merger{repository: b.repo, generation: g, limit: []int{1000, 3000, MaxObject}[random.IntN(3)]}
			if err := m.merge(t.Context(), objects[:random.IntN(len(objects)+1)]); err != nil {
				t.Fatal(err)
			}
			if got := linesOf(t, b.repo); !maps.Equal(got, want) {
				t.Fatalf("seed %d: %d lines instead of %d", seed, len(got), len(want))
			}
		}
	}
}

// TestMergeSurvivesStops lets a merge die at each of its calls, before and after that took effect: nothing is ever missing, and the next one
// finishes.
func TestMergeSurvivesStops(t *testing.T) {
	random := mrand.New(mrand.NewPCG(1, 1))
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			b := newBuilder(t, memStore(t))
			want := b.scattered(random, manyRecords(t, 8))
			stop := &storagetest.Stop{N: n, After: after}
			r, err := Open(t.Context(), b.store)
			if err != nil {
				t.Fatal(err)
			}
			r.store = storagetest.Stopped(b.store, stop)
			err = mergeOnce(t.Context(), r, 0, 1000)
			if stop.Reached() != errors.Is(err, storagetest.ErrStopped) {
				t.Fatalf("call %d: %v", n, err)
			}
			if got := linesOf(t, b.repo); !maps.Equal(got, want) {
				t.Fatalf("stopped at call %d: %d lines instead of %d", n, len(got), len(want))
			}
			for g := range 3 {
				if err := mergeOnce(t.Context(), b.repo, g, MaxObject); err != nil {
					t.Fatal(err)
				}
			}
			if got := linesOf(t, b.repo); !maps.Equal(got, want) || len(storagetest.Keys(t, b.store, indexPrefix, "")) != 1 {
				t.Fatalf("merged after a stop at call %d: %d lines instead of %d", n, len(got), len(want))
			}
			if !stop.Reached() {
				break
			}
		}
	}
}

// TestMergeNeedsItsOutput: nothing is deleted when what was put cannot be read back.
func TestMergeNeedsItsOutput(t *testing.T) {
	isSegment := func(key string) bool { return strings.HasPrefix(key, indexPrefix) }
	for name, evil := range map[string]func(s storage.Store) storage.Store{
		"forgetful": func(s storage.Store) storage.Store { return storagetest.Forgetful(s, isSegment) },
		"cut off":   func(s storage.Store) storage.Store { return storagetest.Lying(t, s, storagetest.CutOff, isSegment) },
		"size":      func(s storage.Store) storage.Store { return storagetest.Lying(t, s, storagetest.WrongSize, isSegment) },
	} {
		b := newBuilder(t, memStore(t))
		want := b.scattered(mrand.New(mrand.NewPCG(1, 1)), manyRecords(t, 4))
		r, err := Open(t.Context(), b.store)
		if err != nil {
			t.Fatal(err)
		}
		logs := len(storagetest.Keys(t, b.store, logPrefix, ""))
		r.store = evil(b.store)
		if err := mergeOnce(t.Context(), r, 0, MaxObject); err == nil {
			t.Errorf("%s: no error", name)
		}
		if got := linesOf(t, b.repo); !maps.Equal(got, want) || len(storagetest.Keys(t, b.store, logPrefix, "")) != logs {
			t.Errorf("%s: %d lines instead of %d", name, len(got), len(want))
		}
	}
}

func TestMergeDrops(t *testing.T) {
	type laid struct {
		*builder
		experiment replicate.ID
	}
	stretch := func(l laid, from, to int64, before time.Duration) Record {
		return l.record(Record{Stream: &StreamRow{Stream: MetricsStream, Experiment: l.experiment, Writer: "00000000000000aa", From: from, To: to,
			Inline: []byte{1}, Row: Row{Before: l.now.Add(before)}}})
	}
	deletion := func(l laid, id replicate.ID, at time.Duration) Record {
		return l.record(Record{Delete: &Delete{ID: id, At: l.now.Add(at)}})
	}
	commit := func(l laid, id replicate.ID, before time.Duration) Record {
		return l.record(Record{Commit: &CommitRow{Commit: replicate.Commit{ID: id, Experiment: l.experiment}, Row: Row{Before: l.now.Add(before)}}})
	}
	const old, recent = -8 * 24 * time.Hour, -24 * time.Hour
	tests := []struct {
		name    string
		records func(l laid) (together, apart, dropped []Record)
	}{
		{"killed long ago", func(l laid) (together, apart, dropped []Record) {
			c := commit(l, l.newID(), old)
			return []Record{c, deletion(l, c.Commit.ID, old)}, nil, []Record{c}
		}},
		{"killed with its experiment", func(l laid) (together, apart, dropped []Record) {
			c, s := commit(l, l.newID(), old), stretch(l, 0, 1, old)
			return []Record{c, s, deletion(l, l.experiment, old)}, nil, []Record{c, s}
		}},
		{"killed lately", func(l laid) (together, apart, dropped []Record) {
			c := commit(l, l.newID(), recent)
			return []Record{c, deletion(l, c.Commit.ID, recent)}, nil, nil
		}},
		{"killed elsewhere", func(l laid) (together, apart, dropped []Record) {
			c := commit(l, l.newID(), old)
			return []Record{c, commit(l, l.newID(), 0)}, []Record{deletion(l, c.Commit.ID, old)}, nil
		}},
		{"published again after its deletion", func(l laid) (together, apart, dropped []Record) {
			c := commit(l, l.newID(), old)
			return []Record{c, commit(l, c.Commit.ID, old+2*time.Hour), deletion(l, c.Commit.ID, old)}, nil, []Record{c}
		}},
		{"superseded", func(l laid) (together, apart, dropped []Record) {
			a, b := stretch(l, 0, 1, -2), stretch(l, 1, 2, -1)
			return []Record{a, b, stretch(l, 0, 2, 0)}, nil, []Record{a, b}
		}},
		{"superseded elsewhere", func(l laid) (together, apart, dropped []Record) {
			return []Record{stretch(l, 0, 1, -2), stretch(l, 1, 2, -1)}, []Record{stretch(l, 0, 2, 0)}, nil
		}},
		{"superseded by what a deletion could kill alone", func(l laid) (together, apart, dropped []Record) {
			a := stretch(l, 1, 2, -2)
			return []Record{stretch(l, 0, 1, 0), a, stretch(l, 0, 2, -1)}, nil, []Record{a}
		}},
		{"two of one range", func(l laid) (together, apart, dropped []Record) {
			a, b := stretch(l, 0, 2, 0), l.record(Record{Stream: &StreamRow{Stream: MetricsStream, Experiment: l.experiment,
				Writer: "00000000000000aa", Seq: 5, To: 2, Inline: []byte{1}, Row: Row{Before: l.now}}})
			if slices.Compare(a.Hash[:], b.Hash[:]) < 0 {
				a, b = b, a
			}
			return []Record{a, b}, nil, []Record{a}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBuilder(t, memStore(t))
			together, apart, dropped := tt.records(laid{b, b.newID()})
			want := map[string]bool{}
			for _, r := range together {
				b.log(r)
				want[string(r.Line)] = true
			}
			key, object, err := encodeSegment(5, apart, nil)
			if err != nil {
				t.Fatal(err)
			}
			b.put(key, object)
			for _, r := range apart {
				want[string(r.Line)] = true
			}
			for _, r := range dropped {
				delete(want, string(r.Line))
			}
			if err := mergeOnce(t.Context(), b.repo, 0, MaxObject); err != nil {
				t.Fatal(err)
			}
			if got := linesOf(t, b.repo); !maps.Equal(got, want) {
				t.Errorf("got\n%v\nwant\n%v", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
			}
		})
	}
}

// TestMergeOfDoubtfulObjects: what is damaged or may be believed later stays as it is, what never can be believed goes.
func TestMergeOfDoubtfulObjects(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row := b.tree(fakeFile("a", "1"))
	good := b.log(b.commit(row))
	late := b.tree(fakeFile("a", "2"))
	late.Before = b.now.Add(-1)
	sound := b.commit(late)
	believed := b.log(sound)
	gone := b.tree(fakeFile("a", "3"))
	gone.Before = b.now.Add(-1)
	hopeless := b.log(b.commit(gone))
	if err := b.store.Delete(t.Context(), packKey(gone.Packs[0])); err != nil {
		t.Fatal(err)
	}
	doomed := b.tree(fakeFile("a", "4"))
	doomed.Before = b.now.Add(-1)
	b.gcList(condemnedSuffix, time.Time{}, doomed.Packs[0])
	doubtful := b.log(b.commit(doomed), b.commit(row))
	damaged := logPrefix + strings.Repeat("0", 32)
	b.put(damaged, []byte("no records"))
	if err := mergeOnce(t.Context(), b.repo, 0, MaxObject); err != nil {
		t.Fatal(err)
	}
	left := storagetest.Keys(t, b.store, logPrefix, "")
	want := []string{doubtful, damaged}
	slices.Sort(want)
	if !slices.Equal(left, want) {
		t.Errorf("left %v, want %v, of %v", left, want, []string{good, believed, hopeless, doubtful, damaged})
	}
	segments := storagetest.Keys(t, b.store, indexPrefix, "")
	if len(segments) != 1 {
		t.Fatal(segments)
	}
	inputs, records, err := parseSegment(segments[0], b.get(segments[0]))
	slices.Sort(inputs)
	taken := []string{good, believed, hopeless}
	slices.Sort(taken)
	if err != nil || !slices.Equal(inputs, taken) {
		t.Errorf("made of %v, %v", inputs, err)
	}
	records = slices.DeleteFunc(records, func(r Record) bool { return r.Digest != nil })
	if len(records) != 2 || !slices.ContainsFunc(records, func(r Record) bool { return r.Hash == sound.Hash }) {
		t.Errorf("%d records", len(records))
	}
}

// TestPartsOfAMergeAreAllRead: a reader that saw one part of what its inputs became does not take the inputs for read.
func TestPartsOfAMergeAreAllRead(t *testing.T) {
	b := newBuilder(t, memStore(t))
	want := b.scattered(mrand.New(mrand.NewPCG(1, 1)), manyRecords(t, 20))
	if err := mergeOnce(t.Context(), b.repo, 0, 1000); err != nil {
		t.Fatal(err)
	}
	parts := storagetest.Keys(t, b.store, indexPrefix, "")
	if len(parts) < 3 {
		t.Fatalf("%d parts", len(parts))
	}
	known, got := map[string]bool{}, map[string]bool{}
	for i := range parts { // they become visible one by one
		hidden := storagetest.Wrap(b.store, storagetest.Hooks{Object: func(o storage.Object) (storage.Object, bool) {
			return o, !slices.Contains(parts[i+1:], o.Key)
		}})
		r := &Repository{store: hidden}
		for batch, err := range r.Sync(t.Context(), func(key string) bool { return known[key] }) {
			if err != nil || batch.Err != nil {
				t.Fatal(err, batch.Err)
			}
			for _, record := range batch.Records {
				if record.Digest == nil {
					got[string(record.Line)] = true
				}
			}
			for _, key := range append(batch.Inputs, batch.Key) {
				known[key] = known[key] || batch.Settled
			}
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("%d lines instead of %d", len(got), len(want))
	}
}

// TestMergeIsDone runs Merge over a crowd: it stops when there are few objects, and what is said to be due is.
func TestMergeIsDone(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	b := newBuilder(t, mem.New(t.Name(), func() time.Time { return now }))
	want := map[string]bool{}
	for range manySegments*manyLogs + 10 {
		r := b.commit(Row{Before: b.now})
		want[string(r.Line)] = true
		b.log(r)
		if n := len(want); n%manyLogs == 0 {
			if linesOf(t, b.repo); !b.repo.MergeDue() {
				t.Fatalf("nothing is due with %d objects", n)
			}
			if err := b.repo.Merge(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	keys := storagetest.Keys(t, b.store, indexPrefix, "")
	if got := linesOf(t, b.repo); !maps.Equal(got, want) || b.repo.MergeDue() || len(keys) != 1 || !strings.HasPrefix(keys[0], generationPrefix(2)) {
		t.Errorf("%d lines instead of %d, in %v", len(got), len(want), keys)
	}
}

// TestMergeLeavesWhatItCannotRead: a crowd of damaged objects is no reason to go on for ever.
func TestMergeLeavesWhatItCannotRead(t *testing.T) {
	b := newBuilder(t, memStore(t))
	for i := range manyLogs + 1 {
		b.put(fmt.Sprintf("%s%032x", logPrefix, i), []byte("no records"))
	}
	if err := b.repo.Merge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := len(storagetest.Keys(t, b.store, logPrefix, "")); n != manyLogs+1 {
		t.Errorf("%d of %d are left", n, manyLogs+1)
	}
}
