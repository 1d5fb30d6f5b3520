package view

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/replicate/replicate"
)

var update = flag.Bool("update", false, "write the golden files")

func TestTree(t *testing.T) {
	l := newLab(t)
	_, _, commits := l.story()
	normal := strings.NewReplacer(
		string(commits[0].ID), "<commit 0>", string(commits[1].ID), "<commit 1>", string(commits[2].ID), "<commit 2>",
		commits[0].ID.Short(), "<c0>", commits[1].ID.Short(), "<c1>", commits[2].ID.Short(), "<c2>")
	var listing strings.Builder
	var files strings.Builder
	file := func(path, content string) { fmt.Fprintf(&files, "-- %s --\n%s", path, normal.Replace(steady(content))) }
	l.walk(func(path string, _ ID, e Entry) {
		path = normal.Replace(path)
		a, err := l.Attr(t.Context(), e.ID)
		l.must(err)
		switch a.Mode & TypeMask {
		case TypeDir:
			fmt.Fprintf(&listing, "%04o %s/\n", a.Mode&0o7777, path)
		case TypeLink:
			target, err := l.Link(t.Context(), e.ID)
			l.must(err)
			fmt.Fprintf(&listing, "link %s -> %s\n", path, normal.Replace(target))
		default:
			fmt.Fprintf(&listing, "%04o %s\n", a.Mode&0o7777, path)
			if path != "README.txt" && !strings.HasPrefix(path, "commits/") {
				file(path, l.read(e.ID))
			}
		}
	})
	file("commits/<c1>.json", l.cat("commits/"+commits[1].ID.Short()+".json"))
	const golden = "testdata/tree.txtar"
	got := "What the mount of a small repository lists and holds.\n\n" + listing.String() + files.String()
	if *update {
		l.must(os.WriteFile(golden, []byte(got), 0o644))
	}
	want, err := os.ReadFile(golden)
	l.must(err)
	for i, line := range strings.Split(got, "\n") {
		if wanted, rest, _ := strings.Cut(string(want), "\n"); wanted != line {
			t.Fatalf("line %d is %q, in %s (go test -update writes it) it is %q", i+1, line, golden, wanted)
		} else {
			want = []byte(rest)
		}
	}
}

var ended = regexp.MustCompile(`("ended": ?)"[^"]*"|(paper),[0-9.]+,`)

// steady takes the time at which the test itself ran out of a text.
func steady(text string) string { return ended.ReplaceAllString(text, `$1$2<end>`) }

func TestListedNamesAreFoundAsListed(t *testing.T) {
	l := newLab(t)
	l.story()
	n := 0
	l.walk(func(path string, dir ID, e Entry) {
		n++
		id, err := l.Lookup(t.Context(), dir, e.Name)
		if err != nil || id != e.ID {
			t.Errorf("%s: listed as %x, found as %x: %v", path, uint64(e.ID), uint64(id), err)
		}
		a, err := l.Attr(t.Context(), e.ID)
		if err != nil || a.Mode&TypeMask != e.Mode&TypeMask || e.Attr != nil && a != *e.Attr {
			t.Errorf("%s: listed with %+v, has %+v: %v", path, e.Attr, a, err)
		}
		if e.ID>>63 != 0 {
			t.Errorf("%s: node %x is negative", path, uint64(e.ID))
		}
	})
	if n < 40 {
		t.Errorf("only %d names", n)
	}
}

func TestNodesSurviveARestart(t *testing.T) {
	l := newLab(t)
	l.story()
	before := map[string]ID{}
	l.walk(func(path string, _ ID, e Entry) { before[path] = e.ID })
	l.reopen()
	l.walk(func(path string, _ ID, e Entry) {
		if before[path] != e.ID {
			t.Errorf("%s was node %x and is %x", path, uint64(before[path]), uint64(e.ID))
		}
		delete(before, path)
		if e.Mode&TypeMask == TypeFile {
			l.read(e.ID)
		}
	})
	for path := range before {
		t.Errorf("%s is gone", path)
	}
}

// TestCookies resumes every directory at every position, while entries come.
func TestCookies(t *testing.T) {
	l := newLab(t)
	_, second, _ := l.story()
	var dirs []ID
	l.walk(func(_ string, dir ID, e Entry) {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	})
	type position struct {
		cookie uint64
		name   string
	}
	lists := map[ID][]position{}
	for _, d := range dirs {
		l.must(l.List(t.Context(), d, 0, func(cookie uint64, e Entry) bool {
			if cookie < FirstCookie {
				t.Errorf("%x: cookie %d of %s", uint64(d), cookie, e.Name)
			}
			lists[d] = append(lists[d], position{cookie, e.Name})
			return true
		}))
	}
	l.commit(second, 2, "loss", 0.5, "new", 1)
	l.end(l.begin(replicate.Experiment{ID: "a00000e1f0c24d5b8a2e7d9c3b6f4a10"}), replicate.Finished)
	l.refresh()
	for d, list := range lists {
		for i, p := range list {
			var rest []string
			l.must(l.List(t.Context(), d, p.cookie, func(_ uint64, e Entry) bool {
				rest = append(rest, e.Name)
				return true
			}))
			for j, q := range list[i+1:] {
				if !slices.Contains(rest, q.name) {
					t.Errorf("%x: behind %s there is %v, without %s (%d)", uint64(d), p.name, rest, q.name, j)
				}
			}
			if slices.Contains(rest, p.name) {
				t.Errorf("%x: behind %s it comes again", uint64(d), p.name)
			}
		}
	}
}

func TestOtherSpellingsAreLinks(t *testing.T) {
	l := newLab(t)
	_, _, commits := l.story()
	const exp = "67386ce1f0c24d5b8a2e7d9c3b6f4a10"
	c := commits[1].ID
	tests := []struct{ dir, name, target string }{
		{"experiments", exp, "67386ce"}, {"experiments", "67", "67386ce"}, {"experiments", exp[:20], "67386ce"},
		{"experiments", "base line", "67386ce"},
		{"commits", string(c), c.Short()}, {"commits", string(c[:9]), c.Short()},
		{"experiments/67386ce/commits", "00000001-" + string(c), "00000001-" + c.Short()},
	}
	for _, tt := range tests {
		id, err := l.Lookup(t.Context(), l.at(tt.dir), tt.name)
		if err != nil {
			t.Errorf("%s/%s: %v", tt.dir, tt.name, err)
			continue
		}
		a, err := l.Attr(t.Context(), id)
		l.must(err)
		target, err := l.Link(t.Context(), id)
		if err != nil || a.Mode != linkMode || target != tt.target || a.Size != int64(len(target)) {
			t.Errorf("%s/%s: %o to %q, want %q: %v", tt.dir, tt.name, a.Mode, target, tt.target, err)
		}
	}
	for _, missing := range []string{"6738", "", "xyz", ".git", "@latest", exp + "00", exp[:31] + "1", "67386ce@best"} {
		if id, err := l.Lookup(t.Context(), l.at("experiments"), missing); missing != "6738" && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("experiments/%s: %x, %v", missing, uint64(id), err)
		}
	}
	for _, missing := range []string{"00000002-" + c.Short(), c.Short(), "00000001-", "1-" + c.Short()} {
		if _, err := l.Lookup(t.Context(), l.at("experiments/67386ce/commits"), missing); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("commits/%s: %v", missing, err)
		}
	}
}

func TestIdsThatShareDigitsShowMore(t *testing.T) {
	l := newLab(t)
	ids := []replicate.ID{"67386ce1f0c24d5b8a2e7d9c3b6f4a10", "67386ce2f0c24d5b8a2e7d9c3b6f4a10", "67386d00f0c24d5b8a2e7d9c3b6f4a10"}
	for i, id := range ids[:2] {
		l.end(l.begin(replicate.Experiment{ID: id}), replicate.Finished)
		l.refresh()
		if i == 0 && !slices.Equal(l.names("experiments"), []string{"67386ce"}) {
			t.Errorf("alone: %v", l.names("experiments"))
		}
	}
	l.end(l.begin(replicate.Experiment{ID: ids[2]}), replicate.Finished)
	changes := l.refresh()
	if got := l.names("experiments"); !slices.Equal(got, []string{"67386ce1", "67386ce2", "67386d0"}) {
		t.Errorf("names are %v", got)
	}
	if !slices.Contains(changes, Change{experimentsDir, "67386d0"}) {
		t.Errorf("changes are %v", changes)
	}
	if _, err := l.Lookup(t.Context(), experimentsDir, "67386ce"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ambiguous beginning: %v", err)
	}
}

func TestOldVersionsOfRenderedFilesStay(t *testing.T) {
	l := newLab(t)
	_, second, _ := l.story()
	id := l.at("experiments/9cce006/commits.csv")
	before := l.read(id)
	l.commit(second, 2, "loss", 0.5)
	l.refresh()
	next := l.at("experiments/9cce006/commits.csv")
	if next == id || l.read(next) == before {
		t.Error("a new version has the node of the old one")
	}
	if l.read(id) != before {
		t.Error("the old version changed")
	}
	l.reopen()
	if _, err := l.Content(t.Context(), id); !errors.Is(err, ErrStale) {
		t.Errorf("the old version after a restart: %v", err)
	}
}

// TestGrowingFilesOnlyGrow reads output.log and metrics.csv after every step of a recording: each state is a prefix of the next, by
// the same node, until there are other columns.
func TestGrowingFilesOnlyGrow(t *testing.T) {
	l := newLab(t)
	w := l.begin(replicate.Experiment{ID: "9cce0060f0c24d5b8a2e7d9c3b6f4a10"})
	type opened struct {
		id  ID
		was string
	}
	var files []opened
	look := func() {
		for _, name := range []string{"output.log", "metrics.csv"} {
			id, err := l.Lookup(t.Context(), l.at("experiments/9cce006"), name)
			if err == nil && !slices.ContainsFunc(files, func(f opened) bool { return f.id == id }) {
				files = append(files, opened{id: id})
			}
		}
		for i := range files {
			now := l.read(files[i].id)
			if !strings.HasPrefix(now, files[i].was) {
				t.Fatalf("node %x was %q and is %q", uint64(files[i].id), files[i].was, now)
			}
			if files[i].id.kind() == metricsCSV && now != "" && !strings.HasSuffix(now, "\n") {
				t.Fatalf("half a line: %q", now)
			}
			files[i].was = now
		}
	}
	l.refresh()
	if got := l.names("experiments/9cce006"); slices.Contains(got, "output.log") || slices.Contains(got, "metrics.csv") {
		t.Errorf("nothing was recorded, yet there is %v", got)
	}
	for i := range 60 {
		l.must(w.Output(fmt.Appendf(nil, "line %d\rprogress", i)))
		p := point(int64(i), "loss", float64(i))
		if i >= 20 {
			p = point(int64(i), "loss", float64(i), "late", i)
		}
		l.must(w.Log(p))
		look()
		switch i % 10 {
		case 3:
			l.must(w.Flush(t.Context()))
		case 5:
			l.refresh()
		case 7:
			l.commit(w, int64(i), "loss", 0.5)
		}
		look()
	}
	growing := len(files)
	if growing != 3 {
		t.Errorf("there were %d nodes, want the log, and the metrics with one and with two columns", growing)
	}
	l.end(w, replicate.Finished)
	look()
	l.refresh()
	for _, f := range files[:growing] {
		if now := l.read(f.id); !strings.HasPrefix(now, f.was) {
			t.Errorf("after the end node %x shrank", uint64(f.id))
		}
	}
	look()
	for name, old := range map[string]ID{"output.log": files[0].id, "metrics.csv": files[growing-1].id} {
		id := l.at("experiments/9cce006/" + name)
		if id.Life() != Named || l.read(id) != l.read(old) {
			t.Errorf("%s: what was rendered at the end is not what had grown:\n%s\n%s", name, l.read(id), l.read(old))
		}
	}
	l.reopen()
	for _, f := range files[:growing] {
		if now := l.read(f.id); now != f.was {
			t.Errorf("after a restart node %x is\n%s\nand was\n%s", uint64(f.id), now, f.was)
		}
	}
}

func TestMissingPackBreaksOnlyItsFiles(t *testing.T) {
	l := newLab(t)
	big := make([]byte, 2<<20)
	for i := range big {
		big[i] = byte(i * i >> 7)
	}
	w := l.begin(replicate.Experiment{ID: "9cce0060f0c24d5b8a2e7d9c3b6f4a10"})
	l.write("model", string(big))
	broken := l.commit(w, 0)
	packs := map[replicate.Hash]bool{}
	for _, p := range broken.Packs {
		packs[p] = true
	}
	l.write("other", "fine", "model", "small")
	fine := l.commit(w, 1)
	for _, p := range fine.Packs {
		delete(packs, p)
	}
	l.end(w, replicate.Finished)
	l.refresh()
	if len(packs) == 0 {
		t.Fatal("no pack is the first commit's alone")
	}
	for p := range packs {
		l.must(os.Remove(l.packPath(p)))
	}
	l.reopen()
	r, err := l.Content(t.Context(), l.at("commits/"+fine.ID.Short()+"/other"))
	l.must(err)
	content, err := io.ReadAll(io.NewSectionReader(r, 0, 100))
	if err != nil || string(content) != "fine" {
		t.Errorf("the file beside reads %q, %v", content, err)
	}
	id, err := l.Lookup(t.Context(), l.at("commits/"+broken.ID.Short()), "model")
	if err == nil {
		if r, err = l.Content(t.Context(), id); err == nil {
			_, err = r.ReadAt(make([]byte, 10), 0)
		}
	}
	if err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, ErrStale) {
		t.Errorf("the broken file: %v", err)
	}
}

func TestPinnedView(t *testing.T) {
	l := newLab(t)
	_, _, commits := l.story()
	v, err := NewCommit(t.Context(), l.View.index, l.repo, t.TempDir(), commits[0].ID)
	l.must(err)
	pinned := &lab{t: t, View: v}
	if got := pinned.names(""); !slices.Equal(got, []string{"data", "model.bin", "train.py"}) {
		t.Errorf("the root lists %v", got)
	}
	if got := pinned.cat("model.bin"); got != "weights 0\n" {
		t.Errorf("model.bin is %q", got)
	}
	if v.Life(Root) != Forever {
		t.Error("the root may change")
	}
	if _, err := v.Lookup(t.Context(), Root, "README.txt"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("README.txt: %v", err)
	}
}

func TestCommitsShareLargeFiles(t *testing.T) {
	l := newLab(t)
	w := l.begin(replicate.Experiment{ID: "9cce0060f0c24d5b8a2e7d9c3b6f4a10"})
	l.write("large", strings.Repeat("x", sharedSize), "small", strings.Repeat("x", sharedSize-1))
	a := l.commit(w, 0)
	l.write("other", "makes another tree")
	b := l.commit(w, 1)
	l.write("large", strings.Repeat("y", sharedSize))
	c := l.commit(w, 2)
	l.end(w, replicate.Finished)
	l.refresh()
	id := func(c replicate.ID, name string) ID { return l.at("commits/" + c.Short() + "/" + name) }
	large := id(a.ID, "large")
	if large != id(b.ID, "large") || large == id(c.ID, "large") || id(a.ID, "small") == id(b.ID, "small") {
		t.Error("large files are not one node where they are the same, and only there")
	}
	inExperiment := l.at("experiments/9cce006/commits/00000000-" + a.ID.Short())
	if same, err := l.Lookup(t.Context(), inExperiment, "large"); same != large {
		t.Errorf("below experiments/ it is node %x: %v", uint64(same), err)
	}
	if got := l.read(large); got != strings.Repeat("x", sharedSize) {
		t.Errorf("reads %d bytes", len(got))
	}
	l.reopen()
	if large != id(b.ID, "large") || l.read(large) != strings.Repeat("x", sharedSize) {
		t.Error("after a restart it is another node")
	}
}
