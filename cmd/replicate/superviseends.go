package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/code"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/pipe"
)

// superviseEnds are the other ends of what a client does over a connection to a container.
func superviseEnds(w *world) []*cli.Command {
	return []*cli.Command{
		{
			Name:   "store",
			Usage:  "serve a repository for reading",
			Action: func(c *cli.Context) error { return w.superviseStore(c) },
		},
		{
			Name:  "forget",
			Usage: "drop the repository of a run of which everything was fetched",
			Action: func(c *cli.Context) error {
				if _, err := os.Stat(filepath.Join(jobDir, job.FetchedName)); err != nil {
					return err
				}
				return dropStorage(jobDir)
			},
		},
		{
			Name:  "prune",
			Usage: "drop chunks of working directories from each of some folders",
			Flags: []cli.Flag{
				&cli.TimestampFlag{Name: "now", Usage: "the `TIME` of the machine", Layout: time.RFC3339, Required: true},
				&cli.DurationFlag{Name: "unused", Usage: "for how long", Required: true},
				&cli.StringSliceFlag{Name: "keep", Usage: "what the run of an `ID` has"},
				&cli.BoolFlag{Name: "dry-run", Usage: "only count"},
			},
			Action: func(c *cli.Context) error { return w.supervisePrune(c) },
		},
	}
}

// supervisePrune prints what it dropped from each folder as a line of JSON.
func (w *world) supervisePrune(c *cli.Context) error {
	kept := c.StringSlice("keep")
	o := code.PruneOptions{
		Now: *c.Timestamp("now"), Unused: c.Duration("unused"), DryRun: c.Bool("dry-run"), Keep: func(name string) bool { return slices.Contains(kept, name) },
	}
	for _, dir := range c.Args().Slice() {
		pruned, err := code.Prune(dir, o)
		if err == nil {
			err = json.NewEncoder(w.stdout).Encode(pruned)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dropStorage removes the repository of a run. Whoever is killed in the middle leaves the rest under a name at which nobody looks for a repository.
func dropStorage(dir string) error {
	storage := filepath.Join(dir, storageName)
	gone := storage + ".fetched"
	if err := os.Rename(storage, gone); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.RemoveAll(gone)
}

func (w *world) superviseStore(c *cli.Context) error {
	if err := wantArgs(c, 1, 1, "a folder"); err != nil {
		return err
	}
	store, err := storage.Open(c.Context, "file://"+c.Args().First())
	if err != nil {
		return err
	}
	return pipe.Serve(c.Context, store, awake(w.stdin), w.stdout)
}

// storeIdle is how long nobody may ask a store before it ends: its input stays open when whoever asked is gone without a word.
const storeIdle = 2 * time.Minute

// awake ends the process when nothing was read for a while.
func awake(r io.Reader) io.Reader {
	return &awakeReader{r, time.AfterFunc(storeIdle, func() { os.Exit(0) })}
}

type awakeReader struct {
	io.Reader
	end *time.Timer
}

func (r *awakeReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	r.end.Reset(storeIdle)
	return n, err
}

// receiveCode is how a supervisor gets the working directory that comes behind its job; nil if none does.
func (w *world) receiveCode(c *cli.Context) (func(context.Context, replicate.ID, io.ReadWriter) error, error) {
	target := c.String("code")
	if target == "" {
		return nil, nil
	}
	var owner code.Owner
	if _, err := fmt.Sscanf(c.String("owner"), "%d:%d", &owner.UID, &owner.GID); err != nil {
		return nil, replicate.Errorf(replicate.Usage, "owner %q is not UID:GID", c.String("owner"))
	}
	return func(ctx context.Context, id replicate.ID, rw io.ReadWriter) error {
		return code.Receive(ctx, rw, code.ReceiveOptions{Chunks: c.String("chunks"), Target: target, Owner: &owner, Name: string(id)})
	}, nil
}
