package legacy_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/legacy/legacytest"
	"github.com/replicate/replicate/storage/repository"
	"github.com/replicate/replicate/storage/storagetest"
)

// converted copies to a new repository and reads that.
func (o *opened) converted(opt repository.CopyOptions) (*opened, repository.CopyReport) {
	o.t.Helper()
	store, err := disk.New(o.t.TempDir())
	check(o.t, err)
	to, err := repository.Create(o.t.Context(), store)
	check(o.t, err)
	report, err := repository.OpenSpool(to, "").Copy(o.t.Context(), o.repo, opt)
	check(o.t, err)
	return &opened{t: o.t, repo: to, dir: store.Dir()}, report
}

// sameExperiments compares what was converted with what it was converted from.
func sameExperiments(t *testing.T, was, is facts) {
	t.Helper()
	if len(is.experiments) != len(was.experiments) || len(is.commits) != len(was.commits) || len(is.errors) > 0 {
		t.Fatalf("%d experiments and %d commits instead of %d and %d, errors %v", len(is.experiments), len(is.commits),
			len(was.experiments), len(was.commits), is.errors)
	}
	line := func(r repository.Record) string {
		t.Helper()
		encoded, err := r.Encode()
		check(t, err)
		return string(encoded.Line)
	}
	for id, e := range was.experiments {
		want, got := e.Experiment, is.experiments[id[:32]]
		want.ID = want.ID[:32]
		if w, g := line(repository.Record{Experiment: &repository.ExperimentRow{Experiment: want}}),
			line(repository.Record{Experiment: &repository.ExperimentRow{Experiment: got.Experiment}}); w != g {
			t.Errorf("experiment\n%s instead of\n%s", g, w)
		}
	}
	for id, c := range was.commits {
		want, got := c.Commit, is.commits[id[:32]]
		want.ID, want.Experiment = want.ID[:32], want.Experiment[:32]
		want.Parent = want.Parent[:min(32, len(want.Parent))]
		want.Files, want.Bytes, want.Added = got.Files, got.Bytes, got.Added // not known before
		if w, g := line(repository.Record{Commit: &repository.CommitRow{Commit: want}}),
			line(repository.Record{Commit: &repository.CommitRow{Commit: got.Commit}}); w != g {
			t.Errorf("commit\n%s instead of\n%s", g, w)
		}
	}
}

func TestConvert(t *testing.T) {
	each(t, func(t *testing.T, f legacytest.Format) {
		o := open(t, legacytest.Fixture(f))
		was := o.sync(nil)
		n, report := o.converted(repository.CopyOptions{})
		if report.Experiments != 2 || report.Commits != 4 || report.Converted != 6 || report.Problems > 0 {
			t.Errorf("reported %+v", report)
		}
		is := n.sync(nil)
		sameExperiments(t, was, is)
		for experiment := 1; experiment <= 2; experiment++ {
			for k := 1; k <= 2; k++ {
				id := replicate.ID(legacytest.CommitID(f, experiment, k))
				old, _ := o.files(was.commits[id].Row)
				files, tree := n.files(is.commits[id[:32]].Row)
				compare(t, files, legacytest.View(f, experiment, k), f >= legacytest.F5)
				compare(t, files, old, true)
				if c := is.commits[id[:32]]; c.Files != tree.Files || c.Bytes != tree.Bytes || c.Files != int64(len(files)) {
					t.Errorf("%d files of %d bytes", c.Files, c.Bytes)
				}
			}
		}
		if text := recordOf(t, n, replicate.ID(legacytest.ExperimentID(f, 1))[:32]); !strings.Contains(text, `"legacy":{"id":"`+legacytest.ExperimentID(f, 1)+`"`) || !strings.Contains(text, `"config":{`) {
			t.Errorf("record %s", text)
		}
		_, err := n.repo.Check(t.Context(), repository.CheckOptions{ReadData: true}, func(p repository.Problem) { t.Errorf("%+v", p) })
		check(t, err)
	})
}

// recordOf returns the line of an experiment.
func recordOf(t *testing.T, o *opened, id replicate.ID) string {
	t.Helper()
	for batch, err := range o.repo.Sync(t.Context(), func(string) bool { return false }) {
		check(t, err)
		for _, r := range batch.Records {
			if r.Experiment != nil && r.Experiment.ID == id {
				return string(r.Line)
			}
		}
	}
	t.Fatalf("no record of %s", id)
	return ""
}

func TestConvertStoresWhatIsTheSameOnce(t *testing.T) {
	r := legacytest.Fixture(legacytest.F1)
	for _, k := range []int{1, 2} {
		id := legacytest.CommitID(legacytest.F1, 1, k)
		r["commits/"+id+"/data/base.bin"] = bytes.Repeat([]byte("0123456789abcdefghijklmnopqrstuvwxyz\n"), 1)
		r["commits/"+id+"/data/large.bin"] = r["commits/"+legacytest.CommitID(legacytest.F1, 1, 2)+"/out/model.bin"]
	}
	o := open(t, r)
	n, _ := o.converted(repository.CopyOptions{})
	var stored int64
	for object, err := range n.repo.Store().List(t.Context(), "pack/", "") {
		check(t, err)
		stored += object.Size
	}
	if most := int64(8 << 20); stored > most {
		t.Errorf("%d bytes are stored, of which 7 MB are in two commits", stored)
	}
}

// TestConvertSurvivesStops stops a conversion at calls of the destination, and begins again.
func TestConvertSurvivesStops(t *testing.T) {
	o := open(t, legacytest.Fixture(legacytest.F2))
	was := o.sync(nil)
	for n := 1; ; n += 5 {
		store, err := disk.New(t.TempDir())
		check(t, err)
		to, err := repository.Create(t.Context(), store)
		check(t, err)
		stop := &storagetest.Stop{N: n, After: n%2 == 0}
		dying, err := repository.Open(t.Context(), storagetest.Stopped(store, stop))
		if err == nil {
			_, err = repository.OpenSpool(dying, t.TempDir()).Copy(t.Context(), o.repo, repository.CopyOptions{})
		}
		if !stop.Reached() {
			check(t, err)
			break
		}
		_, err = repository.OpenSpool(to, "").Copy(t.Context(), o.repo, repository.CopyOptions{})
		check(t, err)
		again := &opened{t: t, repo: to}
		is := again.sync(nil)
		sameExperiments(t, was, is)
		for id, c := range was.commits {
			old, _ := o.files(c.Row)
			files, _ := again.files(is.commits[id[:32]].Row)
			compare(t, files, old, true)
		}
	}
}

func TestConvertLeavesOutWhatIsBroken(t *testing.T) {
	r := legacytest.Fixture(legacytest.F6)
	cut("checkpoints/" + legacytest.CommitID(legacytest.F6, 1, 1) + ".tar.gz")(r)
	cut("metadata/experiments/" + legacytest.ExperimentID(legacytest.F6, 2) + ".json")(r)
	delete(r, "checkpoints/"+legacytest.CommitID(legacytest.F6, 1, 2)+".tar.gz")
	o := open(t, r)
	var told []string
	n, report := o.converted(repository.CopyOptions{Warn: func(err error) { told = append(told, err.Error()) }})
	text := strings.Join(told, "\n")
	for _, want := range []string{"611c611c", "the tarball is damaged", legacytest.ExperimentID(legacytest.F6, 2), "copy commit 612c612 of experiment 61a061a: commit 612c612 is incomplete"} {
		if !strings.Contains(text, want) {
			t.Errorf("nobody was told of %q:\n%s", want, text)
		}
	}
	is := n.sync(nil)
	if report.Problems != 3 || len(is.experiments) != 1 || len(is.commits) != 1 {
		t.Errorf("reported %+v: %d experiments, %d commits", report, len(is.experiments), len(is.commits))
	}
	files, _ := n.files(is.commits[replicate.ID(legacytest.CommitID(legacytest.F6, 1, 2)[:32])].Row)
	compare(t, files, legacytest.Project(1), true)
}
