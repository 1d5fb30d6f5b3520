package legacy_test

import (
	"bytes"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/legacy"
	"github.com/replicate/replicate/storage/legacy/legacytest"
	"github.com/replicate/replicate/storage/repository"
)

// opened is an old repository that a test opened.
type opened struct {
	t    *testing.T
	repo *repository.Repository
	dir  string // its folder
	kept string // for its files
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, r legacytest.Root) *opened {
	t.Helper()
	dir := t.TempDir()
	check(t, r.Write(dir))
	store, err := disk.New(dir)
	check(t, err)
	o := openStore(t, store, t.TempDir())
	o.dir = dir
	return o
}

func openStore(t *testing.T, store storage.Store, kept string) *opened {
	t.Helper()
	repo, err := legacy.Open(t.Context(), store, func(string) string { return kept })
	check(t, err)
	return &opened{t: t, repo: repo, kept: kept}
}

// facts are all rows of a repository by id, and the errors of what cannot be read.
type facts struct {
	experiments map[replicate.ID]*repository.ExperimentRow
	commits     map[replicate.ID]*repository.CommitRow
	errors      []error
	keys        map[string]bool // settled ones
}

func (o *opened) sync(known map[string]bool) facts {
	o.t.Helper()
	f := facts{map[replicate.ID]*repository.ExperimentRow{}, map[replicate.ID]*repository.CommitRow{}, nil, map[string]bool{}}
	for batch, err := range o.repo.Sync(o.t.Context(), func(key string) bool { return known[key] }) {
		check(o.t, err)
		if batch.Err != nil {
			f.errors = append(f.errors, batch.Err)
		}
		if batch.Settled {
			for _, key := range append(batch.Inputs, batch.Key) {
				f.keys[key] = true
			}
		}
		for _, r := range batch.Records {
			switch {
			case r.Experiment != nil:
				f.experiments[r.Experiment.ID] = r.Experiment
			case r.Commit != nil:
				f.commits[r.Commit.ID] = r.Commit
			}
		}
	}
	return f
}

func (f facts) commit(t *testing.T, format legacytest.Format, experiment, n int) *repository.CommitRow {
	t.Helper()
	c := f.commits[replicate.ID(legacytest.CommitID(format, experiment, n))]
	if c == nil {
		t.Fatalf("commit %d.%d is not there", experiment, n)
	}
	return c
}

// files reads all files of a row.
func (o *opened) files(row repository.Row) (map[string]legacytest.File, *repository.Tree) {
	o.t.Helper()
	tree, err := o.repo.Tree(o.t.Context(), row)
	check(o.t, err)
	files := map[string]legacytest.File{}
	for i := range tree.Entries {
		e := &tree.Entries[i]
		if e.Kind != repository.File {
			continue
		}
		var b bytes.Buffer
		check(o.t, o.repo.WriteFile(o.t.Context(), &b, e))
		files[e.Path] = legacytest.File{Mode: int64(e.Mode), Data: b.String()}
	}
	return files, tree
}

func compare(t *testing.T, got, want map[string]legacytest.File, modes bool) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		g, ok := got[name]
		switch {
		case !ok:
			t.Errorf("%q is missing", name)
		case g.Data != want[name].Data:
			t.Errorf("%q holds %.40q, want %.40q", name, g.Data, want[name].Data)
		case modes && g.Mode != want[name].Mode:
			t.Errorf("%q has mode %o, want %o", name, g.Mode, want[name].Mode)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%q is too much", name)
		}
	}
}

// each runs a test for every format.
func each(t *testing.T, test func(t *testing.T, f legacytest.Format)) {
	for _, f := range legacytest.Formats {
		t.Run(f.String(), func(t *testing.T) { test(t, f) })
	}
}

func TestExperiments(t *testing.T) {
	each(t, func(t *testing.T, f legacytest.Format) {
		got := open(t, legacytest.Fixture(f)).sync(nil)
		if len(got.errors) > 0 || len(got.experiments) != 2 || len(got.commits) != 4 {
			t.Fatalf("%d experiments, %d commits, errors %v", len(got.experiments), len(got.commits), got.errors)
		}
		checkExperiment(t, f, got.experiments[replicate.ID(legacytest.ExperimentID(f, 1))])
	})
}

func checkExperiment(t *testing.T, f legacytest.Format, e *repository.ExperimentRow) {
	t.Helper()
	infinity, deep := replicate.Float(math.Inf(1)), replicate.Values{{Name: "deep", Value: replicate.Bool(true)}}
	want := replicate.Values{
		{Name: "learning_rate", Value: replicate.Float(0.01)},
		{Name: "layers", Value: replicate.List([]replicate.Value{replicate.Int(64), replicate.Float(32), replicate.Text("NaN")})},
		{Name: "seed", Value: replicate.Int(9007199254740993)},
		{Name: "name", Value: replicate.Text("日本 <b>&")},
		{Name: "off", Value: replicate.Value{}},
		{Name: "text", Value: replicate.Text("None")},
		{Name: "limit", Value: infinity},
		{Name: "nested", Value: replicate.Map(deep)},
	}
	if g, w := string(e.Params.AppendJSON(nil)), string(want.AppendJSON(nil)); g != w {
		t.Errorf("params are %s, want %s", g, w)
	}
	if e.Created != legacytest.CreatedAt(1, 0) || e.User != "ben" || e.Host != "" || len(e.Command) != 1 || e.Command[0] != "train.py 0.01" {
		t.Errorf("created %v by %q on %q: %q", e.Created, e.User, e.Host, e.Command)
	}
	if e.Metric == nil || *e.Metric != (replicate.Metric{Name: "loss", Goal: replicate.Minimize}) {
		t.Errorf("primary metric %v", e.Metric)
	}
	if e.Status != replicate.Finished {
		t.Errorf("status %q", e.Status)
	}
	python := "3.8"
	if f == legacytest.F7 {
		python = "3.11.2"
	}
	if e.Python == nil || e.Python.Version != python || f == legacytest.F6 && e.Python.Packages["numpy"] != "1.19.4" {
		t.Errorf("python %+v", e.Python)
	}
}

func TestCommits(t *testing.T) {
	each(t, func(t *testing.T, f legacytest.Format) {
		got := open(t, legacytest.Fixture(f)).sync(nil)
		first, second := got.commit(t, f, 1, 1), got.commit(t, f, 1, 2)
		if first.Step != 1 || second.Step != 2 || first.Seq != 0 || second.Seq != 1 || second.Parent != first.ID || first.Parent != "" {
			t.Errorf("commits %+v, %+v", first.Commit, second.Commit)
		}
		if second.Time != legacytest.CreatedAt(1, 2) || second.Experiment != replicate.ID(legacytest.ExperimentID(f, 1)) {
			t.Errorf("commit %+v", second.Commit)
		}
		if m := string(second.Metrics.AppendJSON(nil)); m != `{"loss":0.5,"accuracy":0.5,"note":"null"}` {
			t.Errorf("metrics %s", m)
		}
		if c := got.commit(t, f, 2, 1); c.Step != replicate.NoStep {
			t.Errorf("a step that was not given is %d", c.Step)
		}
		if loss, _ := got.commit(t, f, 2, 2).Metrics.Get("loss"); !loss.IsNaN() {
			t.Errorf("NaN is %v", loss)
		}
	})
}

func TestFiles(t *testing.T) {
	each(t, func(t *testing.T, f legacytest.Format) {
		o := open(t, legacytest.Fixture(f))
		got := o.sync(nil)
		for experiment := 1; experiment <= 2; experiment++ {
			for n := 1; n <= 2; n++ {
				files, tree := o.files(got.commit(t, f, experiment, n).Row)
				compare(t, files, legacytest.View(f, experiment, n), f >= legacytest.F5)
				if e := tree.Lookup("train.py"); f >= legacytest.F5 && e.Mtime != legacytest.TarTime.UnixNano() {
					t.Errorf("mtime %v", time.Unix(0, e.Mtime))
				}
			}
		}
		files, _ := o.files(got.experiments[replicate.ID(legacytest.ExperimentID(f, 2))].Row)
		if want := legacytest.Project(2); f != legacytest.F1 {
			compare(t, files, want, f >= legacytest.F5)
		} else if len(files) > 0 {
			t.Errorf("F1 has no files of experiments, got %d", len(files))
		}
	})
}

func TestMixedRoot(t *testing.T) {
	o := open(t, legacytest.Mixed())
	got := o.sync(nil)
	if len(got.experiments) != 14 || len(got.commits) != 28 || len(got.errors) > 0 {
		t.Fatalf("%d experiments, %d commits, errors %v", len(got.experiments), len(got.commits), got.errors)
	}
	for _, f := range legacytest.Formats {
		files, _ := o.files(got.commit(t, f, 2, 1).Row)
		compare(t, files, legacytest.View(f, 2, 1), f >= legacytest.F5)
	}
}

func TestNothingIsReadTwice(t *testing.T) {
	o := open(t, legacytest.Mixed())
	known := o.sync(nil).keys
	if again := o.sync(known); len(again.keys)+len(again.experiments)+len(again.commits) > 0 {
		t.Errorf("yielded again: %v", slices.Sorted(maps.Keys(again.keys)))
	}
	late := legacytest.CommitID(legacytest.F2, 1, 2)
	text, err := os.ReadFile(filepath.Join(o.dir, "metadata/commits", late+".json"))
	check(t, err)
	id := strings.Repeat("ab", 32)
	check(t, os.WriteFile(filepath.Join(o.dir, "metadata/commits", id+".json"), bytes.Replace(text, []byte(late), []byte(id), 1), 0o600))
	c := o.sync(known).commits[replicate.ID(id)]
	if c == nil || c.Seq != 2 && c.Seq != 1 {
		t.Errorf("a commit that came later is %+v", c)
	}
}

// snapshot lists a folder with the contents of its files.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	check(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			found[path] = "folder"
			return err
		}
		data, err := os.ReadFile(path)
		found[path] = string(data)
		return err
	}))
	return found
}

func TestOldRepositoryIsOnlyRead(t *testing.T) {
	o := open(t, legacytest.Mixed())
	before := snapshot(t, o.dir)
	got := o.sync(nil)
	o.files(got.commit(t, legacytest.F6, 1, 1).Row)
	_, err := o.repo.Heartbeats(t.Context())
	check(t, err)
	note, err := repository.Record{Set: &repository.Set{Experiment: replicate.ID(legacytest.ExperimentID(legacytest.F6, 1)), At: time.Now()}}.Encode()
	check(t, err)
	if err := o.repo.Append(t.Context(), note); replicate.KindOf(err) != replicate.Permission {
		t.Errorf("writing to it: %v", err)
	}
	_, err = repository.OpenSpool(o.repo, t.TempDir()).Recover(t.Context())
	check(t, err)
	_, err = o.repo.Check(t.Context(), repository.CheckOptions{ReadData: true}, func(p repository.Problem) { t.Errorf("%+v", p) })
	check(t, err)
	if after := snapshot(t, o.dir); !maps.Equal(before, after) {
		t.Error("the folder has changed")
	}
}

func TestUnionWithNative(t *testing.T) {
	dir := t.TempDir()
	check(t, legacytest.Fixture(legacytest.F5).Write(dir))
	store, err := disk.New(dir)
	check(t, err)
	native, err := repository.Create(t.Context(), store)
	check(t, err)
	root := t.TempDir()
	check(t, os.WriteFile(filepath.Join(root, "new.txt"), []byte("new"), 0o600))
	id := replicate.ID(strings.Repeat("7", 32))
	w, _, err := repository.OpenSpool(native, "").Begin(t.Context(), replicate.Experiment{ID: id, Created: time.Now()}, repository.WriterOptions{Root: root})
	check(t, err)
	row, _, err := w.Commit(t.Context(), repository.CommitRequest{Step: 1, Time: time.Now()})
	check(t, err)
	check(t, w.End(t.Context(), replicate.Finished, nil))

	o := openStore(t, store, t.TempDir())
	if o.repo.ID() != native.ID() {
		t.Errorf("id %s, want %s", o.repo.ID(), native.ID())
	}
	got := o.sync(nil)
	if len(got.experiments) != 3 || len(got.commits) != 5 || len(got.errors) > 0 {
		t.Fatalf("%d experiments, %d commits, errors %v", len(got.experiments), len(got.commits), got.errors)
	}
	files, _ := o.files(got.commits[row.ID].Row)
	compare(t, files, map[string]legacytest.File{"new.txt": {Mode: 0o600, Data: "new"}}, true)
	files, _ = o.files(got.commit(t, legacytest.F5, 1, 1).Row)
	compare(t, files, legacytest.View(legacytest.F5, 1, 1), true)
}
