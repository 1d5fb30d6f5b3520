package fs

import (
	"context"
	"log/slog"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/fs/view"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/repository"
)

var _ View = (*view.View)(nil)

// Open makes the view that options name: of a repository, or of one commit.
func Open(ctx context.Context, o Options) (View, error) {
	store, err := storage.Open(ctx, o.Storage)
	if err != nil {
		return nil, err
	}
	r, err := repository.Open(ctx, store)
	if err != nil {
		return nil, err
	}
	r.UseCache(repository.NewCache(o.CacheDir, o.CacheSize, func(err error) { slog.Warn("cache", "error", err) }))
	x, err := index.Open(ctx, o.IndexDir, r, index.Options{Metrics: o.Metrics, Primary: o.Primary})
	if err != nil {
		return nil, err
	}
	if o.Commit != "" {
		return view.NewCommit(ctx, x, r, o.CacheDir, replicate.ID(o.Commit))
	}
	return view.New(x, r, o.CacheDir)
}
