package repository

import (
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// TestUsage: what one experiment holds alone, two share, nobody needs, and gc has condemned.
func TestUsage(t *testing.T) {
	c := newClocked(t)
	a, b := c.newID(), c.newID()
	commit := func(experiment replicate.ID, packs ...replicate.Hash) Record {
		return c.record(Record{Commit: &CommitRow{Commit: replicate.Commit{ID: c.newID(), Experiment: experiment}, Row: Row{Packs: packs, Before: c.now.Add(time.Hour)}}})
	}
	one, two, both := c.tree(fakeFile("a", "1")).Packs[0], c.tree(fakeFile("a", "22")).Packs[0], c.tree(fakeFile("a", "333")).Packs[0]
	c.tree(fakeFile("a", "4444"))
	c.log(commit(a, one, both), commit(a, one, both), commit(b, both))
	deleted := commit(b, two)
	c.log(deleted, c.record(Record{Delete: &Delete{ID: deleted.Commit.ID, At: c.now.Add(1)}}))
	bytes := func(pack replicate.Hash) int64 { return int64(len(c.get(packKey(pack)))) }

	u, err := c.repo.Usage(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[replicate.ID]ExperimentUsage{
		a: {ID: a, Alone: Packs{1, bytes(one)}, Shared: Packs{1, bytes(both)}},
		b: {ID: b, Shared: Packs{1, bytes(both)}},
	}
	if len(u.Experiments) != len(want) {
		t.Errorf("%+v", u.Experiments)
	}
	for _, e := range u.Experiments {
		if e != want[e.ID] {
			t.Errorf("got %+v, want %+v", e, want[e.ID])
		}
	}
	if u.Live != (Packs{2, bytes(one) + bytes(both)}) || u.Dead.Count != 2 || u.Waiting.Count != 0 {
		t.Errorf("live %+v, dead %+v, waiting %+v", u.Live, u.Dead, u.Waiting)
	}
	c.pass(documented.age + 1)
	c.gc(GCOptions{})
	if u, err = c.repo.Usage(t.Context(), nil); err != nil || u.Waiting.Count != 2 || u.Dead.Count != 0 {
		t.Errorf("condemned: %+v, %v", u, err)
	}
}
