package repository

import (
	"os"
	"slices"
	"testing"
)

// TestLookSeesWhatACommitSaves compares a survey of a project with the tree and the report of a snapshot of it.
func TestLookSeesWhatACommitSaves(t *testing.T) {
	l := newLab(t, diskAt(t, t.TempDir()))
	writeFiles(t, l.root, "a", "1", "d/b", "22", "d/.gitignore", "out\n", "d/out/x", "3", ".env", "S=1", "keep/.env", "S=2", ".replicateignore", "!keep/.env\n")
	must(t, os.Symlink("../a", l.root+"/d/link"))
	must(t, os.Mkdir(l.root+"/empty", 0o700))
	o := WriterOptions{Ignore: []string{"*.tmp"}}
	writeFiles(t, l.root, "x.tmp", "4")
	w, snapshot := l.begin(o)
	survey, err := Look(t.Context(), SurveyOptions{Root: l.root, Ignore: o.Ignore})
	must(t, err)
	if len(survey.Sights) != len(w.tree.Entries) {
		t.Fatalf("sees %d paths, the tree has %d", len(survey.Sights), len(w.tree.Entries))
	}
	for i, s := range survey.Sights {
		e := &w.tree.Entries[i]
		if s.Path != e.Path || s.Kind != e.Kind || s.Mode != e.Mode || s.Mtime != e.Mtime || s.Target != e.Target || s.Kind == File && s.Size != e.Size {
			t.Errorf("sees %+v, the tree has %+v", s, e)
		}
	}
	if !slices.Equal(survey.LeftOut, snapshot.LeftOut) {
		t.Errorf("leaves out %v, a commit %v", survey.LeftOut, snapshot.LeftOut)
	}
}

func TestFramesKeepTheirSize(t *testing.T) {
	raw := randomBytes(1, 1000)
	stored := AppendFrame(nil, raw)
	for size, ok := range map[int]bool{1000: true, 999: false, 1001: false, -1: false, MaxChunk + 1: false} {
		if _, err := OpenFrame(nil, stored, size); (err == nil) != ok {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}
