package repository

import (
	"bytes"
	"testing"
)

// TestASmallFileComesWithItsTree reads one file of each form after TreeNear: those that lie before the tree cost no request of their own.
func TestASmallFileComesWithItsTree(t *testing.T) {
	b := newBuilder(t, memStore(t))
	row, want := b.tree(everyForm()...), contents(everyForm())
	inside := 0
	for path, data := range want {
		g := &gate{Store: b.store}
		r, _ := cachedBy(t, g, t.TempDir(), 0)
		tree, err := r.TreeNear(t.Context(), row)
		if err != nil {
			t.Fatal(err)
		}
		if g.gets != 1 {
			t.Errorf("%s: the tree took %d requests", path, g.gets)
		}
		var out bytes.Buffer
		if err := r.WriteFile(t.Context(), &out, tree.Lookup(path)); err != nil || !bytes.Equal(out.Bytes(), data) {
			t.Errorf("%s: wrote %d bytes, %v", path, out.Len(), err)
		}
		near := true
		for _, x := range tree.Lookup(path).Extents {
			near = near && x.Pack == row.Tree[0].Pack && int64(x.Off) >= int64(row.Tree[0].Off)-nearTree
		}
		if e := tree.Lookup(path); near && e.Recipe == nil {
			inside++
			if g.gets != 1 {
				t.Errorf("%s lies before the tree, and took %d requests", path, g.gets-1)
			}
		}
	}
	if inside == 0 || inside == len(want) {
		t.Errorf("%d of %d files lie before the tree: the test shows nothing", inside, len(want))
	}
}
