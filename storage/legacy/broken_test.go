package legacy_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/legacy"
	"github.com/replicate/replicate/storage/legacy/legacytest"
	"github.com/replicate/replicate/storage/repository"
)

// The keys of the first experiment of a fixture, and of its first commit.
func experimentKey(f legacytest.Format) string {
	return "metadata/experiments/" + legacytest.ExperimentID(f, 1) + ".json"
}

func TestTornMetadata(t *testing.T) {
	for _, tt := range []struct {
		name               string
		format             legacytest.Format
		damage             func(legacytest.Root)
		experiments, rows  int // what is left
		errors             string
		unreadable, intact [2]int // commits whose files are asked for; zero: none
	}{
		{name: "experiment with commits", format: legacytest.F6, damage: cut(experimentKey(legacytest.F6)), experiments: 1, rows: 2,
			errors: experimentKey(legacytest.F6), intact: [2]int{2, 1}},
		{name: "experiment without", format: legacytest.F4, damage: cut(experimentKey(legacytest.F4)), experiments: 1, rows: 4,
			errors: experimentKey(legacytest.F4), intact: [2]int{1, 1}},
		{name: "commit", format: legacytest.F3, damage: cut("metadata/checkpoints/" + legacytest.CommitID(legacytest.F3, 1, 1) + ".json"), experiments: 2, rows: 3,
			errors: legacytest.CommitID(legacytest.F3, 1, 1), intact: [2]int{1, 2}},
		{name: "commit in its experiment", format: legacytest.F5, damage: func(r legacytest.Root) {
			r[experimentKey(legacytest.F5)] = bytes.Replace(r[experimentKey(legacytest.F5)], []byte(`"created": "2020-08-26T23:59`), []byte(`"created": "yesterday`), 1)
		}, experiments: 2, rows: 3, errors: "checkpoint 0: created", intact: [2]int{1, 2}},
		{name: "about another", format: legacytest.F1, damage: func(r legacytest.Root) {
			r[experimentKey(legacytest.F1)] = r["metadata/experiments/"+legacytest.ExperimentID(legacytest.F1, 2)+".json"]
		}, experiments: 1, rows: 4, errors: "it is about 12a012a0", intact: [2]int{1, 2}},
		{name: "half a tarball", format: legacytest.F5, damage: cut("checkpoints/" + legacytest.CommitID(legacytest.F5, 1, 1) + ".tar.gz"), experiments: 2, rows: 4,
			unreadable: [2]int{1, 1}, intact: [2]int{1, 2}},
		{name: "an empty tarball", format: legacytest.F7, damage: func(r legacytest.Root) {
			r["checkpoints/"+legacytest.CommitID(legacytest.F7, 2, 1)+".tar.gz"] = nil
		}, experiments: 2, rows: 4, unreadable: [2]int{2, 1}, intact: [2]int{1, 2}},
		{name: "heartbeat", format: legacytest.F2, damage: cut("metadata/heartbeats/" + legacytest.ExperimentID(legacytest.F2, 1) + ".json"), experiments: 2, rows: 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := legacytest.Fixture(tt.format)
			tt.damage(r)
			o := open(t, r)
			got := o.sync(nil)
			text := fmt.Sprint(got.errors)
			if len(got.experiments) != tt.experiments || len(got.commits) != tt.rows || !strings.Contains(text, tt.errors) || (tt.errors == "") != (len(got.errors) == 0) {
				t.Errorf("%d experiments, %d commits, errors %s", len(got.experiments), len(got.commits), text)
			}
			for _, err := range got.errors {
				if replicate.KindOf(err) != replicate.Corrupt {
					t.Errorf("kind %s of %v", replicate.KindOf(err), err)
				}
			}
			if n := tt.intact; n[0] > 0 {
				files, _ := o.files(got.commit(t, tt.format, n[0], n[1]).Row)
				compare(t, files, legacytest.View(tt.format, n[0], n[1]), false)
			}
			if n := tt.unreadable; n[0] > 0 {
				_, err := o.repo.Tree(t.Context(), got.commit(t, tt.format, n[0], n[1]).Row)
				if replicate.KindOf(err) != replicate.Corrupt || !strings.Contains(err.Error(), legacytest.CommitID(tt.format, n[0], n[1])+".tar.gz: the tarball is damaged") {
					t.Errorf("error %v", err)
				}
			}
		})
	}
}

// cut leaves half of an object.
func cut(key string) func(legacytest.Root) {
	return func(r legacytest.Root) {
		if len(r[key]) == 0 {
			panic(key)
		}
		r[key] = r[key][:len(r[key])/2]
	}
}

func TestOrphanedCommitsAreLeftOut(t *testing.T) {
	r := legacytest.Fixture(legacytest.F2)
	delete(r, experimentKey(legacytest.F2))
	o := open(t, r)
	got := o.sync(nil)
	if len(got.experiments) != 1 || len(got.commits) != 2 || len(got.errors) > 0 {
		t.Errorf("%d experiments, %d commits, errors %v", len(got.experiments), len(got.commits), got.errors)
	}
	if again := o.sync(got.keys); len(again.keys) > 0 {
		t.Errorf("yielded again: %v", again.keys)
	}
}

func TestCommitWithoutFilesIsIncomplete(t *testing.T) {
	for _, f := range []legacytest.Format{legacytest.F1, legacytest.F2, legacytest.F4, legacytest.F6} {
		t.Run(f.String(), func(t *testing.T) {
			r := legacytest.Fixture(f)
			id := legacytest.CommitID(f, 1, 2)
			for key := range r {
				if strings.Contains(key, id) && !strings.HasPrefix(key, "metadata/") {
					delete(r, key)
				}
			}
			o := open(t, r)
			files, tree := o.files(o.sync(nil).commit(t, f, 1, 2).Row)
			want := legacytest.Project(1)
			if f == legacytest.F1 {
				want = nil
			}
			compare(t, files, want, false)
			note := "commit " + id[:7] + " is incomplete: the files saved with it are not in the storage"
			if len(tree.Notes) != 1 || tree.Notes[0] != note {
				t.Errorf("notes %q", tree.Notes)
			}
			problems := 0
			_, err := o.repo.Check(t.Context(), repository.CheckOptions{ReadData: true}, func(repository.Problem) { problems++ })
			check(t, err)
			if problems != 1 {
				t.Errorf("check finds %d problems", problems)
			}
		})
	}
}

func TestPathOfNothingMeansNoFiles(t *testing.T) {
	r := legacytest.Fixture(legacytest.F6)
	key := experimentKey(legacytest.F6)
	r[key] = bytes.ReplaceAll(r[key], []byte(`"path": "."`), []byte(`"path": null`))
	for _, id := range []string{legacytest.ExperimentID(legacytest.F6, 1), legacytest.CommitID(legacytest.F6, 1, 1)} {
		delete(r, "experiments/"+id+".tar.gz")
		delete(r, "checkpoints/"+id+".tar.gz")
	}
	o := open(t, r)
	if files, tree := o.files(o.sync(nil).commit(t, legacytest.F6, 1, 1).Row); len(files) > 0 || len(tree.Notes) > 0 {
		t.Errorf("%d files, notes %q", len(files), tree.Notes)
	}
}

func TestRunning(t *testing.T) {
	each(t, func(t *testing.T, f legacytest.Format) {
		o := open(t, legacytest.Fixture(f))
		id := replicate.ID(legacytest.ExperimentID(f, 1))
		beat := func(age time.Duration) {
			t.Helper()
			text := fmt.Sprintf(`{"experiment_id": "%s", "last_heartbeat": "%s"}`, id, time.Now().Add(-age).UTC().Format("2006-01-02T15:04:05.000000Z"))
			check(t, os.WriteFile(filepath.Join(o.dir, "metadata/heartbeats", string(id)+".json"), []byte(text), 0o600))
		}
		old := o.sync(nil)
		beat(5 * time.Second)
		ages, err := o.repo.Heartbeats(t.Context())
		check(t, err)
		if age, ok := ages[id]; !ok || age < 5*time.Second || age > 25*time.Second || len(ages) != 1 {
			t.Errorf("heartbeats %v", ages)
		}
		got := o.sync(old.keys)
		if e := got.experiments[id]; e == nil || e.Status != "" || len(got.experiments) != 1 {
			t.Errorf("an experiment with a young heartbeat is %+v", e)
		}
		beat(31 * time.Second)
		if ages, err := o.repo.Heartbeats(t.Context()); err != nil || len(ages) > 0 {
			t.Errorf("heartbeats %v, %v", ages, err)
		}
		again := o.sync(got.keys)
		if e := again.experiments[id]; e == nil || e.Status != replicate.Finished || !e.Before.After(got.experiments[id].Before) {
			t.Errorf("an experiment with an old heartbeat is %+v", e)
		}
	})
}

func openAt(t *testing.T, r legacytest.Root) (*repository.Repository, error) {
	t.Helper()
	dir := t.TempDir()
	check(t, r.Write(dir))
	store, err := disk.New(dir)
	check(t, err)
	return legacy.Open(t.Context(), store, func(string) string { return t.TempDir() })
}

func TestOpen(t *testing.T) {
	newer := legacytest.Fixture(legacytest.F6)
	newer["repository.json"] = []byte(`{"version": 2}`)
	broken := legacytest.Fixture(legacytest.F6)
	broken["repository.json"] = []byte(`{"vers`)
	both := legacytest.Fixture(legacytest.F6)
	both["repository.json"], both["replicate.json"] = newer["repository.json"], []byte(`{"replicate":1,"id":"0123456789abcdef0123456789abcdef"}`)
	for _, tt := range []struct {
		name  string
		root  legacytest.Root
		kind  replicate.Kind
		error string
	}{
		{"nothing", legacytest.Root{}, replicate.NotFound, "there is no repository yet"},
		{"other files", legacytest.Root{"a.txt": nil}, replicate.Conflict, "it holds other files: a.txt"},
		{"no experiments", legacytest.Root{"repository.json": []byte(`{"version":1}`)}, "", ""},
		{"something of that name", legacytest.Root{"repository.json": []byte(`{"name":"x"}`)}, replicate.Conflict, "it holds other files"},
		{"newer", newer, replicate.Conflict, "repository.json says version 2"},
		{"newer beside ours", both, "", ""},
		{"broken version", broken, replicate.Corrupt, "read repository.json: no version"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, err := openAt(t, tt.root)
			if replicate.KindOf(err) != tt.kind || err != nil && !strings.Contains(err.Error(), tt.error) {
				t.Fatalf("%s: %v", replicate.KindOf(err), err)
			}
			if err != nil {
				return
			}
			got := (&opened{t: t, repo: r}).sync(nil)
			if len(got.experiments) > 0 || len(got.errors) > 0 != (tt.name == "newer beside ours") {
				t.Errorf("%d experiments, errors %v", len(got.experiments), got.errors)
			}
		})
	}
}

// tarOf makes a tarball of headers alone, files being empty.
func tarOf(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	zipped := gzip.NewWriter(&b)
	w := tar.NewWriter(zipped)
	for _, h := range headers {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestHostileTarball(t *testing.T) {
	r := legacytest.Fixture(legacytest.F5)
	id := legacytest.CommitID(legacytest.F5, 1, 1)
	delete(r, "experiments/"+legacytest.ExperimentID(legacytest.F5, 1)+".tar.gz")
	file := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o4755} }
	r["checkpoints/"+id+".tar.gz"] = tarOf(t,
		file(id+"/good"), file(id+"/../../escaped"), file(id+"/a/../../../escaped"), file("/etc/absolute"), file("bare"), file(id+"/.."),
		tar.Header{Name: id + "/link", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, file(id+"/link/passwd"),
		tar.Header{Name: id + "/hard", Typeflag: tar.TypeLink, Linkname: id + "/good"},
		tar.Header{Name: id + "/dir/", Typeflag: tar.TypeDir, Mode: 0o755},
		file(id+"/x"), file(id+"/x/y"), file(id+"/z/w"), file(id+"/z"), file(id+"//double"), file(id+"/"+strings.Repeat("long/", 100)+"path"))
	o := open(t, r)
	files, tree := o.files(o.sync(nil).commit(t, legacytest.F5, 1, 1).Row)
	compare(t, files, map[string]legacytest.File{
		"good": {Mode: 0o755}, "link/passwd": {Mode: 0o755}, "x/y": {Mode: 0o755}, "z": {Mode: 0o755},
		strings.Repeat("long/", 100) + "path": {Mode: 0o755},
	}, true)
	notes := strings.Join(tree.Notes, "\n")
	for _, want := range []string{"escaped", "/etc/absolute", `"bare"`, `"/double"`, "link is left out", "hard is left out"} {
		if !strings.Contains(notes, want) {
			t.Errorf("no note has %q:\n%s", want, notes)
		}
	}
	check(t, filepath.WalkDir(filepath.Dir(o.kept), func(path string, _ fs.DirEntry, err error) error {
		if filepath.Base(path) == "escaped" {
			t.Errorf("%s was written", path)
		}
		return err
	}))
}
