package view

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

// someHash is not zero.
func someHash(i int) (h replicate.Hash) {
	h[0], h[31] = byte(i), 1
	return h
}

// randomTree makes up a sorted tree of n paths, some of them as deep as a path can be.
func randomTree(rng *rand.Rand, n int) *repository.Tree {
	dirs := []string{""}
	t := &repository.Tree{}
	have := map[string]bool{}
	for i := range n {
		path := dirs[rng.IntN(len(dirs))] + fmt.Sprintf("%c%d", "-0aZ."[rng.IntN(5)], rng.IntN(n))
		if have[path] {
			continue
		}
		have[path] = true
		e := repository.Entry{Path: path, Mode: uint32(rng.IntN(0o10000)), Mtime: rng.Int64() - rng.Int64()}
		switch kind := rng.IntN(10); kind {
		case 0, 1:
			e.Kind = repository.Dir
			dirs = append(dirs, path+"/")
		case 2:
			e.Kind, e.Target = repository.Link, strings.Repeat("../", rng.IntN(9))+"x"
		default:
			e.Hash, e.Torn = someHash(i), kind == 3
			if kind == 4 {
				e.Size, e.Recipe = 10<<20, &repository.Ref{Pack: someHash(i), Off: 50, Len: 60, Raw: 70, Hash: someHash(i + 1)}
				break
			}
			for k := range kind - 4 {
				e.Size += 100_000
				e.Extents = append(e.Extents, repository.Extent{Ref: repository.Ref{Pack: someHash(k), Off: 30, Len: 40, Raw: 100_000, Hash: someHash(k)}})
			}
			if len(e.Extents) == 1 {
				e.Extents[0].Hash, e.Extents[0].From = replicate.Hash{}, 7
			}
		}
		t.Entries = append(t.Entries, e)
	}
	slices.SortFunc(t.Entries, func(a, b repository.Entry) int { return repository.ComparePaths(a.Path, b.Path) })
	return t
}

// drafted returns the tree of entries.
func drafted(t *testing.T, dir string, entries []repository.Entry) *tree {
	t.Helper()
	d := newDraft(dir)
	for i := range entries {
		if err := d.add(&entries[i]); err != nil {
			t.Fatal(err)
		}
	}
	made, err := d.tree()
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// TestTreeIsBreadthFirst compares trees, in memory and in files, with a naive walk.
func TestTreeIsBreadthFirst(t *testing.T) {
	for _, n := range []int{0, 1, 50, 500, 12_000} {
		want := randomTree(rand.New(rand.NewPCG(1, uint64(n))), n)
		got := drafted(t, t.TempDir(), want.Entries)
		if _, inMemory := got.data.(memory); inMemory != (n < 12_000) {
			t.Errorf("%d paths of %d bytes in memory: %v", n, got.size, inMemory)
		}
		numbers := map[int]int64{}
		err := got.number(7, func(files []index.File) (given []int64, err error) {
			for _, f := range files {
				if f.Commit != 7 {
					t.Errorf("%+v", f)
				}
				numbers[int(f.Place)] = f.Place + 1000
				given = append(given, f.Place+1000)
			}
			return given, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		queue := []string{""}
		place := 1
		for at := 0; at < len(queue); at++ {
			dir, r, err := got.at(at)
			if err != nil || string(pathOf(r)) != queue[at] {
				t.Fatalf("place %d is %q instead of %q: %v", at, pathOf(r), queue[at], err)
			}
			if dir.first != place {
				t.Errorf("the first child of %q is %d, not %d", queue[at], dir.first, place)
			}
			if at > 0 && want.Lookup(queue[at]).Kind != repository.Dir {
				if dir.first != dir.next {
					t.Errorf("%q has children", queue[at])
				}
				continue
			}
			var children []spot
			err = got.list(dir.first, dir.next, func(s spot, r record) error {
				children = append(children, s)
				e, err := r.entry()
				if err != nil || !reflect.DeepEqual(e, want.Lookup(e.Path)) {
					t.Errorf("%+v: %v", e, err)
				}
				a := Attr{Mode: e.Mode | TypeFile, Size: e.Size, Mtime: e.Mtime}
				switch e.Kind {
				case repository.Dir:
					a.Mode = e.Mode | TypeDir
				case repository.Link:
					a.Mode, a.Size = linkMode, int64(len(e.Target))
				}
				if r.attr() != a {
					t.Errorf("%q: %+v", e.Path, r.attr())
				}
				if large := e.Kind == repository.File && e.Size >= sharedSize; s.number != numbers[s.place] || large != (s.number > 0) {
					t.Errorf("%q of %d bytes has the number %d", e.Path, e.Size, s.number)
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			i := 0
			for _, e := range want.Children(queue[at]) {
				queue = append(queue, e.Path)
				name := filepath.Base(e.Path)
				s, r, found, err := got.find(dir, name)
				if err != nil || !found || s.place != place || string(r.path()) != e.Path || i >= len(children) || children[i] != s {
					t.Fatalf("%q is %+v %q: %v", e.Path, s, r.path(), err)
				}
				if _, _, found, err := got.find(dir, name+"\x01"); found || err != nil {
					t.Errorf("%q with another end is found: %v", e.Path, err)
				}
				place++
				i++
			}
			if i != len(children) {
				t.Errorf("%q has %d children, %d are listed", queue[at], i, len(children))
			}
		}
		if place != got.count || got.has(int64(place)) || !got.has(int64(place-1)) {
			t.Errorf("%d places, the tree has %d", place, got.count)
		}
	}
}

func pathOf(r record) []byte {
	if len(r) == 0 {
		return nil
	}
	return r.path()
}

// TestDeepTree is of one directory in the other, two thousand times.
func TestDeepTree(t *testing.T) {
	var entries []repository.Entry
	for n := 1; n <= 4000; n += 2 {
		entries = append(entries, repository.Entry{Path: strings.Repeat("d/", n/2) + "d", Kind: repository.Dir})
	}
	tree := drafted(t, t.TempDir(), entries)
	s, _, err := tree.at(0)
	for range entries {
		if err == nil {
			s, _, _, err = tree.find(s, "d")
		}
	}
	if err != nil || s.place != len(entries) || s.first != s.next {
		t.Errorf("%+v: %v", s, err)
	}
}

func FuzzTreeRecord(f *testing.F) {
	for _, e := range randomTree(rand.New(rand.NewPCG(1, 2)), 30).Entries {
		f.Add([]byte(appendRecord(nil, &e)))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := record(data)
		if r.check() != nil {
			return
		}
		if !strings.HasSuffix("/"+string(r.path()), "/"+string(r.name())) {
			t.Errorf("%q is the name of %q", r.name(), r.path())
		}
		a := r.attr()
		e, err := r.entry()
		if err != nil {
			return
		}
		again := appendRecord(nil, e)
		if back, err := again.entry(); err != nil || !reflect.DeepEqual(back, e) || again.attr() != a {
			t.Errorf("%+v comes back as %+v: %v", e, back, err)
		}
	})
}

// inMemory is how many bytes the trees that a view keeps have in memory, and how many there are.
func (v *View) inMemory() (bytes int64, trees int) {
	for e := v.trees.order.Front(); e != nil; e = e.Next() {
		if m, ok := e.Value.(*cached[treeKey, *tree]).value.data.(memory); ok {
			bytes += int64(len(m))
		}
		trees++
	}
	return bytes, trees
}

// TestTreesStayInTheirRoom walks more commits than there is room for, then the first one again.
func TestTreesStayInTheirRoom(t *testing.T) {
	l := newLab(t)
	const room, files, commits = 300_000, 1000, 12
	l.trees = newCache[treeKey, *tree](room)
	for i := range files {
		l.write(fmt.Sprintf("d%d/f%d", i%10, i), "")
	}
	w := l.begin(replicate.Experiment{})
	for step := range commits {
		l.write("step", fmt.Sprint(step))
		l.commit(w, int64(step))
	}
	l.refresh()
	for range 2 {
		for ord := range int64(commits) {
			dir := newID(commitDir, ord+1, 0)
			seen := 0
			for _, e := range l.list(dir) {
				if e.Mode&TypeMask == TypeDir {
					seen += len(l.list(e.ID))
				}
			}
			if seen != files {
				t.Errorf("commit %d has %d files", ord, seen)
			}
			if bytes, trees := l.inMemory(); bytes > room || l.trees.used > room || bytes == 0 {
				t.Errorf("%d trees have %d bytes in memory, counted as %d", trees, bytes, l.trees.used)
			}
		}
	}
	if _, trees := l.inMemory(); trees == commits {
		t.Error("all trees fit: that is no test")
	}
}

// TestLargeTreesAreInFiles also has the cache directory taken away.
func TestLargeTreesAreInFiles(t *testing.T) {
	l := newLab(t)
	const files = 6000
	for i := range files {
		l.write(fmt.Sprintf("d/%s%d", strings.Repeat("n", 200), i), "")
	}
	w := l.begin(replicate.Experiment{})
	l.commit(w, 0)
	l.refresh()
	dir := l.at("latest")
	target, err := l.Link(t.Context(), dir)
	l.must(err)
	entries := l.names(target + "/commits")
	path := target + "/commits/" + entries[0] + "/d"
	if n := len(l.names(path)); n != files {
		t.Fatalf("%d files", n)
	}
	if bytes, trees := l.inMemory(); bytes > 0 || trees != 1 || l.trees.used > 100_000 {
		t.Errorf("%d trees have %d bytes in memory, counted as %d", trees, bytes, l.trees.used)
	}
	l.reopen()
	l.cache = filepath.Join(l.dir, "gone")
	if n := len(l.names(path)); n != files {
		t.Errorf("%d files without a cache directory", n)
	}
	if bytes, _ := l.inMemory(); bytes < files*200 {
		t.Errorf("%d bytes in memory", bytes)
	}
}
