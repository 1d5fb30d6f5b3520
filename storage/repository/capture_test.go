package repository

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

// read returns the content of a file of a commit.
func (l *lab) read(row Row, path string) string {
	l.t.Helper()
	tree, err := l.repo.Tree(l.t.Context(), row)
	must(l.t, err)
	e := tree.Lookup(path)
	if e == nil {
		l.t.Fatalf("%q is not in the tree", path)
	}
	var b strings.Builder
	must(l.t, l.repo.WriteFile(l.t.Context(), &b, e))
	return b.String()
}

func (l *lab) entry(row Row, path string) *Entry {
	l.t.Helper()
	tree, err := l.repo.Tree(l.t.Context(), row)
	must(l.t, err)
	return tree.Lookup(path)
}

func whys(s Snapshot) (list []string) {
	for _, l := range s.LeftOut {
		list = append(list, l.Path+": "+l.Why)
	}
	return list
}

// TestFilesThatChangeWhileRead changes files after they were read and before they are looked at again.
func TestFilesThatChangeWhileRead(t *testing.T) {
	sizes := map[string]int{"small": 100, "whole": 200 << 10, "large": 3 << 20}
	for name, size := range sizes {
		old := string(randomBytes(1, size))
		fresh := string(randomBytes(2, size))
		tests := []struct {
			name   string
			change func(path string, times int32)
			want   string // "" if it is not in the tree
			torn   bool
			why    []string
		}{
			{"once", func(path string, n int32) {
				if n == 1 {
					os.WriteFile(path, []byte(fresh), 0o644)
				}
			}, fresh, false, nil},
			{"shrinks", func(path string, n int32) {
				if n == 1 {
					os.Truncate(path, int64(size/2))
				}
			}, old[:size/2], false, nil},
			{"grows each time", func(path string, n int32) {
				f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
				f.WriteString("more")
				f.Close()
			}, old + "moremore", true, nil},
			{"vanishes", func(path string, n int32) { os.Remove(path) }, "", false, []string{"f: not there"}},
			{"becomes a fifo", func(path string, n int32) { os.Remove(path); unix.Mkfifo(path, 0o600) }, "", false, []string{"f: changed while it was read"}},
			{"is replaced by rename", func(path string, n int32) {
				if n == 1 {
					os.WriteFile(path+".new", []byte(fresh), 0o644)
					os.Rename(path+".new", path)
				}
			}, fresh, false, nil},
			{"grows out of its kind", func(path string, n int32) {
				if n == 1 {
					os.WriteFile(path, []byte(strings.Repeat(fresh, 2<<20/size+1)), 0o644)
				}
			}, strings.Repeat(fresh, 2<<20/size+1), false, nil},
		}
		for _, tt := range tests {
			t.Run(name+" "+tt.name, func(t *testing.T) {
				l := newLab(t, diskStore(t))
				writeFiles(t, l.root, "f", old, "other", "x")
				var times atomic.Int32
				l.spool.hooked = func(path string) {
					if path == "f" {
						tt.change(l.root+"/f", times.Add(1))
					}
				}
				w, snap := l.begin(WriterOptions{})
				equalTexts(t, "left out", whys(snap), tt.why)
				if tt.torn != slices.Equal(snap.Torn, []string{"f"}) {
					t.Errorf("torn are %q", snap.Torn)
				}
				row, _ := l.begun(w)
				e := l.entry(row, "f")
				if (e != nil) != (tt.want != "") {
					t.Fatalf("the entry is %+v", e)
				}
				if e != nil && (l.read(row, "f") != tt.want || e.Torn != tt.torn || e.Size != int64(len(tt.want))) {
					t.Errorf("%d bytes, torn %v", e.Size, e.Torn)
				}
				if l.read(row, "other") != "x" {
					t.Error("the other file is lost")
				}
			})
		}
	}
}

// begun returns the row of a writer's experiment.
func (l *lab) begun(w *Writer) (Row, *ExperimentRow) {
	l.t.Helper()
	for _, r := range l.records() {
		if r.Experiment != nil && r.Experiment.ID == w.own.meta.Experiment {
			return r.Experiment.Row, r.Experiment
		}
	}
	l.t.Fatal("the experiment is not there")
	return Row{}, nil
}

// TestSameTimesAreNotTrusted changes a file and gives it its old size and times, within what the clock can tell apart.
func TestSameTimesAreNotTrusted(t *testing.T) {
	l := newLab(t, diskStore(t))
	ahead := time.Now().Add(time.Hour) // however long the snapshot takes
	writeFiles(t, l.root, "f", "old")
	must(t, os.Chtimes(l.root+"/f", ahead, ahead))
	w, _ := l.begin(WriterOptions{})
	st, err := lstat(l.root + "/f")
	must(t, err)
	if len(w.files) != 1 || w.files[0].matches(&st) {
		t.Fatalf("a file written just now is trusted: %+v", w.files)
	}
	for _, tt := range []struct {
		age  time.Duration
		want bool
	}{{0, false}, {49 * time.Millisecond, false}, {51 * time.Millisecond, true}, {-time.Hour, false}} {
		moment := time.Unix(0, max(st.mtime, st.ctime)).Add(tt.age)
		if got := st.settled(moment); got != tt.want {
			t.Errorf("%v after the last change: settled is %v", tt.age, got)
		}
	}
	coarse := stat{mtime: 7e9, ctime: 7e9}
	if coarse.settled(time.Unix(9, 0)) || !coarse.settled(time.Unix(9, 1)) {
		t.Error("a file system with whole seconds needs two of them")
	}
	if st.settled(time.Time{}) {
		t.Error("without a clock nothing is settled")
	}
	writeFiles(t, l.root, "f", "new")
	must(t, os.Chtimes(l.root+"/f", ahead, ahead))
	row, _ := l.commit(w, CommitRequest{})
	if got := l.read(row.Row, "f"); got != "new" {
		t.Errorf("read %q", got)
	}
}

// TestStatCacheAcrossProcesses begins a second experiment in a directory that did not change.
func TestStatCacheAcrossProcesses(t *testing.T) {
	l := newLab(t, diskStore(t))
	large := randomBytes(3, 20<<20)
	writeFiles(t, l.root, "a", "1", "d/b", "2", "large", string(large))
	l.settle()
	first, snap := l.begin(WriterOptions{})
	if snap.Changed != 3 || len(first.files) != 3 {
		t.Fatalf("%+v, %d cached", snap, len(first.files))
	}
	l.spool = l.open()
	second, snap := l.begin(WriterOptions{})
	if snap.Changed != 0 || snap.Added > 4096 {
		t.Errorf("the second experiment read %d files and stored %d bytes", snap.Changed, snap.Added)
	}
	row, _ := l.begun(second)
	if l.read(row, "large") != string(large) || l.read(row, "d/b") != "2" {
		t.Error("content differs")
	}
	if one, _ := l.begun(first); !slices.ContainsFunc(row.Packs, func(p replicate.Hash) bool { return p == one.Packs[0] }) {
		t.Error("the second experiment does not need the first one's pack")
	}
}

// TestYoungFilesAreNotStoredTwice begins an experiment right after another, in a directory whose files were just written: they are read again, as their
// times tell nothing, and not stored again.
func TestYoungFilesAreNotStoredTwice(t *testing.T) {
	l := newLab(t, diskStore(t))
	large := string(randomBytes(3, 20<<20))
	writeFiles(t, l.root, "small", "1", "medium", string(randomBytes(4, 300<<10)), "large", large)
	l.begin(WriterOptions{})
	l.spool = l.open()
	writeFiles(t, l.root, "large", large) // its times are new in any case
	second, snap := l.begin(WriterOptions{})
	if snap.Changed == 0 || snap.Added > 4096 {
		t.Errorf("the second experiment read %d files and stored %d bytes", snap.Changed, snap.Added)
	}
	if row, _ := l.begun(second); l.read(row, "large") != large {
		t.Error("content differs")
	}
}

// settle makes everything in the project old enough to be trusted.
func (l *lab) settle() {
	l.t.Helper()
	// ctime cannot be set: wait for the file system's clock to pass.
	for start := time.Now(); ; {
		now, err := fileClock(l.t.TempDir())
		must(l.t, err)
		if now.After(start.Add(2 * racyFine)) {
			return
		}
	}
}

func TestUnreadableFilesAreLeftOut(t *testing.T) {
	if os.Getuid() == 0 {
		runAsNobody(t)
		return
	}
	l := newLab(t, diskStore(t))
	writeFiles(t, l.root, "a", "1", "secret", "2", "closed/x", "3", "no x/y", "4")
	must(t, os.Chmod(l.root+"/secret", 0))
	must(t, os.Chmod(l.root+"/closed", 0))
	must(t, os.Chmod(l.root+"/no x", 0o600))
	t.Cleanup(func() { os.Chmod(l.root+"/closed", 0o700); os.Chmod(l.root+"/no x", 0o700) })
	w, snap := l.begin(WriterOptions{})
	equalTexts(t, "left out", whys(snap), []string{"closed/: unreadable", "no x/y: unreadable", "secret: unreadable"})
	row, _ := l.begun(w)
	if l.read(row, "a") != "1" || l.entry(row, "closed") == nil || l.entry(row, "secret") != nil {
		t.Error("the rest is not saved as it should be")
	}
}

// TestChunksWhenACoreBecomesSpare reads a file of several blocks, during which a core becomes spare, up to its end or a chunk before.
func TestChunksWhenACoreBecomesSpare(t *testing.T) {
	data := fill(make([]byte, 40<<20), 3)
	want := cuts(t, newChunker(bytes.NewReader(data), nil))
	for _, until := range []int{2, 5, len(want)} {
		for spareAt := range until + 1 {
			c := &captor{spare: make(chan struct{}, 1), scratch: &scratch{}}
			n, at := 0, 0
			free := func() {
				if n == spareAt {
					c.spare <- struct{}{}
				}
			}
			free()
			for chunk := range c.chunks(t.Context(), newChunker(bytes.NewReader(data), nil)) {
				if chunk.err != nil || chunk.hash != want[n].Hash || !bytes.Equal(chunk.data, data[at:at+int(want[n].Raw)]) {
					t.Fatalf("a core is spare from chunk %d on: chunk %d of %d bytes is another one: %v", spareAt, n, len(chunk.data), chunk.err)
				}
				at += len(chunk.data)
				n++
				free()
				if n == until {
					break
				}
			}
			if n != until || spareAt < until && len(c.spare) != 1 {
				t.Errorf("a core is spare from chunk %d on: %d chunks of %d, and %d cores are spare then", spareAt, n, until, len(c.spare))
			}
		}
	}
}

func TestLeftOutIsMeasuredWithinBounds(t *testing.T) {
	l := newLab(t, diskStore(t))
	writeFiles(t, l.root, ".gitignore", "data/\nbig\n", "data/a", "123", "data/s/b", "4567", "big", "12345")
	for i := range 2000 {
		writeFiles(t, l.root, fmt.Sprintf("many/x%d.pyc", i), "12")
	}
	_, snap := l.begin(WriterOptions{})
	if len(snap.LeftOut) != maxLeftOut {
		t.Fatalf("%d left out", len(snap.LeftOut))
	}
	want := []LeftOut{{Path: "big", Bytes: 5, Why: ".gitignore:2", ruled: true}, {Path: "data/", Bytes: 7, Why: ".gitignore:1", ruled: true},
		{Path: "many/x0.pyc", Bytes: 2, Why: "cache", ruled: true}}
	if !slices.Equal(snap.LeftOut[:3], want) {
		t.Errorf("left out %+v", snap.LeftOut[:3])
	}
	if last := snap.LeftOut[maxLeftOut-1]; last != (LeftOut{Bytes: 2 * 1003, Why: "1003 more"}) {
		t.Errorf("the last line is %+v", last)
	}
	m := measurer{root: l.root, now: time.Now, left: 3, until: time.Now().Add(time.Hour)}
	if _, more := m.size("many/"); !more {
		t.Error("a huge directory is measured whole")
	}
}
