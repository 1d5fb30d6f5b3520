package repository

import (
	"context"
	"errors"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/storagetest"
)

// gcList puts a list of packs: a condemned one, or a sentence if condemned says since when.
func (b *builder) gcList(suffix string, condemned time.Time, packs ...replicate.Hash) {
	text := fmt.Sprintf(`{"condemned":%q}`+"\n", condemned.UTC().Format(time.RFC3339Nano))
	for _, p := range packs {
		text += p.String() + "\n"
	}
	b.put(gcPrefix+string(b.newID())+suffix, encoder1().EncodeAll([]byte(text), nil))
}

// TestLateRecords puts a row whose time has passed, in every situation.
func TestLateRecords(t *testing.T) {
	tests := []struct {
		name      string
		arrange   func(b *builder, row *Row)
		believed  bool
		undecided bool
	}{
		{"in time", func(b *builder, row *Row) { row.Before = b.now }, true, false},
		{"sound", func(b *builder, row *Row) {}, true, false},
		{"without packs", func(b *builder, row *Row) { row.Packs, row.Tree = nil, nil }, true, false},
		{"pack missing", func(b *builder, row *Row) { b.store.Delete(b.t.Context(), packKey(row.Packs[0])) }, false, false},
		{"pack condemned", func(b *builder, row *Row) { b.gcList(condemnedSuffix, time.Time{}, row.Packs[0]) }, false, true},
		{"pack condemned and missing", func(b *builder, row *Row) {
			b.gcList(condemnedSuffix, time.Time{}, row.Packs[0])
			b.store.Delete(b.t.Context(), packKey(row.Packs[0]))
		}, false, true},
		{"pack sentenced", func(b *builder, row *Row) {
			b.gcList(sentenceSuffix, b.now.Add(-documented.wait-documented.slot), row.Packs[0])
		}, false, true},
		{"void sentence", func(b *builder, row *Row) {
			b.gcList(sentenceSuffix, b.now.Add(-documented.wait-documented.slot-1), row.Packs[0])
		}, true, false},
		{"other pack condemned", func(b *builder, row *Row) { b.gcList(condemnedSuffix, time.Time{}, hashOf(nil)) }, true, false},
		{"in time with a condemned pack", func(b *builder, row *Row) {
			row.Before = b.now
			b.gcList(condemnedSuffix, time.Time{}, row.Packs[0])
		}, true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := newBuilder(t, memStore(t))
			row := b.tree(fakeFile("a", "1"))
			row.Before = b.now.Add(-1)
			tt.arrange(b, &row)
			key := b.log(b.commit(row))
			batches := 0
			for batch, err := range b.repo.Sync(t.Context(), nothingKnown) {
				if err != nil || batch.Err != nil || batch.Key != key {
					t.Fatal(batch, err)
				}
				batches++
				if believed := len(batch.Records) == 1; believed != tt.believed || batch.Settled == tt.undecided {
					t.Errorf("believed %v, settled %v", believed, batch.Settled)
				}
			}
			if batches != 1 {
				t.Errorf("%d batches", batches)
			}
		})
	}
}

func TestLateRecordInSegmentIsBelieved(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row := b.tree(fakeFile("a", "1"))
	row.Before = b.now.Add(-1)
	key, object, err := encodeSegment(1, []Record{b.commit(row)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.put(key, object)
	if records, damage := syncAll(t, b.repo, nothingKnown); len(records[key]) != 1 || damage != nil {
		t.Fatal(records, damage)
	}
}

// TestDamagedGCList: whether a late record can be believed cannot be found out, so it is not, and nothing else suffers.
func TestDamagedGCList(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row := b.tree(fakeFile("a", "1"))
	good := b.log(b.commit(row))
	row.Before = b.now.Add(-1)
	late := b.log(b.commit(row))
	b.put(gcPrefix+string(b.newID())+condemnedSuffix, []byte("no list"))
	records, damage := syncAll(t, b.repo, nothingKnown)
	if len(records[good]) != 1 || len(records[late]) != 0 || len(damage) != 1 || !strings.Contains(damage[0].Error(), late) {
		t.Fatal(records, damage)
	}
}

// merge does what a merger does: an object with the records of all of one generation, then deletes them. Generation 0 is log/.
func (b *builder) merge(store storage.Store, generation int) {
	b.t.Helper()
	prefix := logPrefix
	if generation > 0 {
		prefix = fmt.Sprintf("%s%d-", indexPrefix, generation)
	}
	var inputs []string
	var records []Record
	for o, err := range store.List(b.t.Context(), prefix, "") {
		if err != nil {
			b.t.Fatal(err)
		}
		inputs = append(inputs, o.Key)
		some, err := parseLog(o.Key, b.get(o.Key))
		if generation > 0 {
			_, some, err = parseSegment(o.Key, b.get(o.Key))
		}
		if err != nil {
			b.t.Fatal(err)
		}
		records = append(records, some...)
	}
	key, object, err := encodeSegment(generation+1, records, inputs)
	if err != nil {
		b.t.Fatal(err)
	}
	b.put(key, object)
	if err := store.Delete(b.t.Context(), inputs...); err != nil {
		b.t.Fatal(err)
	}
}

// TestSyncWhileMerging merges between any two calls that a Sync makes: every record is seen.
func TestSyncWhileMerging(t *testing.T) {
	for first := 1; first <= 14; first++ {
		for second := first; second <= 14; second++ {
			b := newBuilder(t, memStore(t))
			row := b.tree(fakeFile("a", "1"))
			want := map[string]bool{}
			for range 3 {
				record := b.commit(row)
				want[string(record.Line)] = true
				b.log(record)
			}
			var mu sync.Mutex
			calls := 0
			store := storagetest.Wrap(b.store, storagetest.Hooks{Before: func(context.Context, storagetest.Call) error {
				mu.Lock()
				defer mu.Unlock()
				calls++
				if calls == first {
					b.merge(b.store, 0)
				}
				if calls == second {
					b.merge(b.store, 1)
				}
				return nil
			}})
			r := &Repository{store: store}
			got := map[string]bool{}
			records, damage := syncAll(t, r, nothingKnown)
			for _, lines := range records {
				for _, line := range lines {
					got[line] = true
				}
			}
			if damage != nil || !maps.Equal(got, want) {
				t.Fatalf("merged at calls %d and %d: got %d records, damage %v", first, second, len(got), damage)
			}
		}
	}
}

// TestSyncWithListThatLags: a listing that goes on showing what is gone ends, and the next Sync sees the rest.
func TestSyncWithListThatLags(t *testing.T) {
	b := newBuilder(t, memStore(t))
	now := b.now
	late := storagetest.Late(b.store, time.Hour, func() time.Time { return now }, mrand.New(mrand.NewPCG(1, 1)))
	r := &Repository{store: late}
	row := b.tree(fakeFile("a", "1"))
	for range 20 {
		b.log(b.commit(row))
	}
	b.merge(late, 0)
	syncAll(t, r, nothingKnown)
	now = now.Add(2 * time.Hour)
	records, damage := syncAll(t, r, nothingKnown)
	n := 0
	for _, lines := range records {
		n += len(lines)
	}
	if n != 20 || damage != nil {
		t.Fatal(n, damage)
	}
}

// TestSyncOnFaultyStores fails each call in turn: the error is returned or named, and nothing wrong is yielded.
func TestSyncOnFaultyStores(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row := b.tree(fakeFile("a", "1"))
	want := map[string]bool{}
	for range 3 {
		record := b.commit(row)
		want[string(record.Line)] = true
		b.log(record)
	}
	for _, after := range []bool{false, true} {
		for _, fault := range []error{nil, errors.New("plain")} {
			for n := 1; n <= 5; n++ {
				r := &Repository{store: storagetest.Faulty(b.store, storagetest.Fault{N: n, After: after, Err: fault})}
				failed := false
				for batch, err := range r.Sync(t.Context(), nothingKnown) {
					failed = failed || err != nil || batch.Err != nil
					for _, record := range batch.Records {
						if !want[string(record.Line)] {
							t.Errorf("call %d: %s", n, record.Line)
						}
					}
				}
				if !failed {
					t.Errorf("call %d failed and nobody was told", n)
				}
			}
		}
	}
}

// TestSyncOnLyingStores: what was changed on the way is never believed.
func TestSyncOnLyingStores(t *testing.T) {
	for name, store := range stores(t) {
		b := newBuilder(t, store)
		row := b.tree(fakeFile("a", "1"))
		bad, good := b.log(b.commit(row)), b.log(b.commit(row))
		segment, object, err := encodeSegment(1, []Record{b.commit(row)}, []string{"log/" + strings.Repeat("0", 32)})
		if err != nil {
			t.Fatal(err)
		}
		b.put(segment, object)
		for _, lie := range []storagetest.Lie{storagetest.FlipBit, storagetest.CutOff, storagetest.ShortRead, storagetest.LongRead} {
			for _, about := range []string{bad, segment} {
				r := &Repository{store: storagetest.Lying(t, store, lie, func(key string) bool { return key == about })}
				records, damage := syncAll(t, r, nothingKnown)
				believed := len(records[about])
				if len(records[good]) != 1 || believed+len(damage) != 1 || believed == 1 && lie != storagetest.LongRead {
					t.Errorf("%s: lie %d about %s: %d records, damage %v", name, lie, about, believed, damage)
				}
			}
		}
	}
}

// TestSyncStops: a consumer that has had enough, and a cancelled context, end all that was begun.
func TestSyncStops(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row := b.tree(fakeFile("a", "1"))
	for range 200 {
		b.log(b.commit(row))
	}
	for range b.repo.Sync(t.Context(), nothingKnown) {
		break
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range b.repo.Sync(ctx, nothingKnown) {
		cancel()
		last = err
	}
	if !errors.Is(last, context.Canceled) {
		t.Errorf("cancelled: %v", last)
	}
}

// TestFilesOnEvilStores reads files whose pack lies: right bytes or an error, never wrong bytes.
func TestFilesOnEvilStores(t *testing.T) {
	for name, store := range stores(t) {
		b := newBuilder(t, store)
		b.chunk = 20_000
		fakes := []fake{fakeSmall("group/a", "small a"), fakeSmall("group/b", "small b"), fakeDir("group"), fakeFile("whole", string(noise(2, 20_000))),
			fakeFile("chunks", string(noise(1, 50_000))), fakeFile("recipe", string(noise(3, 300_000))), fakeFile("packed", string(prose(300_000)))}
		row := b.tree(fakes...)
		_, tree := b.opened(row)
		want := contents(fakes)
		evil := map[string]storage.Store{
			"cut off":    storagetest.Lying(t, store, storagetest.CutOff, isPack),
			"flipped":    storagetest.Lying(t, store, storagetest.FlipBit, isPack),
			"short":      storagetest.Lying(t, store, storagetest.ShortRead, isPack),
			"long":       storagetest.Lying(t, store, storagetest.LongRead, isPack),
			"forgetful":  storagetest.Forgetful(store, isPack),
			"faulty":     storagetest.Faulty(store, storagetest.Fault{Op: storagetest.OpGet}),
			"half a get": storagetest.Faulty(store, storagetest.Fault{Op: storagetest.OpGet, After: true}),
		}
		for _, kind := range slices.Sorted(maps.Keys(evil)) {
			local, _ := evil[kind].(storage.Local)
			r := &Repository{store: evil[kind], local: local, trees: newCache[string, *Tree](treeBudget), frames: newFrameCache()}
			for i := range tree.Entries {
				if e := &tree.Entries[i]; e.Kind == File {
					checkHonest(t, name+", "+kind, r, e, want[e.Path])
				}
			}
		}
	}
}

func isPack(key string) bool { return strings.HasPrefix(key, packPrefix) }

// checkHonest reads a file twice, whole and by pieces: what it gets is right or an error.
func checkHonest(t *testing.T, where string, r *Repository, e *Entry, want []byte) {
	t.Helper()
	var out strings.Builder
	err := r.WriteFile(t.Context(), &out, e)
	if err == nil && out.String() != string(want) || !strings.HasPrefix(string(want), out.String()) {
		t.Errorf("%s: %s: wrote %d bytes, %v", where, e.Path, out.Len(), err)
	}
	f, err := r.File(t.Context(), e)
	if err != nil {
		return
	}
	p := make([]byte, 70_000)
	for off := int64(0); off < e.Size; off += int64(len(p)) {
		n, err := f.ReadAt(p, off)
		if string(p[:n]) != string(want[off:off+int64(n)]) || n < len(p) && err == nil {
			t.Errorf("%s: %s: read %d bytes at %d, %v", where, e.Path, n, off, err)
		}
	}
}
