package repository

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/replicate/replicate"
)

// CheckoutOptions says what to write out and where.
type CheckoutOptions struct {
	Dir      string                     // created if missing
	Paths    []string                   // files or whole directories of the tree; empty: everything
	Replace  func(paths []string) error // called before anything is written with the paths that hold something else now; an error stops it. nil: replace
	Keep     string                     // folder that replaced files are moved to, "" to drop them
	Project  string                     // the root of a project whose commits find what was written stored, if Dir is in it; "" for none
	Progress func(done, total int64)    // bytes; called by one goroutine at a time; may be nil
}

// A CheckoutReport says what a checkout did.
type CheckoutReport struct {
	Files, Bytes int64 // written: files and links, and the sizes of files
	Unchanged    int64 // files and links that were there with the right content
	Replaced     int   // paths that held something else before
}

// Checkout writes files of a tree below a directory. It never deletes other files, restores modes and mtimes, writes each file
// whole or not at all, and leaves Dir by no path of the tree. A path that is not in the tree is an error of kind NotFound with
// the nearest names as the hint.
//
// A file whose content is already there is left alone but for its mode and mtime. If some files cannot be read because their bytes
// are damaged, all others are written, and the error, of kind Corrupt, names them. While it runs, files have names that
// begin with ".replicate-"; a checkout that is killed leaves a few of these behind, but no half file under its own name.
func (r *Repository) Checkout(ctx context.Context, t *Tree, o CheckoutOptions) (CheckoutReport, error) {
	entries, err := selectEntries(t, o.Paths)
	if err != nil {
		return CheckoutReport{}, checkoutError("", err)
	}
	if err := os.MkdirAll(o.Dir, 0o777); err != nil {
		return CheckoutReport{}, checkoutError("", err)
	}
	root, err := os.OpenRoot(o.Dir)
	if err != nil {
		return CheckoutReport{}, checkoutError("", err)
	}
	defer root.Close()
	var random [6]byte
	rand.Read(random[:]) // never fails
	c := &checkout{repository: r, options: o, root: root, temp: ".replicate-" + hex.EncodeToString(random[:])}
	err = c.run(ctx, t, entries)
	return c.report, err
}

// checkoutError is the border of this file: what went wrong with a path of the tree, "" for all of it.
func checkoutError(path string, err error) error {
	return &replicate.Error{Op: "check out", Path: path, Kind: kindOfFile(err), Err: err}
}

// A checkout is one call of Checkout.
type checkout struct {
	repository *Repository
	options    CheckoutOptions
	root       *os.Root
	temp       string // how temporary names begin
	report     CheckoutReport

	folders []*slot // directories, each behind the one it is in
	files   []*slot // files and links that are to be written
}

func (c *checkout) run(ctx context.Context, t *Tree, entries []*Entry) error {
	if err := c.plan(ctx, t, entries); err != nil {
		return err
	}
	if occupied := c.occupied(); len(occupied) > 0 && c.options.Replace != nil {
		if err := c.options.Replace(occupied); err != nil {
			return err
		}
	}
	err := c.makeFolders()
	if err == nil {
		err = c.write(ctx)
		c.remember(ctx)
	}
	// Also after an error: folders that were made writable get back what they had.
	return cmp.Or(err, c.finishFolders())
}

// occupied returns the paths that hold something else now, in the order of the tree.
func (c *checkout) occupied() (paths []string) {
	for _, p := range slices.Concat(c.folders, c.files) {
		if p.occupied {
			paths = append(paths, p.entry.Path)
		}
	}
	slices.SortFunc(paths, ComparePaths)
	c.report.Replaced = len(paths)
	return paths
}

// selectEntries returns the entries at and below paths, in the order of the tree, each once.
func selectEntries(t *Tree, paths []string) ([]*Entry, error) {
	chosen := make([]bool, len(t.Entries))
	if len(paths) == 0 {
		paths = []string{""}
	}
	for _, path := range paths {
		name := cleanPath(path)
		from, to := t.Range(name)
		if i, found := t.search(name); found {
			from = i
		} else if name != "" {
			return nil, notInTree(t, path, name)
		}
		for i := from; i < to; i++ {
			chosen[i] = true
		}
	}
	var entries []*Entry
	for i := range t.Entries {
		if !chosen[i] {
			continue
		}
		if err := checkPath(t.Entries[i].Path); err != nil {
			return nil, replicate.Errorf(replicate.Corrupt, "%w", err)
		}
		entries = append(entries, &t.Entries[i])
	}
	return entries, nil
}

// cleanPath takes off what people add to a path of a tree: "./" before it and "/" behind it.
func cleanPath(path string) string {
	for strings.HasPrefix(path, "./") {
		path = strings.TrimLeft(path[2:], "/")
	}
	path = strings.TrimRight(path, "/")
	if path == "." {
		return ""
	}
	return path
}

func notInTree(t *Tree, path, name string) error {
	e := &replicate.Error{Kind: replicate.NotFound, Err: fmt.Errorf("%s is not in this commit", path)}
	candidates := make([]string, len(t.Entries))
	for i := range t.Entries {
		candidates[i] = t.Entries[i].Path
	}
	if near := replicate.Nearest(name, candidates); near != "" {
		return e.WithHint("did you mean %q?", near)
	}
	return e
}

// parallel calls work for each i from 0 to n on some goroutines, until one returns an error or ctx is cancelled. Then the ctx of the others
// is cancelled too.
func parallel(ctx context.Context, goroutines, n int, work func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var mu sync.Mutex // guards next
	next := 0
	take := func() int {
		mu.Lock()
		defer mu.Unlock()
		next++
		return next - 1
	}
	var workers sync.WaitGroup
	for range min(goroutines, n) {
		workers.Go(func() {
			for i := take(); i < n && ctx.Err() == nil; i = take() {
				if err := work(ctx, i); err != nil {
					cancel(err)
				}
			}
		})
	}
	workers.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// workers is how many goroutines move bytes: one per core where they are on this machine, else as many requests as hide a round trip.
func (r *Repository) workers() int {
	if r.local != nil {
		return runtime.GOMAXPROCS(0)
	}
	return 8
}
