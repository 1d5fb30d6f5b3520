package index

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
	"github.com/replicate/replicate/storage/storagetest"
)

// ballast is an experiment with a commit that makes any segment it is in one that is not read whole.
func ballast(t *testing.T, random *rand.ChaCha8, name string) []repository.Record {
	t.Helper()
	noise := make([]byte, 1_200_000)
	random.Read(noise)
	return encode(t, experimentRecord(replicate.Experiment{ID: id(name)}),
		commitRecord(replicate.Commit{ID: id(name + "c"), Experiment: id(name), Message: base64.StdEncoding.EncodeToString(noise)}))
}

// nudge makes so many objects that a merge is due.
func (w *world) nudge() {
	w.Helper()
	for i := range 260 {
		w.must(w.repository.Append(w.Context(), encode(w.T, setRecord(id("f"), start.Add(time.Duration(i)), map[string]string{"note": fmt.Sprintf(`"%d"`, i)}))...))
	}
}

// another is an index of the same repository that is made anew.
func (w *world) another() *world {
	w.Helper()
	x := *w
	x.dir, x.Index = w.TempDir(), nil
	x.reopen()
	x.sync()
	return &x
}

// rowsMissing counts the experiments some rows of which are not here.
func (w *world) rowsMissing() (n int) {
	w.Helper()
	w.must(w.db.QueryRowContext(w.Context(), "SELECT count(*) FROM experiment WHERE parts > 0").Scan(&n))
	return n
}

// listed is what tables show, for which no rows are fetched.
func (w *world) listed() string {
	w.Helper()
	var out []byte
	for _, q := range corpus {
		all, _, err := w.List(w.Context(), q)
		out = fmt.Appendf(out, "%+v: %v\n", q, err)
		for _, e := range all {
			out = append(e.AppendJSON(out), '\n')
		}
	}
	return string(out)
}

// firstDifference returns the first lines that differ.
func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return g[i] + "\nwant\n" + w[i]
		}
	}
	return fmt.Sprintf("%d lines instead of %d", len(g), len(w))
}

var corpus = []Query{
	{Sort: "id"}, {Sort: "id", Brief: true}, {Sort: "loss.min"}, {Sort: "loss-desc"}, {Filters: []string{"commits > 1"}}, {Filters: []string{"step >= 1"}},
	{Filters: []string{"loss.best < 0.5 or acc.max >= 1"}}, {Filters: []string{"status = deleted"}}, {Filters: []string{"sealed.first = 0"}},
	{Filters: []string{"loss.last is not null and tag = born"}, Last: 2},
}

// TestHeadsSayWhatRowsSay: an index made of heads answers as one made of all rows, and so does every answer for which rows are fetched.
func TestHeadsSayWhatRowsSay(t *testing.T) {
	lazy := 0
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 9))
		noise := rand.NewChaCha8([32]byte{byte(seed)})
		w := newWorld(t)
		records := history(t, random)
		records = append(records, commitPoints(t, records)...)
		records = append(records, sealed(t, random, id("1"))...)
		random.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		follower := w.another()
		for stage := range 1 + random.IntN(3) {
			n := len(records)
			if stage < 2 {
				n = random.IntN(n + 1)
			}
			for _, r := range records[:n] {
				w.must(w.repository.Append(t.Context(), r))
			}
			records = records[n:]
			w.must(w.repository.Append(t.Context(), ballast(t, noise, fmt.Sprint(4+stage))...))
			if random.IntN(2) == 0 {
				follower.sync()
			}
			whole := w.another()
			w.nudge()
			w.must(w.repository.Merge(t.Context()))
			_, err := w.repository.Check(t.Context(), repository.CheckOptions{}, func(p repository.Problem) {
				if p.Key != "" {
					t.Errorf("seed %d, stage %d: check: %s: %v", seed, stage, p.Key, p.Err)
				}
			})
			w.must(err)
			made := w.another()
			whole.sync() // follows the notes of nudge
			follower.sync()
			lazy += made.rowsMissing()
			for name, x := range map[string]*world{"made of heads": made, "follower": follower} {
				if got, want := x.listed(), whole.listed(); got != want {
					t.Fatalf("seed %d, stage %d, %s lists\n%s", seed, stage, name, firstDifference(got, want))
				}
				if random.IntN(2) == 0 {
					x.sync()
				}
				if got, want := x.said(), whole.said(); name == "made of heads" && got != want {
					t.Fatalf("seed %d, stage %d, %s says\n%s", seed, stage, name, firstDifference(got, want))
				}
			}
		}
	}
	if lazy == 0 {
		t.Error("no rows were left to be fetched")
	}
}

// TestCommitsAreFoundByPrefix: a commit whose row was not read is found by the beginning of its id, and is told from others.
func TestCommitsAreFoundByPrefix(t *testing.T) {
	w := newWorld(t)
	noise := rand.NewChaCha8([32]byte{1})
	records := ballast(t, noise, "4")
	ids := []replicate.ID{}
	for i := range 50 {
		e := id(fmt.Sprintf("%04x", 0xa000+i))
		records = append(records, encode(t, experimentRecord(replicate.Experiment{ID: e}))...)
		for seq := range 3 {
			c := id(fmt.Sprintf("b%03x%d", i*41, seq))
			ids = append(ids, c)
			records = append(records, encode(t, commitRecord(replicate.Commit{ID: c, Experiment: e, Seq: int64(seq), Step: replicate.Step(seq)}))...)
		}
	}
	w.must(w.repository.Append(t.Context(), records...))
	w.nudge()
	w.must(w.repository.Merge(t.Context()))
	x := w.another()
	if x.rowsMissing() < 50 {
		t.Fatalf("rows of %d experiments are missing", x.rowsMissing())
	}
	for i := range slices.Backward(ids) {
		got, err := x.Resolve(t.Context(), string(ids[i][:5]))
		w.must(err)
		if got.Commit == nil || got.Commit.ID != ids[i] {
			t.Fatalf("%s stands for %v", ids[i][:5], got.Commit)
		}
		if i == len(ids)-1 && x.rowsMissing() < 50 {
			t.Errorf("to find one commit, rows were fetched until those of %d experiments are missing", x.rowsMissing())
		}
	}
	x = w.another()
	if _, err := x.Resolve(t.Context(), "b00"); replicate.KindOf(err) != replicate.Ambiguous {
		t.Errorf("an ambiguous beginning: %v", err)
	}
	if c, err := x.Commit(t.Context(), ids[7]); err != nil || c.Step != 1 {
		t.Errorf("commit %s: %v, %v", ids[7], c, err)
	}
	if _, err := x.Resolve(t.Context(), "b9999"); replicate.KindOf(err) != replicate.NotFound {
		t.Errorf("what is not there: %v", err)
	}
}

// TestRowsOfWhatIsMeantAreAskedForAtOnce has a storage that answers neither the search for commits of a prefix nor the request for the rows of the
// experiment of that prefix before both are asked.
func TestRowsOfWhatIsMeantAreAskedForAtOnce(t *testing.T) {
	w := newWorld(t)
	e := id("a1")
	records := append(ballast(t, rand.NewChaCha8([32]byte{1}), "4"), encode(t, experimentRecord(replicate.Experiment{ID: e}),
		commitRecord(replicate.Commit{ID: id("b1"), Experiment: e}))...)
	w.must(w.repository.Append(t.Context(), records...))
	w.nudge()
	w.must(w.repository.Merge(t.Context()))
	var synced atomic.Bool
	var asked atomic.Int64
	both := make(chan struct{})
	var err error
	w.repository, err = repository.Open(t.Context(), storagetest.Slow(w.store, func(ctx context.Context, call storagetest.Call) error {
		if call.Op != storagetest.OpGet || !synced.Load() {
			return nil
		}
		if asked.Add(1) == 2 {
			close(both)
		}
		select {
		case <-both:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}))
	w.must(err)
	x := w.another()
	synced.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	got, err := x.Resolve(ctx, string(e[:7])+"@latest")
	w.must(err)
	if _, err := x.Row(ctx, got.Commit); err != nil || asked.Load() != 2 {
		t.Errorf("%d requests, %v", asked.Load(), err)
	}
}
