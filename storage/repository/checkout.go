package repository

import "context"

// CheckoutOptions says what to write out and where.
type CheckoutOptions struct {
	Dir      string                     // created if missing
	Paths    []string                   // files or whole directories of the tree; empty: everything
	Replace  func(paths []string) error // called before anything is written with the files that would be replaced by something else; an error stops it. nil: replace
	Keep     string                     // folder that replaced files are moved to, "" to drop them
	Progress func(done, total int64)    // bytes; may be nil
}

// A CheckoutReport says what a checkout did.
type CheckoutReport struct {
	Files, Bytes int64
	Replaced     int // files that held something else before
}

// Checkout writes files of a tree below a directory. It never deletes other files, restores modes and mtimes, writes each file
// whole or not at all, and leaves Dir by no path of the tree. A path that is not in the tree is an error of kind NotFound with
// the nearest names as the hint.
func (r *Repository) Checkout(ctx context.Context, t *Tree, o CheckoutOptions) (CheckoutReport, error) {
	return CheckoutReport{}, errLater
}
