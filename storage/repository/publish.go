package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// Publishing makes packs and the records that need them visible, in five steps:
//
//	U1  put every own pack
//	U2  a = the store's time; every pack that is needed must be undoomed and, looked for after that, exist
//	U3  put the records, with before = a + W, as one object of log/
//	U4  if that landed later than before − 5 minutes: U2 again, the same rows with a new before
//	U5  forget them here
//
// A crash anywhere leaves nothing half-visible: packs nobody needs, which gc removes, or everything. Each step can be done again.
const (
	// frontClocks is what the clocks of one store's front ends may differ by.
	frontClocks = 5 * time.Minute
	// putsAtOnce is how many packs are sent side by side.
	putsAtOnce = 8
	// statsAtOnce is how many packs are looked for side by side.
	statsAtOnce = 64
	// publishTries is how often a record that lands late is published again: each time the machine slept for an hour in between.
	publishTries = 5
)

// errDoubtful says that packs are condemned or gone: what needs them must be stored again.
type errDoubtful struct{ packs []replicate.Hash }

func (e errDoubtful) Error() string {
	return fmt.Sprintf("%d packs were removed meanwhile, the first is %s", len(e.packs), e.packs[0])
}

// publish makes records visible that need own packs and others. records makes them for a time at which they must have landed. The own packs are
// in the storage when it returns, also with an error of type errDoubtful, which names those of needs that cannot be used.
func publish(ctx context.Context, r *Repository, own []builtPack, needs []replicate.Hash, records func(before time.Time) ([]Record, error)) error {
	store := r.store
	if len(own)+len(needs) > 0 {
		release, err := r.landing(ctx)
		if err != nil {
			return err
		}
		defer release()
	}
	put, err := store.Now(ctx) // before the packs: they are younger than that
	if err != nil {
		return err
	}
	if err := putPacks(ctx, store, own); err != nil {
		return err
	}
	mine := map[replicate.Hash]bool{}
	for _, p := range own {
		mine[p.name] = true
		if !slices.Contains(needs, p.name) {
			needs = append(slices.Clip(needs), p.name)
		}
	}
	for range publishTries {
		checked, err := store.Now(ctx)
		if err != nil {
			return err
		}
		if checked.After(put.Add(r.timing.age - LandWithin)) {
			clear(mine)
		}
		if err := r.checkPacks(ctx, needs, mine); err != nil {
			return err
		}
		before := checked.Add(LandWithin)
		list, err := records(before)
		if err != nil {
			return err
		}
		landed, err := putRecords(ctx, store, list)
		if err != nil {
			return err
		}
		if !landed.After(before.Add(-frontClocks)) {
			return nil
		}
	}
	return replicate.Errorf(replicate.Unavailable, "records take longer than an hour to reach %s", store.URL())
}

// putPacks is U1. An object of a pack's name has its content: names are hashes.
func putPacks(ctx context.Context, store storage.Store, packs []builtPack) error {
	local, _ := store.(storage.Local)
	var wg sync.WaitGroup
	errs := make([]error, len(packs))
	slots := make(chan struct{}, putsAtOnce)
	for i, p := range packs {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if local != nil {
				_, errs[i] = local.Adopt(ctx, packKey(p.name), p.path)
				return
			}
			errs[i] = putFile(ctx, store, packKey(p.name), p.path)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func putFile(ctx context.Context, store storage.Store, key, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if _, err := store.Put(ctx, key, f, info.Size()); err != nil {
		return err
	}
	return os.Remove(path)
}

// checkPacks is U2. Doom is looked for before existence: the other way round, a pack could be condemned after it was found to exist and be
// deleted before the list was read.
func (r *Repository) checkPacks(ctx context.Context, packs []replicate.Hash, except map[replicate.Hash]bool) error {
	packs = slices.DeleteFunc(slices.Clone(packs), func(p replicate.Hash) bool { return except[p] })
	if len(packs) == 0 {
		return nil
	}
	doomed, err := r.readDoomed(ctx)
	if err != nil {
		return err
	}
	gone := make([]bool, len(packs))
	err = parallel(ctx, r.atOnce(statsAtOnce), len(packs), func(ctx context.Context, i int) error {
		if gone[i] = doomed[packs[i]]; gone[i] {
			return nil
		}
		_, err := r.store.Stat(ctx, packKey(packs[i]))
		gone[i] = errors.Is(err, fs.ErrNotExist)
		return missingIsNil(err)
	})
	if err != nil {
		return err
	}
	var doubtful []replicate.Hash
	for i, p := range packs {
		if gone[i] {
			doubtful = append(doubtful, p)
		}
	}
	if len(doubtful) > 0 {
		return errDoubtful{doubtful}
	}
	return nil
}

// putRecords is U3: it puts records as one object and returns when that landed. Those that have a line are put as they are.
func putRecords(ctx context.Context, store storage.Store, records []Record) (time.Time, error) {
	lines := make([]Record, len(records))
	for i, r := range records {
		if lines[i] = r; r.Line != nil {
			continue
		}
		var err error
		if lines[i], err = r.Encode(); err != nil {
			return time.Time{}, err
		}
	}
	key, object := encodeLog(lines)
	return store.Put(ctx, key, bytes.NewReader(object), int64(len(object)))
}
