package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/mem"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/repository"
)

const copyHelp = `Brings what the storage SRC holds, and the storage DST does not, into DST: experiments, commits, curves and
output, under the same ids. Both are URLs or paths. It can be stopped at any moment and begun again, and
repeated to bring over what is new. What was deleted in either stays deleted.

    replicate copy .replicate/storage s3://hooli/iris
    replicate copy -f 'tag = paper' gs://hooli/iris /media/backup/iris

A repository of 2020 or 2021 is converted: docs/legacy.md. The exit code is 1 if something could not be
copied; everything else was.`

func copyCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "copy",
		Usage:       "copy a repository, or some of its experiments, to another storage",
		ArgsUsage:   "SRC DST",
		Description: copyHelp,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "filter", Aliases: []string{"f"}, Usage: "only experiments for which `QUERY` holds (repeat for and)"},
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be copied, and copy nothing"},
			createFlag(),
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 2, 2, "SRC and DST"); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
			defer stop()
			return w.copy(ctx, c)
		},
	}
}

func (w *world) copy(ctx context.Context, c *cli.Context) error {
	p, err := w.project(c)
	if err != nil {
		return err
	}
	urls := make([]string, 2)
	for i := range urls {
		if urls[i], err = project.URL(c.Args().Get(i), w.dir); err != nil {
			return err
		}
	}
	from, _, err := w.openRepository(ctx, urls[0], storage.Person.Patience, p.Cache, nil)
	if err != nil {
		return err
	}
	o := repository.CopyOptions{DryRun: c.Bool("dry-run")}
	if filters := c.StringSlice("filter"); len(filters) > 0 {
		if o.Only, err = w.matching(ctx, p, from, filters); err != nil {
			return err
		}
	}
	if !o.DryRun {
		if err := w.ensureBucket(c, urls[1]); err != nil {
			return err
		}
	}
	to, err := w.destination(ctx, urls[1], o.DryRun)
	if err != nil {
		return err
	}
	spool := repository.OpenSpool(to, filepath.Join(w.cacheDir(), "replicate", "copy"))
	if !o.DryRun {
		if _, err := spool.Recover(ctx); err != nil { // what a copy left that was killed
			w.report("warning", err)
		}
	}
	line := w.progress("copying")
	o.Progress, o.Convert = line.update, line.count
	o.Warn = func(err error) {
		line.done()
		w.warn(err)
	}
	report, err := spool.Copy(ctx, from, o)
	line.done()
	if err != nil {
		if errors.Is(err, context.Canceled) {
			return replicate.Errorf(replicate.Conflict, "copying was stopped").WithHint("the same command goes on where it was stopped")
		}
		return err
	}
	w.say("%s", copyText(report, o.DryRun))
	return nil
}

// destination opens the repository that is copied to, making it if need be. A dry run makes none.
func (w *world) destination(ctx context.Context, url string, dryRun bool) (*repository.Repository, error) {
	store, err := w.openStore(ctx, url, storage.Person.Patience)
	if err != nil {
		return nil, err
	}
	if !dryRun {
		return repository.Create(ctx, store)
	}
	to, err := repository.Open(ctx, store)
	if kind := replicate.KindOf(err); kind == replicate.NotFound || kind == replicate.Conflict {
		return repository.Create(ctx, mem.New("nothing", time.Now))
	}
	return to, err
}

// matching returns what tells the experiments for which filters hold.
func (w *world) matching(ctx context.Context, p *project.Project, r *repository.Repository, filters []string) (func(replicate.ID) bool, error) {
	x, err := index.Open(ctx, p.Cache(r.ID()), r, indexOptions(p.Config, w.now))
	if err != nil {
		return nil, err
	}
	defer x.Close()
	if _, err := x.Sync(ctx); err != nil { // what cannot be read is reported when it is to be copied
		return nil, err
	}
	experiments, notes, err := x.List(ctx, index.Query{Filters: filters, Brief: true})
	if err != nil {
		return nil, err
	}
	for _, note := range notes {
		w.say("replicate: %s", note)
	}
	wanted := map[replicate.ID]bool{}
	for _, e := range experiments {
		wanted[e.ID] = true
	}
	return func(id replicate.ID) bool { return wanted[id] }, nil
}

// copyText says what was copied.
func copyText(r repository.CopyReport, dryRun bool) string {
	verb := "copied"
	if dryRun {
		verb = "would copy"
	}
	if r.Experiments+r.Commits+r.Packs+r.Others == 0 {
		return "nothing to copy: everything is there"
	}
	parts := []string{plural(r.Experiments, "experiment"), plural(r.Commits, "commit")}
	if r.Converted > 0 {
		parts = append(parts, "converted from an old format")
	}
	if r.Packs > 0 {
		parts = append(parts, fmt.Sprintf("%s (%s)", plural(r.Packs, "pack"), size(r.Bytes)))
	}
	return verb + " " + strings.Join(parts, ", ")
}
