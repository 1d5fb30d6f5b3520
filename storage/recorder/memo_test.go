package recorder

import (
	"crypto/rand"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// TestMemoSaysWhatTheRecordsSay lets commands of the shell way take part in an experiment while others change it, and compares what each is told with
// what all records say.
func TestMemoSaysWhatTheRecordsSay(t *testing.T) {
	dir := newProject(t)
	keeper := start(t, dir)
	id := keeper.init(map[string]any{"params": map[string]any{"lr": 1}})
	repo := open(t, dir)
	looked(t, repo, id)
	o := Options{Now: time.Now, Random: rand.Reader, Tell: func(r Remark) { t.Error(r) }}
	memo := filepath.Join(repo.Keeper(id), memoName)
	commit := func() (replicate.ID, repository.Row) {
		t.Helper()
		s, err := Join(t.Context(), string(id), dir, o)
		if err != nil {
			t.Fatal(err)
		}
		row, _, err := s.Commit(t.Context(), repository.CommitRequest{Step: replicate.NoStep, Time: time.Now()})
		if err == nil {
			err = s.End(t.Context(), "", nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		return row.ID, row.Row
	}
	appends := func(record repository.Record) {
		t.Helper()
		record, err := record.Encode()
		if err == nil {
			err = repo.Append(t.Context(), record)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var last replicate.ID
	var row repository.Row
	for _, step := range []struct {
		name   string
		change func()
	}{
		{"nothing", func() {}},
		{"a commit", func() { last, row = commit() }},
		{"another", func() { last, row = commit() }},
		{"the keeper's", func() { keeper.call("commit", map[string]any{"step": 40}) }},
		{"a fact", func() {
			appends(repository.Record{Set: &repository.Set{Experiment: id, At: time.Now(), Fields: map[string]json.RawMessage{"name": raw("new"), "tags": tagField([]string{"a"})}}})
		}},
		{"an older fact", func() {
			appends(repository.Record{Set: &repository.Set{Experiment: id, At: time.Now().Add(-time.Hour), Fields: map[string]json.RawMessage{"name": raw("old")}}})
		}},
		{"one more", func() { last, row = commit() }},
		{"the newest is deleted", func() { appends(repository.Record{Delete: &repository.Delete{ID: last, At: row.Before}}) }},
		{"and another comes", func() { last, row = commit() }},
		{"a damaged memo", func() { write(t, memo, "{") }},
		{"no memo", func() { _ = os.Remove(memo) }},
		{"a memo of another experiment", func() { write(t, memo, `{"known":["log/x"]}`) }},
	} {
		step.change()
		all, err := stand(t.Context(), repo, func(other replicate.ID) bool { return other == id })
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // what is new, and what is in the memo alone
			got, err := recall(t.Context(), repo, id)
			if err != nil {
				t.Fatal(err)
			}
			want := all[id]
			if !reflect.DeepEqual(got.resume(), want.resume()) || !reflect.DeepEqual(got.row, want.row) {
				t.Errorf("%s: got %+v, %+v\nwant %+v, %+v", step.name, got.resume(), got.row, want.resume(), want.row)
			}
		}
		_, known := readMemo(memo, id)
		read, err := gather(t.Context(), repo, func(key string) bool { return slices.Contains(known, key) }, func(replicate.ID) *standing { return nil })
		if err != nil || len(known) == 0 || len(read.settled) > 0 {
			t.Errorf("%s: the memo knows %d objects, not %q, %v", step.name, len(known), read.settled, err)
		}
	}
	appends(repository.Record{Delete: &repository.Delete{ID: id, At: time.Now()}})
	if s, err := recall(t.Context(), repo, id); replicate.KindOf(err) != replicate.NotFound {
		t.Errorf("a deleted experiment stands: %+v, %v", s, err)
	}
	keeper.close()
	if _, err := os.Stat(memo); err == nil {
		t.Error("the memo outlives its keeper")
	}
}

// looked waits until the recorder has said what it found out about the machine: nothing that nobody asked for comes after that.
func looked(t *testing.T, repo *repository.Repository, id replicate.ID) {
	t.Helper()
	for end := time.Now().Add(2 * lookDeadline); ; time.Sleep(time.Millisecond) {
		s, err := stand(t.Context(), repo, func(other replicate.ID) bool { return other == id })
		switch {
		case err != nil:
			t.Fatal(err)
		case s[id].row.Machine != nil:
			return
		case time.Now().After(end):
			t.Fatal("nothing is said about the machine")
		}
	}
}

func FuzzMemo(f *testing.F) {
	f.Add([]byte(`{"known":["log/00"],"experiment":{"experiment":"9f0c1d2e3f405162738495a6b7c8d9ea","created":"2026-03-04T05:06:07Z","before":"2026-03-04T06:06:07Z"},` +
		`"newest":{"commit":"3be0c21d4f5061728394a5b6c7d8e9fa","experiment":"9f0c1d2e3f405162738495a6b7c8d9ea","seq":0,"time":"2026-03-04T05:06:07Z","step":8,"before":"2026-03-04T06:06:07Z"},` +
		`"facts":{"name":{"value":"x","at":"2026-03-04T05:06:07Z","hash":"29bc0702a33041c4f6677005e8bc56d3b3200befd7b8638d592dd738b1c5f335"}},"last":"2026-03-04T05:06:07Z","step":9}`))
	f.Add([]byte(`{"facts":{"status":null}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, known, err := parseMemo(text)
		if err != nil {
			return
		}
		s.bury(nil)
		file := filepath.Join(t.TempDir(), memoName)
		if s.row.ID == "" || len(known) == 0 || s.writeMemo(file, s.row, known) != nil {
			return
		}
		again, knownAgain := readMemo(file, s.row.ID)
		if again == nil || !slices.Equal(known, knownAgain) || again.resume().Seq != s.resume().Seq || again.resume().Step != s.resume().Step {
			t.Errorf("%+v came back as %+v", s, again)
		}
	})
}
