package repository

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Who ends before a merge would begin has another process do it: that is what this file is for.

// MergeWanted reports whether whoever has synced should see to a merge: if one is due, one time in four, and if what it writes belongs to the one who
// owns what is there. On a disk root could merge what others then cannot read.
func (r *Repository) MergeWanted(random io.Reader) bool {
	_, wanted := mergeDelayOf(random)
	return wanted && r.MergeDue() && r.foreign == nil && r.isOwn()
}

// isOwn reports whether the records of a repository on a disk belong to the user of this process. A bucket belongs to all who may write to it.
func (r *Repository) isOwn() bool {
	if r.local == nil {
		return true
	}
	info, err := os.Stat(filepath.Join(r.local.Dir(), logPrefix))
	if err != nil {
		return false
	}
	s, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(s.Uid) == os.Geteuid()
}

// MergeLater merges as Merge does, after some seconds, so that not all who saw that it is due do it at once. random decides how many.
func (r *Repository) MergeLater(ctx context.Context, random io.Reader) error {
	delay, _ := mergeDelayOf(random)
	select {
	case <-time.After(delay):
		return r.Merge(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}
