package repository

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

// A Cache is a folder of verified frames, for a storage that is far away. Any number of processes and repositories share one: an object
// is named by what it holds, written under another name first, and verified again whenever it is read, so that there is nothing to lock
// and nothing to repair. Everything in it can be had again.
//
//	chunks/<2 hex>/<62 hex>   the raw bytes of a frame, named by their BLAKE3
//	groups/<2 hex>/<62 hex>   those of a frame that holds several files, behind their own BLAKE3; named by its place, as its hash is not known before
type Cache struct {
	dir   string
	limit int64
	warn  func(error)

	written atomic.Int64 // bytes since the size was last looked at
	warned  sync.Once
	trim    sync.Mutex   // held by the goroutine that looks at the size
	held    sync.RWMutex // for reading, while something that was handed out is being kept
}

const (
	// cachedFor is how long an object's mtime tells that it was used, before it is touched again.
	cachedFor = time.Hour
	// trimParts is after which part of the limit is written the size is looked at: what several processes write beyond the limit
	// stays below a tenth of it.
	trimParts = 50
	// trimTo is the part of the limit, in percent, that is left when objects are removed.
	trimTo = 90
	// defaultCache bounds a cache by default: the smaller of 50 GB and a tenth of the disk.
	defaultCache = 50 << 30
	diskParts    = 10
)

// NewCache returns the cache in dir, made when the first object is kept. It is bounded to limit bytes, give or take a tenth; 0 is the smaller of
// 50 GB and a tenth of the disk. warn, which may be nil, is told once if nothing can be kept.
func NewCache(dir string, limit int64, warn func(error)) *Cache {
	return &Cache{dir: dir, limit: limit, warn: warn}
}

// UseCache makes r keep what it reads. A local storage needs no cache and ignores it. It must be called before the first read.
func (r *Repository) UseCache(c *Cache) {
	if r.local == nil {
		r.cache = c
	}
}

// path is where the frame of ref is kept.
func (c *Cache) path(ref Ref) string {
	kind, name := "chunks", ref.Hash
	if ref.Hash.IsZero() {
		kind, name = "groups", hashOf(fmt.Appendf(nil, "%s %d %d", ref.Pack, ref.Off, ref.Raw))
	}
	digits := hex.EncodeToString(name[:])
	return filepath.Join(c.dir, kind, digits[:2], digits[2:])
}

// has reports whether a frame is probably kept.
func (c *Cache) has(ref Ref) bool {
	if c == nil {
		return false
	}
	_, err := os.Lstat(c.path(ref))
	return err == nil
}

// get returns the raw bytes of a frame, verified, or false if they are not kept. What turns out to be damaged is removed.
func (c *Cache) get(ref Ref) ([]byte, bool) {
	if c == nil {
		return nil, false
	}
	path := c.path(ref)
	f, err := os.Open(path)
	if err != nil {
		return nil, false
	}
	defer f.Close()
	data, err := readCached(f, ref)
	if err != nil {
		os.Remove(path)
		return nil, false
	}
	if info, err := f.Stat(); err == nil && time.Since(info.ModTime()) > cachedFor {
		now := time.Now()
		os.Chtimes(path, now, now) // who may not touch it still reads it
	}
	return data, true
}

// readCached reads and verifies the object of ref.
func readCached(f *os.File, ref Ref) ([]byte, error) {
	want := ref.Hash
	if want.IsZero() {
		if _, err := io.ReadFull(f, want[:]); err != nil {
			return nil, err
		}
	}
	data := takeBuffer(int(ref.Raw))
	if _, err := io.ReadFull(f, data); err != nil {
		return nil, err
	}
	if n, _ := f.Read(make([]byte, 1)); n > 0 || hashOf(data) != want {
		return nil, errWrongBytes
	}
	return data, nil
}

// keeping says that something that was handed out is about to be kept, until the function it returns is called.
func (c *Cache) keeping() func() {
	if c == nil {
		return func() {}
	}
	c.held.RLock()
	return c.held.RUnlock
}

// Wait returns when everything that was handed out so far is kept, and no more than may be: else a process that ends at once has it to read again, or
// leaves too much behind.
func (c *Cache) Wait() {
	c.kept()
	c.trim.Lock()
	c.look()
}

// kept returns when everything that was handed out so far is kept.
func (c *Cache) kept() {
	c.held.Lock() // that is all
	defer c.held.Unlock()
}

// put keeps the raw bytes of a frame. It may fail: then they are fetched again.
func (c *Cache) put(ref Ref, data []byte) {
	if c == nil {
		return
	}
	if err := c.write(ref, data); err != nil {
		c.warned.Do(func() {
			if c.warn != nil {
				c.warn(&replicate.Error{Op: "keep what was read", Path: c.dir, Kind: replicate.KindOf(err), Err: err})
			}
		})
		return
	}
	c.written.Add(int64(len(data)))
	if c.due() && c.trim.TryLock() {
		go c.look()
	}
}

// due reports whether so much was written that the size is to be looked at.
func (c *Cache) due() bool {
	n := c.written.Load()
	return n > 0 && n >= c.bound()/trimParts
}

// look looks at the size, again if much is written meanwhile. c.trim is held, and is not afterwards.
func (c *Cache) look() {
	for looked := true; looked; looked = looked && c.due() && c.trim.TryLock() {
		if c.due() {
			looked = c.shrink()
		}
		c.trim.Unlock()
	}
}

// drop forgets a frame that its readers found to be wrong.
func (c *Cache) drop(ref Ref) {
	if c != nil {
		c.kept() // whoever made it may be about to keep it
		os.Remove(c.path(ref))
	}
}

func (c *Cache) write(ref Ref, data []byte) error {
	path := c.path(ref)
	f, err := os.CreateTemp(filepath.Dir(path), cacheTemp)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		f, err = os.CreateTemp(filepath.Dir(path), cacheTemp)
	}
	if err != nil {
		return err
	}
	if ref.Hash.IsZero() {
		hash := hashOf(data)
		_, err = f.Write(hash[:])
	}
	if err == nil {
		_, err = f.Write(data)
	}
	err = cmp.Or(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// cacheTemp begins the names of objects that are not whole yet.
const cacheTemp = "new-"

// bound is the limit in bytes.
func (c *Cache) bound() int64 {
	if c.limit > 0 {
		return c.limit
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(c.dir, &disk); err != nil {
		return defaultCache
	}
	return min(defaultCache, int64(disk.Blocks)*int64(disk.Bsize)/diskParts)
}

// A cached is an object of a cache.
type cached struct {
	path string
	size int64
	used time.Time
}

// shrink removes what was not used for longest, if there is more than the limit. One process at a time does it: it reports whether it was this one.
func (c *Cache) shrink() bool {
	lock, err := os.OpenFile(filepath.Join(c.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false
	}
	defer lock.Close()
	if syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return false
	}
	c.written.Store(0)
	var objects []cached
	var total int64
	for _, kind := range []string{"chunks", "groups"} {
		filepath.WalkDir(filepath.Join(c.dir, kind), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return nil
			}
			if info, err := d.Info(); err == nil {
				objects = append(objects, cached{path, info.Size(), info.ModTime()})
				total += info.Size()
			}
			return nil
		})
	}
	if total <= c.bound() {
		return true
	}
	slices.SortFunc(objects, func(a, b cached) int { return a.used.Compare(b.used) })
	for _, o := range objects {
		if total <= c.bound()/100*trimTo {
			break
		}
		if os.Remove(o.path) == nil { // whoever has it open reads on
			total -= o.size
		}
	}
	return true
}
