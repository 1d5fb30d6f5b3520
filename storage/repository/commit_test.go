package repository

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// paths returns the paths of a commit, directories with "/" at the end.
func (l *lab) paths(row Row) (list []string) {
	l.t.Helper()
	tree, err := l.repo.Tree(l.t.Context(), row)
	must(l.t, err)
	for _, e := range tree.Entries {
		if e.Kind == Dir {
			e.Path += "/"
		}
		list = append(list, e.Path)
	}
	return list
}

func TestCommitOfPaths(t *testing.T) {
	l := newLab(t, diskStore(t))
	writeFiles(t, l.root, "a", "1", "w/x", "2", "w/y", "3", "w.old", "4", "z", "5")
	w, _ := l.begin(WriterOptions{})
	writeFiles(t, l.root, "a", "changed", "w/new", "6", "z", "changed")
	must(t, os.Remove(l.root+"/w/y"))
	row, snap := l.commit(w, CommitRequest{Paths: []string{"w"}})
	equalTexts(t, "paths", l.paths(row.Row), []string{"a", "w/", "w/new", "w/x", "w.old", "z"})
	if l.read(row.Row, "a") != "1" || l.read(row.Row, "w/new") != "6" || snap.Changed < 1 || snap.Changed > 2 {
		t.Errorf("a is %q, w/new %q, %d files were read", l.read(row.Row, "a"), l.read(row.Row, "w/new"), snap.Changed)
	}
	row, _ = l.commit(w, CommitRequest{Paths: []string{"z", l.root + "/w/x", "w/../z"}})
	if l.read(row.Row, "z") != "changed" || l.read(row.Row, "a") != "1" {
		t.Error("only z has changed")
	}
	must(t, os.RemoveAll(l.root+"/w"))
	writeFiles(t, l.root, "w", "now a file")
	row, _ = l.commit(w, CommitRequest{Paths: []string{"w"}})
	equalTexts(t, "paths", l.paths(row.Row), []string{"a", "w", "w.old", "z"})
	row, snap = l.commit(w, CommitRequest{Paths: []string{"gone", "../elsewhere", "/etc/passwd"}})
	equalTexts(t, "paths", l.paths(row.Row), []string{"a", "w", "w.old", "z"})
	equalTexts(t, "left out", whys(snap), []string{"gone: not there", "../elsewhere: outside the project", "/etc/passwd: outside the project"})
	must(t, os.Remove(l.root+"/w.old"))
	row, _ = l.commit(w, CommitRequest{Paths: []string{"w.old"}})
	equalTexts(t, "paths", l.paths(row.Row), []string{"a", "w", "z"})
	row, _ = l.commit(w, CommitRequest{})
	if l.read(row.Row, "a") != "changed" {
		t.Error("a commit of everything has the old a")
	}
}

func TestCommitOfPathsThroughLinks(t *testing.T) {
	l := newLab(t, diskStore(t))
	writeFiles(t, l.root, "runs/1/model", "1")
	must(t, os.Symlink("runs/1", l.root+"/latest"))
	w, _ := l.begin(WriterOptions{Paths: []string{}})
	row, _ := l.commit(w, CommitRequest{Paths: []string{"latest/model", "latest"}})
	equalTexts(t, "paths", l.paths(row.Row), []string{"latest", "runs/", "runs/1/", "runs/1/model"})
}

func TestCommitOfNothing(t *testing.T) {
	l := newLab(t, diskStore(t))
	writeFiles(t, l.root, "foo.txt", "1", "bar", "2")
	w, snap := l.begin(WriterOptions{Paths: []string{}})
	if snap.Files != 0 {
		t.Errorf("%+v", snap)
	}
	empty, _ := l.commit(w, CommitRequest{})
	if len(empty.Tree) != 0 || len(empty.Packs) != 0 {
		t.Errorf("a commit of nothing has %+v", empty.Row)
	}
	row, _ := l.commit(w, CommitRequest{Paths: []string{"foo.txt"}})
	equalTexts(t, "paths", l.paths(row.Row), []string{"foo.txt"})
	row, _ = l.commit(w, CommitRequest{})
	equalTexts(t, "paths", l.paths(row.Row), []string{"foo.txt"})
	must(t, os.Remove(l.root+"/foo.txt"))
	row, _ = l.commit(w, CommitRequest{Paths: []string{"foo.txt"}})
	equalTexts(t, "paths", l.paths(row.Row), nil)
}

func TestCommitWithExtraFiles(t *testing.T) {
	l := newLab(t, diskStore(t))
	writeFiles(t, l.root, "a", "1", "d/b", "2")
	w, _ := l.begin(WriterOptions{})
	cells := map[string][]byte{".replicate/cells.py": []byte("x = 1\n"), "empty": nil, "large": randomBytes(1, 5<<20)}
	row, _ := l.commit(w, CommitRequest{Extra: cells})
	equalTexts(t, "paths", l.paths(row.Row), []string{".replicate/", ".replicate/cells.py", "a", "d/", "d/b", "empty", "large"})
	for path, want := range cells {
		if l.read(row.Row, path) != string(want) {
			t.Errorf("%s differs", path)
		}
	}
	same, snap := l.commit(w, CommitRequest{Extra: cells, IfChanged: true})
	if same.ID != "" || snap.Added != 0 {
		t.Errorf("the same extra files make another tree: %+v", snap)
	}
	if _, _, err := w.Commit(t.Context(), CommitRequest{Extra: map[string][]byte{"../x": nil}}); replicate.KindOf(err) != replicate.Usage {
		t.Error(err)
	}
	if _, _, err := w.Commit(t.Context(), CommitRequest{Extra: map[string][]byte{"a/x": nil}}); replicate.KindOf(err) != replicate.Usage {
		t.Error(err)
	}
	row, _ = l.commit(w, CommitRequest{})
	equalTexts(t, "paths", l.paths(row.Row), []string{"a", "d/", "d/b"})
}

func TestCommitIfChanged(t *testing.T) {
	l := newLab(t, diskStore(t))
	writeFiles(t, l.root, "a", "1")
	w, _ := l.begin(WriterOptions{})
	row, _ := l.commit(w, CommitRequest{IfChanged: true})
	if row.ID != "" || len(l.commits()) != 0 {
		t.Errorf("committed %+v", row)
	}
	must(t, os.Chmod(l.root+"/a", 0o600))
	row, _ = l.commit(w, CommitRequest{IfChanged: true})
	if row.ID == "" || l.entry(row.Row, "a").Mode != 0o600 {
		t.Errorf("a new mode is no change: %+v", row)
	}
}

// TestTouchedFilesStoreNothing gives files new times and no new content.
func TestTouchedFilesStoreNothing(t *testing.T) {
	l := newLab(t, diskStore(t))
	writeFiles(t, l.root, "small", "1", "whole", string(randomBytes(1, 300<<10)), "large", string(randomBytes(2, 30<<20)))
	w, _ := l.begin(WriterOptions{})
	for _, name := range []string{"small", "whole", "large"} {
		must(t, os.Chtimes(l.root+"/"+name, time.Time{}, time.Unix(1, 2)))
	}
	row, snap := l.commit(w, CommitRequest{})
	if snap.Changed != 3 || snap.Added > 4096 {
		t.Errorf("%+v", snap)
	}
	if e := l.entry(row.Row, "large"); e.Mtime != 1_000_000_002 || e.Recipe == nil {
		t.Errorf("%+v", e)
	}
}

func TestMovedFilesStoreNothing(t *testing.T) {
	l := newLab(t, diskStore(t))
	large := string(randomBytes(2, 30<<20))
	writeFiles(t, l.root, "d/small", "1", "d/whole", string(randomBytes(1, 300<<10)), "d/large", large)
	w, _ := l.begin(WriterOptions{})
	must(t, os.Rename(l.root+"/d", l.root+"/e"))
	writeFiles(t, l.root, "copy of large", large)
	row, snap := l.commit(w, CommitRequest{})
	if snap.Added > 8192 || l.read(row.Row, "e/large") != large || l.read(row.Row, "copy of large") != large {
		t.Errorf("%+v", snap)
	}
}

// TestChangedStretch changes 10 % of a large file in one stretch, and checks how much is stored again.
func TestChangedStretch(t *testing.T) {
	l := newLab(t, diskStore(t))
	data := randomBytes(1, 100<<20)
	must(t, os.WriteFile(l.root+"/w.bin", data, 0o644))
	w, first := l.begin(WriterOptions{})
	const stretch = 10 << 20
	for i := range 3 {
		copy(data[(20+25*i)<<20:], randomBytes(uint64(10+i), stretch))
		must(t, os.WriteFile(l.root+"/w.bin", data, 0o644))
		row, snap := l.commit(w, CommitRequest{})
		if snap.Added > stretch+5<<20 {
			t.Errorf("a change of %d bytes stored %d", stretch, snap.Added)
		}
		if l.read(row.Row, "w.bin") != string(data) {
			t.Fatal("content differs")
		}
		t.Logf("first %d, then %d", first.Added, snap.Added)
	}
	data = append(slices.Clone(data[:50<<20]), append([]byte("inserted"), data[50<<20:]...)...)
	must(t, os.WriteFile(l.root+"/w.bin", data, 0o644))
	row, snap := l.commit(w, CommitRequest{})
	if snap.Added > 9<<20 || l.read(row.Row, "w.bin") != string(data) {
		t.Errorf("an insertion stored %d bytes", snap.Added)
	}
}

// TestCommitsAgainstModel edits a tree at random and compares every commit with the directory as it was.
func TestCommitsAgainstModel(t *testing.T) {
	for seed := range uint64(3) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			l := newLab(t, diskStore(t))
			r := rand.New(rand.NewPCG(seed, 0))
			w, _ := l.begin(WriterOptions{})
			type version struct {
				row  Row
				tree map[string]string
			}
			var history []version
			for range 25 {
				for range r.IntN(8) {
					editTree(t, r, l.root)
				}
				row, _ := l.commit(w, CommitRequest{})
				history = append(history, version{row.Row, naiveTree(t, l.root)})
				if r.IntN(6) == 0 {
					must(t, w.End(t.Context(), "", nil))
					l.spool = l.open()
					var err error
					w, err = l.spool.Attach(t.Context(), row.Experiment, Resume{Parent: row.Row, ParentID: row.ID, Seq: row.Seq + 1},
						WriterOptions{Root: l.root})
					must(t, err)
				}
			}
			for i, v := range history {
				tree, err := l.repo.Tree(t.Context(), v.row)
				must(t, err)
				got := map[string]string{}
				for j := range tree.Entries {
					e := &tree.Entries[j]
					content := e.Target
					if e.Kind == File {
						content = l.read(v.row, e.Path)
					}
					got[e.Path] = fmt.Sprintf("%d %o %d %s", e.Kind, e.Mode, e.Mtime, content)
				}
				if len(got) != len(v.tree) {
					t.Errorf("commit %d has %d paths instead of %d", i, len(got), len(v.tree))
				}
				for path, want := range v.tree {
					if got[path] != want {
						t.Errorf("commit %d, %s: %.60q instead of %.60q", i, path, got[path], want)
					}
				}
			}
		})
	}
}

// editTree does one thing to a tree.
func editTree(t *testing.T, r *rand.Rand, root string) {
	names := []string{"a", "b", "c", "d", "e f"}
	path := root
	for range 1 + r.IntN(3) {
		path += "/" + names[r.IntN(len(names))]
	}
	sizes := []int{0, 1, 1000, smallFile, 100 << 10, 1 << 20, 3 << 20, 12 << 20}
	switch r.IntN(7) {
	case 0:
		os.RemoveAll(path)
	case 1:
		os.Symlink(names[r.IntN(len(names))], path)
	case 2:
		os.Rename(path, root+"/"+names[r.IntN(len(names))])
	case 3:
		if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSymlink == 0 {
			os.Chmod(path, []os.FileMode{0o700, 0o755, 0o711}[r.IntN(3)])
		}
	case 4: // change some bytes in place
		if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() && st.Size() > 0 {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			must(t, err)
			f.WriteAt([]byte{byte(r.IntN(256))}, r.Int64N(st.Size()))
			f.Close()
		}
	default:
		if st, err := os.Lstat(path); err == nil && !st.Mode().IsRegular() {
			return
		}
		os.MkdirAll(filepath.Dir(path), 0o755)
		os.WriteFile(path, randomBytes(r.Uint64()%4, sizes[r.IntN(len(sizes))]), 0o644)
	}
}

// naiveTree walks a directory as simply as can be.
func naiveTree(t *testing.T, root string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	must(t, filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		rel := strings.TrimPrefix(path, root+"/")
		if err != nil || path == root || rel == ".replicate" || strings.HasPrefix(rel, ".replicate/") {
			return err
		}
		kind, content := File, ""
		mode := uint32(info.Mode().Perm())
		switch {
		case info.IsDir():
			kind = Dir
		case info.Mode()&os.ModeSymlink != 0:
			kind = Link
			content, err = os.Readlink(path)
		default:
			var b []byte
			b, err = os.ReadFile(path)
			content = string(b)
		}
		tree[rel] = fmt.Sprintf("%d %o %d %s", kind, mode, info.ModTime().UnixNano(), content)
		return err
	}))
	return tree
}

func TestStepsGoOn(t *testing.T) {
	l := newLab(t, memStore(t))
	w, _ := l.begin(WriterOptions{Paths: []string{}})
	step := func(s replicate.Step) replicate.Step {
		row, _ := l.commit(w, CommitRequest{Step: s})
		return row.Step
	}
	if a, b, c, d := step(replicate.NoStep), step(7), step(replicate.NoStep), step(-3); a != 0 || b != 7 || c != 8 || d != -3 {
		t.Error(a, b, c, d)
	}
	must(t, w.Log(Point{Step: replicate.NoStep}, Point{Step: 20}, Point{Step: replicate.NoStep}))
	if s := step(replicate.NoStep); s != 22 {
		t.Error(s)
	}
}

func TestSetIsLaterEachTime(t *testing.T) {
	l := newLab(t, memStore(t))
	w, _ := l.begin(WriterOptions{Paths: []string{}})
	future := time.Now().Add(time.Hour)
	w.at = future
	for i := range 3 {
		must(t, w.Set(t.Context(), map[string]json.RawMessage{"name": json.RawMessage(fmt.Sprint(`"`, i, `"`))}))
	}
	var last time.Time
	for _, r := range l.records() {
		if r.Set != nil && string(r.Set.Fields["name"]) == `"2"` {
			last = r.Set.At
		}
	}
	if want := future.Add(3 * time.Millisecond); last.Sub(want).Abs() > time.Millisecond {
		t.Errorf("the last set is at %v, want %v", last, want)
	}
}

// TestFilesThatGoBackStoreNothing changes a large file and takes the change back.
func TestFilesThatGoBackStoreNothing(t *testing.T) {
	l := newLab(t, diskStore(t))
	a, b := randomBytes(1, 20<<20), randomBytes(2, 20<<20)
	must(t, os.WriteFile(l.root+"/w", a, 0o644))
	w, _ := l.begin(WriterOptions{})
	must(t, os.WriteFile(l.root+"/w", b, 0o644))
	l.commit(w, CommitRequest{})
	must(t, os.WriteFile(l.root+"/w", a, 0o644))
	row, snap := l.commit(w, CommitRequest{})
	if snap.Added > 8192 || l.read(row.Row, "w") != string(a) {
		t.Errorf("going back stored %d bytes", snap.Added)
	}
}
