package repository

import (
	"os"
	"path/filepath"

	"github.com/replicate/replicate"
)

// forget is U5: packs that are sent are needed here no more, but for those that a running experiment's tree is in.
func (u *uploader) forget(names []string) error {
	kept := u.treePacks()
	for _, name := range names {
		records, _, err := u.readReady(name)
		if err != nil {
			if missingIsNil(err) != nil {
				return err
			}
			continue
		}
		b := batch{records: [][]Record{records}}
		for _, p := range b.needs() {
			from := u.path(packsName, p.String())
			if kept[p] {
				err = os.Rename(from, u.path(keptName, p.String()))
			} else {
				err = os.Remove(from)
			}
			if missingIsNil(err) != nil {
				return err
			}
		}
		if err := missingIsNil(os.Remove(u.path(readyName, name))); err != nil {
			return err
		}
	}
	u.dropKept(kept)
	if err := syncPath(u.path(readyName)); err != nil {
		return err
	}
	return missingIsNil(os.Remove(u.path(sendingName)))
}

// treePacks returns the packs in which the newest trees of experiments that go on lie.
func (u *uploader) treePacks() map[replicate.Hash]bool {
	packs := map[replicate.Hash]bool{}
	entries, _ := os.ReadDir(u.path(headName)) // no folder: none
	for _, e := range entries {
		st, err := u.standing(replicate.ID(e.Name()))
		if err != nil {
			continue
		}
		row := &st.Experiment.Row
		if st.Newest != nil {
			row = &st.Newest.Row
		}
		for _, ref := range row.Tree {
			packs[ref.Pack] = true
		}
	}
	return packs
}

// dropKept removes kept packs that no tree needs.
func (u *uploader) dropKept(kept map[replicate.Hash]bool) {
	entries, _ := os.ReadDir(u.path(keptName)) // no folder: none
	for _, e := range entries {
		if p, err := replicate.ParseHash(e.Name()); err != nil || !kept[p] {
			_ = os.Remove(u.path(keptName, e.Name())) // the next time
		}
	}
}

// sweep removes what nobody needs when nothing is left: packs of commits that never were, and what was kept for experiments that ended.
func (u *uploader) sweep() {
	var stale []string
	for _, folder := range []string{packsName, keptName, headName} {
		entries, _ := os.ReadDir(u.path(folder)) // no folder: nothing
		for _, e := range entries {
			stale = append(stale, u.path(folder, e.Name()))
		}
	}
	hidden, _ := filepath.Glob(u.path(readyName, ".[0-9]*")) // a constant pattern
	stale = append(stale, hidden...)
	if !u.isEmpty(u.spool) || len(u.spool.writers()) > 0 { // looked at after the lists: whoever began since has nothing in them
		return
	}
	for _, path := range stale {
		_ = os.Remove(path) // the next time
	}
}
