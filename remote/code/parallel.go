package code

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
)

// hands is how many files are worked on side by side: a few per core, as making small files is mostly waiting, each with up to one chunk in memory.
func hands() int { return min(2*runtime.GOMAXPROCS(0), 12) }

// parallel calls work for each i below n on a few goroutines, until one returns an error or ctx ends.
func parallel(ctx context.Context, n int, work func(i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(hands(), n) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n && ctx.Err() == nil; i = int(next.Add(1)) - 1 {
				if err := work(i); err != nil {
					cancel(err)
				}
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
