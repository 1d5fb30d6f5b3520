package repository

import (
	"context"
	"errors"
	"fmt"
	"maps"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/mem"
	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// A clocked builder has a store whose clock the test moves.
type clocked struct {
	*builder
	clock *time.Time
}

func newClocked(t *testing.T) clocked {
	t.Helper()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	return clocked{newBuilder(t, mem.New(t.Name(), func() time.Time { return now })), &now}
}

func (c clocked) pass(d time.Duration) {
	*c.clock = c.clock.Add(d)
	c.now = *c.clock
}

func (b *builder) gc(o GCOptions) GCReport {
	b.t.Helper()
	report, err := b.repo.GC(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	return report
}

func (b *builder) packs() []string { return storagetest.Keys(b.t, b.store, packPrefix, "") }

// TestGCInSteps: what nobody needs goes, a week and a day later.
func TestGCInSteps(t *testing.T) {
	c := newClocked(t)
	kept := c.tree(fakeFile("a", "1"))
	c.log(c.commit(kept))
	gone := c.commit(c.tree(fakeFile("a", "2")))
	c.log(gone)
	c.tree(fakeFile("a", "3")) // of a commit that never was
	c.log(c.record(Record{Delete: &Delete{ID: gone.Commit.ID, At: c.now.Add(1)}}))
	if r := c.gc(GCOptions{}); r.Needed.Count != 1 || r.Young.Count != 2 || !r.YoungAt.Equal(c.now.Add(documented.age)) {
		t.Errorf("young: %+v", r)
	}
	c.pass(documented.age + 1)
	for _, dry := range []bool{true, false} {
		if r := c.gc(GCOptions{DryRun: dry}); r.Condemned.Count != 2 || r.Due.IsZero() == !dry {
			t.Errorf("condemned: %+v", r)
		}
	}
	if r := c.gc(GCOptions{}); r.Waiting.Count != 2 || !r.Due.Equal(c.now.Add(documented.wait)) || !r.Until.Equal(r.Due.Add(documented.slot)) {
		t.Errorf("waiting: %+v", r)
	}
	c.pass(documented.wait)
	if r := c.gc(GCOptions{DryRun: true}); r.Deleted.Count != 2 || len(c.packs()) != 3 {
		t.Errorf("would delete: %+v", r)
	}
	if r := c.gc(GCOptions{}); r.Deleted.Count != 2 || r.Deleted.Bytes == 0 || !slices.Equal(c.packs(), []string{packKey(kept.Packs[0])}) {
		t.Errorf("deleted: %+v, left %v", r, c.packs())
	}
	c.pass(documented.slot + documented.lag + 1)
	if r := c.gc(GCOptions{}); r != (GCReport{Needed: r.Needed}) || len(storagetest.Keys(t, c.store, gcPrefix, "")) != 0 {
		t.Errorf("in the end: %+v, %v", r, storagetest.Keys(t, c.store, gcPrefix, ""))
	}
}

// TestGCSparesWhatIsNeededAgain: a row that lands after its pack was condemned, from a check before, saves it.
func TestGCSparesWhatIsNeededAgain(t *testing.T) {
	c := newClocked(t)
	row := c.tree(fakeFile("a", "1"))
	c.pass(documented.age + 1)
	before := c.now.Add(LandWithin)
	c.gc(GCOptions{})
	c.pass(LandWithin / 2)
	row.Before = before
	c.log(c.commit(row))
	c.pass(documented.wait)
	if r := c.gc(GCOptions{}); r.Deleted.Count != 0 || r.Needed.Count != 1 {
		t.Errorf("%+v", r)
	}
	if err := c.repo.checkPacks(t.Context(), row.Packs, nil); err == nil {
		t.Error("the pack is not doomed while its list may be sentenced")
	}
	c.pass(documented.slot + documented.lag)
	c.gc(GCOptions{})
	if err := c.repo.checkPacks(t.Context(), row.Packs, nil); err != nil {
		t.Errorf("it is doomed for ever: %v", err)
	}
}

// TestGCDeadlines: a list is worth nothing after its time, nor is a sentence that lands after it.
func TestGCDeadlines(t *testing.T) {
	c := newClocked(t)
	c.tree(fakeFile("a", "1"))
	c.pass(documented.age + 1)
	c.gc(GCOptions{})
	c.pass(documented.wait + documented.slot + 1)
	if r := c.gc(GCOptions{}); r.Deleted.Count != 0 || r.Condemned.Count != 1 {
		t.Errorf("a lapsed list: %+v", r)
	}
	c.pass(documented.wait)
	slow := storagetest.Wrap(c.store, storagetest.Hooks{Before: func(_ context.Context, call storagetest.Call) error {
		if call.Op == storagetest.OpPut && strings.HasSuffix(call.Key(), sentenceSuffix) {
			c.pass(documented.slot + 1)
		}
		return nil
	}})
	r := &Repository{store: slow, timing: documented}
	if report, err := r.GC(t.Context(), GCOptions{}); err != nil || report.Deleted.Count != 0 || len(c.packs()) != 1 {
		t.Errorf("a void sentence: %+v, %v", report, err)
	}
}

// TestGCRefusesToGuess: with records that cannot be read nothing is condemned or deleted.
func TestGCRefusesToGuess(t *testing.T) {
	c := newClocked(t)
	key := c.log(c.commit(c.tree(fakeFile("a", "1"))))
	c.pass(documented.age + 1)
	r := &Repository{store: storagetest.Lying(t, c.store, storagetest.FlipBit, func(k string) bool { return k == key }), timing: documented}
	_, err := r.GC(t.Context(), GCOptions{})
	if replicate.KindOf(err) != replicate.Corrupt || replicate.HintOf(err) == "" || !strings.Contains(err.Error(), key) {
		t.Error(err)
	}
	if keys := storagetest.Keys(t, c.store, gcPrefix, ""); len(keys) != 0 {
		t.Error(keys)
	}
}

// TestGCKeepsWhatItDoesNotKnow: late rows, and records of kinds from the future, keep their packs.
func TestGCKeepsWhatItDoesNotKnow(t *testing.T) {
	c := newClocked(t)
	late := c.tree(fakeFile("a", "1"))
	late.Before = c.now.Add(-1)
	c.log(c.commit(late))
	other := c.tree(fakeFile("a", "2"))
	line := fmt.Sprintf(`{"later":"x","packs":[%q],"before":"2026-03-04T05:06:07Z"}`, other.Packs[0])
	record, err := ParseRecord([]byte(line))
	if err != nil {
		t.Fatal(err)
	}
	c.log(record)
	c.pass(documented.age + 1)
	if r := c.gc(GCOptions{}); r.Needed.Count != 2 || r.Condemned.Count != 0 {
		t.Errorf("%+v", r)
	}
}

// garbage is a repository with packs of every fate, and what must be left of it.
func (c clocked) garbage() (left map[string]bool) {
	left = map[string]bool{}
	var records []Record
	for i := range 6 {
		row := c.tree(fakeFile("a", fmt.Sprint(i)))
		r := c.commit(row)
		records = append(records, r)
		if i%2 == 0 {
			left[packKey(row.Packs[0])] = true
		} else {
			records = append(records, c.record(Record{Delete: &Delete{ID: r.Commit.ID, At: c.now.Add(1)}}))
		}
	}
	c.scattered(mrand.New(mrand.NewPCG(1, 1)), records)
	return left
}

// callsOf runs a collection on a store and returns the numbers of its calls, of the 256 listings of packs only the first.
func callsOf(t *testing.T, store storage.Store, collect func(r *Repository) error) (calls []int) {
	t.Helper()
	counting := storagetest.Wrap(store, storagetest.Hooks{Before: func(_ context.Context, c storagetest.Call) error {
		if c.Op != storagetest.OpList || !strings.HasPrefix(c.Key(), packPrefix) || c.Key() == packPrefix+"00/" {
			calls = append(calls, c.Sum)
		}
		return nil
	}})
	if err := collect(repositoryOver(counting)); err != nil {
		t.Fatal(err)
	}
	return calls
}

// repositoryOver returns a Repository that does one thing at a time, on a store that is evil.
func repositoryOver(s storage.Store) *Repository {
	local, _ := s.(storage.Local)
	return &Repository{store: s, local: local, timing: documented, serial: true}
}

// TestGCSurvivesStops lets collectors die at each of their calls: what is needed is never touched, and others finish.
func TestGCSurvivesStops(t *testing.T) {
	start := func() (c clocked, left map[string]bool, collect func(r *Repository) error) {
		c = newClocked(t)
		left = c.garbage()
		c.pass(documented.age + 1)
		return c, left, func(r *Repository) error {
			for range 2 {
				if _, err := r.GC(t.Context(), GCOptions{}); err != nil {
					return err
				}
				c.pass(documented.wait)
			}
			c.pass(documented.slot + documented.lag)
			_, err := r.GC(t.Context(), GCOptions{})
			return err
		}
	}
	c, _, collect := start()
	for _, n := range callsOf(t, c.store, collect) {
		for _, after := range []bool{false, true} {
			c, left, collect := start()
			if err := collect(repositoryOver(storagetest.Stopped(c.store, &storagetest.Stop{N: n, After: after}))); !errors.Is(err, storagetest.ErrStopped) {
				t.Fatalf("call %d: %v", n, err)
			}
			for range 4 {
				have := c.packs()
				for key := range left {
					if !slices.Contains(have, key) {
						t.Fatalf("stopped at call %d: a pack is lost", n)
					}
				}
				c.gc(GCOptions{})
				c.pass(documented.wait + documented.slot/2)
			}
			c.pass(documented.slot + documented.lag)
			c.gc(GCOptions{})
			if have := c.packs(); len(have) != len(left) || len(storagetest.Keys(t, c.store, gcPrefix, "")) > 0 {
				t.Fatalf("stopped at call %d: %d packs instead of %d, lists %v", n, len(have), len(left), storagetest.Keys(t, c.store, gcPrefix, ""))
			}
		}
	}
}

// TestGCAtOnceSurvivesStops is the same on a disk of this machine.
func TestGCAtOnceSurvivesStops(t *testing.T) {
	start := func() (c clocked, left map[string]bool) {
		store := diskStore(t)
		requireLocks(t, store)
		b := newBuilder(t, store)
		c = clocked{b, &b.now}
		return c, c.garbage()
	}
	collect := func(r *Repository) error {
		_, err := r.GC(t.Context(), GCOptions{})
		return err
	}
	c, _ := start()
	for _, n := range callsOf(t, c.store, collect) {
		for _, after := range []bool{false, true} {
			c, left := start()
			if err := collect(repositoryOver(storagetest.Stopped(c.store, &storagetest.Stop{N: n, After: after}))); !errors.Is(err, storagetest.ErrStopped) {
				t.Fatalf("call %d: %v", n, err)
			}
			report := c.gc(GCOptions{})
			have := map[string]bool{}
			for _, key := range c.packs() {
				have[key] = true
			}
			if !maps.Equal(have, left) || len(storagetest.Keys(t, c.store, gcPrefix, "")) > 0 || !report.AtOnce {
				t.Fatalf("stopped at call %d: %d packs instead of %d", n, len(have), len(left))
			}
		}
	}
}

func requireLocks(t *testing.T, s storage.Local) {
	t.Helper()
	if !onLocalDisk(s.Dir()) {
		require.Missing(t, "a temporary directory on a disk of this machine")
	}
}

// TestGCWaitsForWhoPublishes: nothing is deleted between the check of packs and their record.
func TestGCWaitsForWhoPublishes(t *testing.T) {
	store := diskStore(t)
	requireLocks(t, store)
	b := newBuilder(t, store)
	row := b.tree(fakeFile("a", "1"))
	done := make(chan error, 1)
	err := publish(t.Context(), b.repo, nil, row.Packs, func(before time.Time) ([]Record, error) {
		go func() {
			_, err := b.repo.GC(context.Background(), GCOptions{})
			done <- err
		}()
		waitFor(t, func() bool { return lockWanted(t, store) })
		row.Before = before
		return []Record{b.commit(row)}, nil
	})
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	if len(b.packs()) != 1 {
		t.Error("the pack was deleted while its record was on the way")
	}
}

// lockWanted reports whether a collector has opened the lock: this process has it open twice.
func lockWanted(t *testing.T, s storage.Local) bool {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		require.Missing(t, "/proc")
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && to == filepath.Join(s.Dir(), "tmp", landingLock) {
			n++
		}
	}
	return n >= 2
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !condition(); {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen within a minute")
		}
		unix.Poll(nil, 1)
	}
}

// TestUndelete: what was deleted is published again, as long as its packs are there.
func TestUndelete(t *testing.T) {
	c := newClocked(t)
	row := c.tree(fakeFile("a", "1"))
	record := c.commit(row)
	future, err := ParseRecord([]byte(strings.Replace(string(record.Line), `,"before"`, `,"later":{"before":1},"before"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	c.log(future)
	deletion := c.record(Record{Delete: &Delete{ID: record.Commit.ID, At: c.now.Add(1)}})
	c.log(deletion)
	if err := c.repo.Undelete(t.Context(), []Record{future}, deletion.Delete.At); replicate.KindOf(err) != replicate.Unavailable {
		t.Errorf("before the time of the deletion: %v", err)
	}
	c.pass(time.Minute)
	if err := c.repo.Undelete(t.Context(), []Record{future}, deletion.Delete.At); err != nil {
		t.Fatal(err)
	}
	living := 0
	for line := range linesOf(t, c.repo) {
		r, err := ParseRecord([]byte(line))
		if err == nil && r.Commit != nil && !deletion.Delete.Kills(r.Commit.Row) {
			living++
			if !strings.Contains(line, `"later":{"before":1}`) {
				t.Errorf("it lost what this version does not know: %s", line)
			}
		}
	}
	if living != 1 {
		t.Errorf("%d living rows", living)
	}
	c.log(c.record(Record{Delete: &Delete{ID: record.Commit.ID, At: c.now.Add(1)}}))
	c.pass(documented.age + 1)
	c.gc(GCOptions{})
	err = c.repo.Undelete(t.Context(), []Record{future}, deletion.Delete.At)
	if replicate.KindOf(err) != replicate.Conflict || replicate.HintOf(err) == "" {
		t.Errorf("condemned: %v", err)
	}
}
