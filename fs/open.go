package fs

import (
	"context"
	"log/slog"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/fs/view"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/repository"
)

var _ View = (*view.View)(nil)

// Open makes the view that options name: of the repository r at o.Storage, or of one commit.
func Open(ctx context.Context, r *repository.Repository, o Options) (View, error) {
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
