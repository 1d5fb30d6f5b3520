package repository

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"slices"

	"github.com/replicate/replicate"
)

// Usage says what holds the packs of a repository. Live, Waiting and Dead are all of them, each once.
type Usage struct {
	Experiments []ExperimentUsage // those with packs, by id
	Live        Packs             // needed
	Waiting     Packs             // needed by nothing, and condemned
	Dead        Packs             // needed by nothing, and not condemned yet
}

// ExperimentUsage is what the living rows of one experiment need: whole packs.
type ExperimentUsage struct {
	ID     replicate.ID
	Alone  Packs // needed by no other experiment
	Shared Packs // needed by others too
}

// Usage counts which experiments need which packs. It reads all records and lists all packs. progress may be nil. Records that cannot be read are an
// error of kind Corrupt, as for GC.
func (r *Repository) Usage(ctx context.Context, progress func(doing string, done, total int64)) (Usage, error) {
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	c := &collector{repository: r, options: GCOptions{DryRun: true, Progress: progress}, census: newCensus(r), sizes: map[packMark]int64{}}
	for _, step := range []func(context.Context) error{c.settle, c.look, c.findDead} {
		if err := step(ctx); err != nil {
			return Usage{}, &replicate.Error{Op: "measure", Path: r.store.URL(), Kind: replicate.KindOf(err), Err: err, Hint: replicate.HintOf(err)}
		}
	}
	u := Usage{Experiments: c.census.usage(c.sizes), Live: c.report.Needed}
	for _, list := range c.lists {
		for _, p := range list.packs {
			if d, dead := c.dead[p]; dead {
				u.Waiting.add(d.size)
				delete(c.dead, p)
			}
		}
	}
	for _, d := range c.dead {
		u.Dead.add(d.size)
	}
	return u, nil
}

// usage says what each experiment needs, given the sizes of packs.
func (c *census) usage(sizes map[packMark]int64) (all []ExperimentUsage) {
	type need struct {
		experiment idBytes
		pack       packMark
	}
	var needs []need
	c.living(func(experiment idBytes, packs []packMark) {
		for _, p := range packs {
			needs = append(needs, need{experiment, p})
		}
	})
	slices.SortFunc(needs, func(a, b need) int {
		return cmp.Or(bytes.Compare(a.experiment[:], b.experiment[:]), cmp.Compare(a.pack, b.pack))
	})
	needs = slices.Compact(needs)
	by := make(map[packMark]int, len(sizes)) // experiments
	for _, n := range needs {
		by[n.pack]++
	}
	for i, n := range needs {
		if i == 0 || n.experiment != needs[i-1].experiment {
			all = append(all, ExperimentUsage{ID: replicate.ID(hex.EncodeToString(n.experiment[:]))})
		}
		e := &all[len(all)-1]
		size, there := sizes[n.pack]
		switch {
		case !there: // lost
		case by[n.pack] > 1:
			e.Shared.add(size)
		default:
			e.Alone.add(size)
		}
	}
	return all
}
