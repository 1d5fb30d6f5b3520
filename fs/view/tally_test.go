package view

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

// counting is an index that counts how many experiments were read for tables.
type counting struct {
	Index
	read int
}

func (c *counting) Each(ctx context.Context, since int64, f func(*index.Experiment) error) ([]int64, int64, error) {
	return c.Index.Each(ctx, since, func(e *index.Experiment) error { c.read++; return f(e) })
}

func (l *lab) append(r repository.Record) {
	l.t.Helper()
	r, err := r.Encode()
	l.must(err)
	l.must(l.repo.Append(l.t.Context(), r))
}

const tables = "experiments.csv experiments.jsonl"

// TestTablesAreAsLongAsStatSays changes experiments in every way that changes a row; read compares the sizes.
func TestTablesAreAsLongAsStatSays(t *testing.T) {
	l := newLab(t)
	both := func() {
		t.Helper()
		l.refresh()
		for name := range strings.FieldsSeq(tables) {
			l.cat(name)
		}
	}
	both() // of nothing
	l.story()
	both()
	id := replicate.ID("0123456789abcdef0123456789abcdef")
	w := l.begin(replicate.Experiment{ID: id, Name: "with \"quotes\", and\nlines", Params: values("new", "", "a.b", 1, "a", replicate.Map(values("b", 2)))})
	both()
	l.commit(w, 1, "other,metric", 1.0, "text", "a\nb")
	both()
	l.reopen()
	both()
	l.end(w, replicate.Failed)
	both()
	l.append(repository.Record{Set: &repository.Set{Experiment: id, At: time.Now().Add(time.Hour), Fields: map[string]json.RawMessage{"note": json.RawMessage(`"x"`), "tags": json.RawMessage(`{"a":true}`)}}})
	both()
	if !strings.Contains(l.cat("experiments.csv"), "other,metric.best") {
		t.Error("a metric has no column")
	}
	l.append(repository.Record{Delete: &repository.Delete{ID: id, At: time.Now().Add(2 * time.Hour)}})
	both()
	if strings.Contains(l.cat("experiments.csv"), "other,metric.best") {
		t.Error("the column of a metric that no experiment has")
	}
}

func TestLookupReadsOnlyWhatChanged(t *testing.T) {
	l := newLab(t)
	_, second, _ := l.story()
	l.reopen()
	c := &counting{Index: l.View.index}
	l.View.index = c
	l.at("experiments.csv")
	if c.read != 2 {
		t.Errorf("%d experiments were read, not 2", c.read)
	}
	l.reopen() // the cache knows
	c = &counting{Index: l.View.index}
	l.View.index = c
	a, err := l.Attr(t.Context(), l.at("experiments.csv"))
	l.must(err)
	if c.read != 0 || a.Size == 0 {
		t.Errorf("%d experiments were read for a size that was known, %d", c.read, a.Size)
	}
	l.commit(second, 2, "loss", 0.5)
	l.refresh()
	l.at("experiments.csv")
	if c.read != 1 {
		t.Errorf("%d experiments were read, but 1 changed", c.read)
	}
}

// TestOpenOfATableThatMovedOnIsStale syncs the index as another process would, between the look at a name and its opening.
func TestOpenOfATableThatMovedOnIsStale(t *testing.T) {
	l := newLab(t)
	_, second, _ := l.story()
	id := l.at("experiments.csv")
	l.commit(second, 2, "loss", 0.5)
	_, err := l.View.index.Sync(t.Context())
	l.must(err)
	if err := l.Open(t.Context(), id); !errors.Is(err, ErrStale) {
		t.Fatalf("the open of what is no more: %v", err)
	}
	next := l.at("experiments.csv")
	l.must(l.Open(t.Context(), next))
	if next == id || !strings.Contains(l.read(next), "0.5") {
		t.Error("the name does not stand for what the index says")
	}
}

func TestDamagedTallyIsMadeAgain(t *testing.T) {
	l := newLab(t)
	l.story()
	want := l.cat("experiments.csv")
	path := filepath.Join(l.dir, "cache", tallyFile)
	data, err := os.ReadFile(path)
	l.must(err)
	for i := 0; i < len(data); i += 7 {
		damaged := append([]byte(nil), data...)
		damaged[i] ^= 0x10
		l.must(os.WriteFile(path, damaged, 0o600))
		l.View.tally = tally{path: path}
		l.View.rendered = newCache[ID, *spill](renderedLimit)
		if got := l.cat("experiments.csv"); got != want {
			t.Fatalf("with byte %d wrong:\n%s", i, got)
		}
	}
}

// TestWrongTallyIsFoundOut lies about a length.
func TestWrongTallyIsFoundOut(t *testing.T) {
	l := newLab(t)
	l.story()
	right, err := l.Attr(t.Context(), l.at("experiments.csv"))
	l.must(err)
	l.tally.cells++
	if err := l.Open(t.Context(), l.at("experiments.csv")); !errors.Is(err, ErrStale) {
		t.Errorf("opened with a wrong length: %v", err)
	}
	if a, err := l.Attr(t.Context(), l.at("experiments.csv")); err != nil || a != right {
		t.Errorf("it is %+v, not %+v: %v", a, right, err)
	}
	l.cat("experiments.csv")
}
