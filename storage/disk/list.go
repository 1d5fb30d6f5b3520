package disk

import (
	"context"
	"io/fs"
	"iter"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/replicate/replicate/storage"
)

// List walks the folders that can hold keys with the prefix, one at a time.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		l := lister{store: s, ctx: ctx, prefix: prefix, after: after, yield: yield}
		folder, _ := cutLast(prefix)
		if folder == "" || storage.CheckKey(strings.TrimSuffix(folder, "/")) == nil {
			l.folder(folder)
		}
	}
}

// cutLast splits key behind its last slash.
func cutLast(key string) (folder, name string) {
	i := strings.LastIndexByte(key, '/') + 1
	return key[:i], key[i:]
}

type lister struct {
	store  *Store
	ctx    context.Context
	prefix string
	after  string
	yield  func(storage.Object, error) bool
}

// folder lists what lies below a folder, "" or with "/" at its end, and reports whether to go on.
func (l *lister) folder(folder string) bool {
	if err := l.ctx.Err(); err != nil {
		return l.fail(folder, err)
	}
	entries, err := os.ReadDir(l.store.Path(folder))
	if err != nil && !missing(err) {
		return l.fail(folder, err)
	}
	for some := range slices.Chunk(l.sorted(folder, entries), statsAtOnce) {
		if len(some) == statsAtOnce {
			statAll(some)
		}
		for _, e := range some {
			if strings.HasSuffix(e.key, "/") {
				if !l.folder(e.key) {
					return false
				}
			} else if !l.object(e) {
				return false
			}
		}
	}
	return true
}

// statsAtOnce is how many files of a large folder are looked at before the first of them is yielded.
const statsAtOnce = 256

// statAll looks at files on all cores: in a folder of hundreds of thousands that is most of a listing.
func statAll(entries []named) {
	share := (len(entries) + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0)
	var looking sync.WaitGroup
	for some := range slices.Chunk(entries, share) {
		looking.Go(func() {
			for i := range some {
				some[i].stat()
			}
		})
	}
	looking.Wait()
}

// A named entry carries its key, with "/" at the end for a folder.
type named struct {
	key   string
	entry fs.DirEntry
	info  fs.FileInfo // neither is known before stat
	err   error
}

// stat looks at a file.
func (n *named) stat() {
	if !n.entry.IsDir() {
		n.info, n.err = n.entry.Info()
	}
}

// sorted returns the entries that can belong to the listing in the order of keys, in which a-b comes before a/b.
func (l *lister) sorted(folder string, entries []fs.DirEntry) []named {
	list := make([]named, 0, len(entries))
	for _, e := range entries {
		key := folder + e.Name()
		if !storage.IsName(e.Name()) || key == tmp {
			continue
		}
		switch {
		case e.IsDir():
			key += "/"
			if !strings.HasPrefix(l.prefix, key) && !strings.HasPrefix(key, l.prefix) {
				continue
			}
			if key < l.after && !strings.HasPrefix(l.after, key) {
				continue
			}
		case !e.Type().IsRegular() || !strings.HasPrefix(key, l.prefix) || key <= l.after:
			continue
		}
		list = append(list, named{key: key, entry: e})
	}
	slices.SortFunc(list, func(a, b named) int { return strings.Compare(a.key, b.key) })
	return list
}

func (l *lister) object(e named) bool {
	if e.info == nil && e.err == nil {
		e.stat()
	}
	switch {
	case e.err != nil && missing(e.err):
		return true // deleted meanwhile
	case e.err != nil:
		return l.fail(e.key, e.err)
	case l.ctx.Err() != nil:
		return l.fail(e.key, l.ctx.Err())
	}
	return l.yield(storage.Object{Key: e.key, Size: e.info.Size(), Time: ctime(e.info)}, nil)
}

func (l *lister) fail(key string, err error) bool {
	l.yield(storage.Object{}, failed("list", l.store.Path(key), err))
	return false
}
