package repository

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/replicate/replicate"
)

// manyFrames are the files of a tree of several frames.
func manyFrames() []fake {
	long := strings.Repeat("long/", 10) + strings.Repeat("n", 4000)
	fakes := everyForm()
	for i := range 10 {
		fakes = append(fakes, fakeDir(strings.Repeat("long/", i)+"long"))
	}
	for i := range 4500 {
		fakes = append(fakes, fakeFile(fmt.Sprintf("%s%04d", long, i), ""))
	}
	return fakes
}

func TestEachEntryIsTheTree(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t, store)
			row := b.tree(manyFrames()...)
			if len(row.Tree) < 3 {
				t.Fatalf("%d frames are no test", len(row.Tree))
			}
			r, tree := b.opened(row)
			i := 0
			err := r.EachEntry(t.Context(), row, func(e *Entry) error {
				if i >= len(tree.Entries) || !reflect.DeepEqual(e, &tree.Entries[i]) {
					t.Errorf("entry %d is %q", i, e.Path)
				}
				i++
				return nil
			})
			if err != nil || i != len(tree.Entries) {
				t.Errorf("%d entries instead of %d: %v", i, len(tree.Entries), err)
			}
		})
	}
}

func TestEachEntryStops(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row := b.tree(everyForm()...)
	enough := errors.New("enough")
	n := 0
	err := b.repo.EachEntry(t.Context(), row, func(*Entry) error {
		if n++; n == 3 {
			return enough
		}
		return nil
	})
	if err != enough || n != 3 {
		t.Errorf("%d entries, %v", n, err)
	}
	if err := b.repo.EachEntry(t.Context(), Row{}, func(*Entry) error { return enough }); err != nil {
		t.Errorf("no tree: %v", err)
	}
}

func TestEachEntryOfDamagedTree(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row := b.tree(manyFrames()...)
	last := row.Tree[len(row.Tree)-1]
	key := packKey(last.Pack)
	data := b.get(key)
	data[last.Off+last.Len/2] ^= 1
	b.put(key, data)
	n := 0
	err := b.repo.EachEntry(t.Context(), row, func(*Entry) error { n++; return nil })
	if replicate.KindOf(err) != replicate.Corrupt || n == 0 {
		t.Errorf("%d entries, %v", n, err)
	}
	short := row
	short.Tree = row.Tree[:1]
	if err := b.repo.EachEntry(t.Context(), short, func(*Entry) error { return nil }); replicate.KindOf(err) != replicate.Corrupt {
		t.Errorf("without its last frames: %v", err)
	}
}
