package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/mem"
	"github.com/replicate/replicate/storage/storagetest"
)

// trained returns a repository with a finished training, and what is known of that.
func trained(t *testing.T, store storage.Store) (*lab, *diary) {
	t.Helper()
	l := newLab(t, store)
	d := &diary{id: l.id(), commits: map[replicate.ID]map[string]string{}}
	must(t, l.train(t.Context(), l.open(), d))
	return l, d
}

func (l *lab) copyFrom(from *Repository, o CopyOptions) CopyReport {
	l.t.Helper()
	report, err := l.open().Copy(l.t.Context(), from, o)
	must(l.t, err)
	return report
}

// targets are stores to copy to.
func targets(t *testing.T) map[string]storage.Store {
	return map[string]storage.Store{"mem": mem.New("target", time.Now), "disk": diskStore(t)}
}

// quiet checks a repository with all its bytes.
func (l *lab) quiet() {
	l.t.Helper()
	_, err := l.repo.Check(l.t.Context(), CheckOptions{ReadData: true}, func(p Problem) { l.t.Errorf("check: %+v", p) })
	must(l.t, err)
}

func TestCopyBringsAllOfAnExperiment(t *testing.T) {
	for from := range stores(t) {
		for to := range stores(t) {
			t.Run(from+" to "+to, func(t *testing.T) {
				l, d := trained(t, stores(t)[from])
				m := newLab(t, targets(t)[to])
				dry := m.copyFrom(l.repo, CopyOptions{DryRun: true})
				if n := len(m.records()); n > 0 || dry.Experiments != 1 || dry.Commits != 3 || dry.Packs == 0 || dry.Bytes == 0 {
					t.Errorf("a dry run left %d records and reports %+v", n, dry)
				}
				var done int64
				report := m.copyFrom(l.repo, CopyOptions{Progress: func(n, total int64) {
					if done = n; total != dry.Bytes {
						t.Errorf("progress of %d bytes, there are %d", total, dry.Bytes)
					}
				}})
				if report != dry || done != report.Bytes {
					t.Errorf("reported %+v, announced %+v, progress to %d", report, dry, done)
				}
				m.check(d)
				m.quiet()
				if again := m.copyFrom(l.repo, CopyOptions{}); again != (CopyReport{}) {
					t.Errorf("copied again: %+v", again)
				}
			})
		}
	}
}

// TestCopySurvivesStops stops a copy at each call of the destination, before and after it took effect, and begins again.
func TestCopySurvivesStops(t *testing.T) {
	l, d := trained(t, memStore(t))
	for _, after := range []bool{false, true} {
		for n := 1; ; n++ {
			target := diskStore(t)
			m := newLab(t, target)
			stop := &storagetest.Stop{N: n, After: after}
			dying := &Spool{}
			*dying = *m.open()
			dying.repository = newRepository(storagetest.Stopped(target, stop), config{ID: m.repo.ID()})
			_, err := dying.Copy(t.Context(), l.repo, CopyOptions{})
			if !stop.Reached() {
				must(t, err)
				break
			}
			if err == nil && !after {
				t.Errorf("stopped at call %d, and no error", n)
			}
			seen := m.commits()
			for _, row := range seen { // what is visible is whole
				_, err := m.repo.Tree(t.Context(), row.Row)
				must(t, err)
			}
			m.copyFrom(l.repo, CopyOptions{})
			m.check(d)
			m.quiet()
		}
	}
}

func TestCopyIsCancelled(t *testing.T) {
	l, _ := trained(t, memStore(t))
	m := newLab(t, diskStore(t))
	ctx, cancel := context.WithCancel(t.Context())
	_, err := m.open().Copy(ctx, l.repo, CopyOptions{Progress: func(int64, int64) { cancel() }})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	cancel()
	if _, err := m.open().Copy(ctx, l.repo, CopyOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestCopyOnlySome(t *testing.T) {
	l, first := trained(t, memStore(t))
	second := &diary{id: l.id(), commits: map[replicate.ID]map[string]string{}}
	must(t, l.train(t.Context(), l.open(), second))
	m := newLab(t, diskStore(t))
	if r := m.copyFrom(l.repo, CopyOptions{Only: func(id replicate.ID) bool { return id == second.id }}); r.Experiments != 1 || r.Commits != 3 {
		t.Errorf("reported %+v", r)
	}
	m.check(second)
	if r := m.copyFrom(l.repo, CopyOptions{}); r.Experiments != 1 || r.Commits != 3 {
		t.Errorf("reported %+v", r)
	}
	m.quiet()
	if got := len(m.commits()); got != 6 || len(first.commits) != 3 {
		t.Errorf("%d commits", got)
	}
}

func TestCopyKeepsWhatItDoesNotKnow(t *testing.T) {
	source := memStore(t)
	b := newBuilder(t, source)
	id, commit := b.newID(), b.newID()
	lines := []string{
		`{"experiment":"` + string(id) + `","future":{"a\"b":[1,2.50]},"created":"2026-01-02T03:04:05Z","before":"2026-01-02T04:04:05Z","z":null}`,
		`{"commit":"` + string(commit) + `","experiment":"` + string(id) + `","seq":0,"time":"2026-01-02T03:04:06Z","files":0,"bytes":0,"added":0,"before":"2026-01-02T04:04:05Z"}`,
		`{"nobody knows":1,"x":"y"}`,
		`{"set":"` + string(id) + `","at":"2026-01-02T05:04:05Z","name":"trial","future":1}`,
	}
	object := []byte(strings.Join(lines, "\n") + "\n")
	b.put(logKey(object), object)
	m := newLab(t, targets(t)["mem"])
	m.copyFrom(b.repo, CopyOptions{})
	var got []string
	for _, r := range m.records() {
		text := string(r.Line)
		if row := r.row(); row != nil {
			if !row.Before.After(time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)) {
				t.Errorf("before is %v", row.Before)
			}
			text = strings.Replace(text, row.Before.Format(time.RFC3339Nano), "2026-01-02T04:04:05Z", 1)
		}
		got = append(got, text)
	}
	slices.Sort(got)
	slices.Sort(lines)
	if !slices.Equal(got, lines) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
}

func TestCopyLeavesDeletedDeleted(t *testing.T) {
	l, d := trained(t, memStore(t))
	var commits []replicate.ID
	for id := range d.commits {
		commits = append(commits, id)
	}
	remove := func(l *lab, id replicate.ID) {
		t.Helper()
		record, err := Record{Delete: &Delete{ID: id, At: time.Now().Add(24 * time.Hour)}}.Encode()
		must(t, err)
		must(t, l.repo.Append(t.Context(), record))
	}
	remove(l, commits[0])
	m := newLab(t, diskStore(t))
	if r := m.copyFrom(l.repo, CopyOptions{}); r.Commits != 2 || m.commits()[commits[0]] != nil {
		t.Errorf("reported %+v", r)
	}
	remove(m, commits[1])
	remove(m, d.id)
	if r := m.copyFrom(l.repo, CopyOptions{}); r != (CopyReport{}) {
		t.Errorf("what was deleted is copied again: %+v", r)
	}
}

// TestCopyOfACopiedBucket copies what another tool copied before: every record looks late, and is believed as its packs are there.
func TestCopyOfACopiedBucket(t *testing.T) {
	l, d := trained(t, diskStore(t))
	later := storage.Store(memStore(t))
	for o, err := range l.repo.store.List(t.Context(), "", "") {
		must(t, err)
		data, err := readObject(t.Context(), l.repo.store, o.Key, 0, -1)
		must(t, err)
		_, err = later.Put(t.Context(), o.Key, bytes.NewReader(data), int64(len(data)))
		must(t, err)
	}
	late := storagetest.Wrap(later, storagetest.Hooks{Object: func(o storage.Object) (storage.Object, bool) {
		o.Time = time.Now().Add(30 * 24 * time.Hour)
		return o, true
	}})
	from, err := Open(t.Context(), late)
	must(t, err)
	m := newLab(t, diskStore(t))
	m.copyFrom(from, CopyOptions{})
	m.check(d)
	m.quiet()
}

func TestCopyOfDamage(t *testing.T) {
	l, d := trained(t, diskStore(t))
	packs := map[string]int64{}
	for o, err := range l.repo.store.List(t.Context(), packPrefix, "") {
		must(t, err)
		packs[o.Key] = o.Size
	}
	keys := slices.Sorted(maps.Keys(packs))
	lost := ""
	for _, key := range keys {
		if packs[key] > minChunked {
			lost = key // of one commit
		}
	}
	must(t, l.repo.store.Delete(t.Context(), lost))
	m := newLab(t, diskStore(t))
	var warnings []string
	r := m.copyFrom(l.repo, CopyOptions{Warn: func(err error) { warnings = append(warnings, err.Error()) }})
	if r.Problems == 0 || int(r.Problems) != len(warnings) || !strings.Contains(strings.Join(warnings, "\n"), "is missing") {
		t.Errorf("reported %+v, told of %q", r, warnings)
	}
	for id, row := range m.commits() {
		for path, want := range d.commits[id] {
			if m.read(row.Row, path) != want {
				t.Errorf("%s of commit %s differs", path, id.Short())
			}
		}
	}
	m.quiet()
}

// TestCopyOfWhatNobodyVouchesFor damages a pack: what needs it comes once it is mended.
func TestCopyOfWhatNobodyVouchesFor(t *testing.T) {
	store := diskStore(t)
	l, d := trained(t, store)
	var largest storage.Object
	for o, err := range store.List(t.Context(), packPrefix, "") {
		must(t, err)
		if o.Size > largest.Size {
			largest = o
		}
	}
	file := filepath.Join(store.Dir(), filepath.FromSlash(largest.Key))
	whole, err := os.ReadFile(file)
	must(t, err)
	must(t, os.Chmod(file, 0o600))
	must(t, os.WriteFile(file, make([]byte, len(whole)), 0o600))
	m := newLab(t, diskStore(t))
	warned := 0
	options := CopyOptions{Distrust: true, Warn: func(error) { warned++ }}
	m.copyFrom(l.repo, options)
	if warned == 0 || len(m.commits()) >= len(d.commits) {
		t.Errorf("%d warnings, %d commits of %d", warned, len(m.commits()), len(d.commits))
	}
	m.quiet()
	must(t, os.WriteFile(file, whole, 0o600))
	m.copyFrom(l.repo, options)
	m.check(d)
	m.quiet()
}

func TestCopyToItself(t *testing.T) {
	l, _ := trained(t, diskStore(t))
	if _, err := l.open().Copy(t.Context(), l.repo, CopyOptions{}); replicate.KindOf(err) != replicate.Usage {
		t.Errorf("error %v", err)
	}
}

func FuzzRecordWith(f *testing.F) {
	f.Add([]byte(`{"set":"0123456789abcdef0123456789abcdef","at":"2026-01-02T05:04:05Z","a\nb":{"x":[1]},"before":1}`))
	f.Add([]byte(`{"nobody":"x"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := ParseRecord(line)
		if err != nil {
			return
		}
		same, err := r.with(nil)
		if err != nil {
			t.Fatalf("nothing was changed: %v", err)
		}
		var was, is any
		if json.Unmarshal(line, &was) == nil {
			if err := json.Unmarshal(same.Line, &is); err != nil {
				t.Fatal(err)
			}
			a, _ := json.Marshal(was)
			b, _ := json.Marshal(is)
			if !bytes.Equal(a, b) {
				t.Errorf("%s became %s", a, b)
			}
		}
	})
}
