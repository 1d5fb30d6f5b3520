package repository

import (
	"context"
	"errors"
	"io/fs"

	"github.com/replicate/replicate"
)

// A verdict says whether a late record can be believed.
type verdict int

const (
	hopeless verdict = iota // a pack is missing. Names are never used twice, so it stays missing
	doubtful                // a pack is doomed now: it may go, or be spared
	sound
)

// doomedPacks returns the packs that are condemned or sentenced.
type doomedPacks func() (map[replicate.Hash]bool, error)

// judge decides on a late record. What is doomed must be looked for first: looked for later, a pack could be condemned after it was
// found to exist and be deleted before the list was read.
func (r *Repository) judge(ctx context.Context, doomed doomedPacks, packs []replicate.Hash) (verdict, error) {
	dead, err := doomed()
	if errors.Is(err, fs.ErrNotExist) {
		return doubtful, nil
	}
	if err != nil {
		return doubtful, err
	}
	for _, p := range packs {
		if dead[p] {
			return doubtful, nil
		}
	}
	for _, p := range packs {
		if _, err := r.store.Stat(ctx, packKey(p)); errors.Is(err, fs.ErrNotExist) {
			return hopeless, nil
		} else if err != nil {
			return doubtful, err
		}
	}
	return sound, nil
}

// lookAgain is how often gc/ is read while lists vanish from it.
const lookAgain = 3

// readDoomed returns the packs that the lists in gc/ name, void sentences excepted. A list that vanishes meanwhile became a
// sentence, or was carried out: then all is read again. The error is fs.ErrNotExist if that goes on, as with a listing that lags.
func (r *Repository) readDoomed(ctx context.Context) (doomed map[replicate.Hash]bool, err error) {
	for range lookAgain {
		doomed = map[replicate.Hash]bool{}
		if err = r.addDoomed(ctx, doomed); !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	return doomed, err
}

func (r *Repository) addDoomed(ctx context.Context, doomed map[replicate.Hash]bool) error {
	for o, err := range r.store.List(ctx, gcPrefix, "") {
		if err != nil {
			return err
		}
		list, err := r.readGCList(ctx, o)
		if err != nil {
			return err
		}
		if list == nil || list.sentence && r.timing.lapsed(list.Condemned, o.Time) {
			continue
		}
		for _, p := range list.packs {
			doomed[p] = true
		}
	}
	return nil
}
