package main

import (
	"crypto/rand"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/repository"
)

// mergerCommand is what merges the records of a storage for commands that end too soon to do it: a process that belongs to nobody. What it cannot do
// somebody else will.
func mergerCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:   "merger",
		Hidden: true,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1, "the URL of a storage"); err != nil {
				return err
			}
			stay()
			useGoogleCredentials(w.getenv)
			store, err := storage.Open(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			r, err := repository.Open(c.Context, storage.WithPolicy(store, storage.Policy{Patience: uploaderPatience}))
			if err != nil {
				return err
			}
			return r.MergeLater(c.Context, rand.Reader)
		},
	}
}

// startMerger has the records of a storage merged if the last sync saw too many objects of them.
func startMerger(r *repository.Repository) {
	if r.MergeWanted(rand.Reader) {
		_ = startAlone(nil, "merger", r.Store().URL()) // the next command tries again
	}
}
