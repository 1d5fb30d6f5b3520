package fs

import (
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/fs/view"
)

// A large file that is read from beginning to end is copied as it passes, verified, into a file without a name in the cache directory; who
// opens it later is given that file by the kernel itself (passthrough: Linux 6.9, root). The kernel keeps the pages of FUSE in pieces of
// 4 KiB and those of most file systems in large ones, which are read three times as fast.
//
// The kernel refuses to open an inode in both ways, or with another registered file than it is open with: the caller would see an input/output
// error. And the server may be killed at any moment. So nothing is decided when a file is opened:
//
//  1. A copy has a node of its own, which LOOKUP gives to the name once the copy is complete. Names of files that may get a copy are therefore
//     looked up each time. stat shows the inode number of the file, whichever node it asks.
//  2. A node of a copy is only ever opened in passthrough, with the one registration that it was made for. Registrations belong to the connection
//     and outlive the server. Which node has which is in a table beside the mount's state, written before the node is given out.
//  3. A registration is given back only by the server that made it, once each handle that it opened was released. From then on the node is
//     opened as any other: the table says so before the registration is gone. Handles are random numbers: a RELEASE that is repeated, or is
//     of an earlier server's handle, counts for nothing.
//
// The copy of a server that was killed stays until the mount ends, with which the kernel gives back all of them.
const (
	// copyBit marks nodes of copies: nodes of a view never have it. The rest is the number of the copy, from 1.
	copyBit = 1 << 63
	// A smaller file than leastCopy is read in a few milliseconds either way.
	leastCopy = 16 << 20
	// Copies of a mount take at most a part of the memory, as it is the page cache that they make faster, and of what is free on the disk.
	copiesOfMemory, copiesOfDisk = 8, 20
	// A copy that was not opened for copyRest makes room for another one: sooner, a walk over many large files would keep none of them.
	copyRest = time.Minute
	// mostNames is of how many files that have no copy yet the name is known: far more than are read at a time.
	mostNames = 256
)

// A copied is a copy that is complete.
type copied struct {
	file      view.ID
	size      int64
	backing   int32     // its registration with the kernel
	inherited bool      // from an earlier server, whose handles nobody knows
	open      int       // handles
	used      time.Time // when it was last opened
	closed    bool      // the registration was given back
}

// copies are the copies of one mount. nil has none and makes none. It is safe for use by several goroutines.
type copies struct {
	dir    string // where they lie
	limit  int64  // bytes of all of them
	clock  func() time.Time
	log    *slog.Logger
	kernel *fuse.Server

	mu      sync.Mutex        // guards the rest, and makes a registration and its line in the table one step
	table   *os.File          // nil once something does not work: then no more are made
	all     []*copied         // by number, from 1
	now     map[view.ID]int   // the numbers of those that are not closed
	handles map[uint64]uint64 // what is open in passthrough: handle → node
	fills   map[view.ID]*fill
	names   map[view.ID]view.Change // where files that may get a copy were looked up last
	held    int64                   // bytes of copies and of what is being filled
}

// openCopies takes up the copies of a connection: those in its table if it was used before, else none.
func openCopies(o order, log *slog.Logger) *copies {
	c := &copies{dir: o.CacheDir, clock: time.Now, log: log,
		now: map[view.ID]int{}, handles: map[uint64]uint64{}, fills: map[view.ID]*fill{}, names: map[view.ID]view.Change{}}
	err := os.MkdirAll(c.dir, 0o700)
	if err == nil {
		c.table, c.all, err = openCopyTable(stateOf(o.StateDir, o.Dir).path("copies"), o.Again)
	}
	if err != nil {
		c.stop("keep a table of copies", err)
	}
	c.limit = copyLimit(c.dir)
	if o.CacheSize > 0 {
		c.limit = min(c.limit, o.CacheSize)
	}
	for i, k := range c.all {
		k.inherited = true
		if !k.closed {
			c.now[k.file], c.held = i+1, c.held+k.size
		}
	}
	return c
}

// copyLimit is how many bytes the copies of a mount may take.
func copyLimit(dir string) int64 {
	var memory unix.Sysinfo_t
	var disk unix.Statfs_t
	if unix.Sysinfo(&memory) != nil || unix.Statfs(dir, &disk) != nil {
		return 0
	}
	return min(int64(memory.Totalram)*int64(memory.Unit)/copiesOfMemory, int64(disk.Bavail)*disk.Bsize/copiesOfDisk)
}

// stop makes no more copies. Those that are there stay.
func (c *copies) stop(what string, err error) {
	c.log.Info("large files are read through the server: "+what, "error", err)
	if c.table != nil {
		c.table.Close()
		c.table = nil
	}
	for id := range c.fills {
		c.dropFill(id)
	}
}

// file returns the file that a node shows.
func (c *copies) file(node uint64) (view.ID, error) {
	if node&copyBit == 0 {
		return view.ID(node), nil
	}
	if c != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		if k := c.at(node); k != nil {
			return k.file, nil
		}
	}
	return 0, view.ErrStale
}

func (c *copies) at(node uint64) *copied {
	if n := node &^ copyBit; node&copyBit != 0 && n > 0 && n <= uint64(len(c.all)) {
		return c.all[n-1]
	}
	return nil
}

// node returns the node that a name of a file leads to now, and whether that may change.
func (c *copies) node(id view.ID, life view.Life, a *view.Attr) (node uint64, changes bool) {
	if c == nil || life != view.Forever || a.Mode&view.TypeMask != view.TypeFile || a.Size < leastCopy || a.Size > c.limit {
		return uint64(id), false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n, ok := c.now[id]; ok {
		return copyBit | uint64(n), true
	}
	return uint64(id), c.table != nil
}

// open returns the handle and the registration that a node is to be opened with, false if it is to be opened as any other.
func (c *copies) open(node uint64) (handle uint64, backing int32, ok bool) {
	if c == nil || node&copyBit == 0 {
		return 0, 0, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.at(node)
	if k == nil || k.closed {
		return 0, 0, false
	}
	k.open++
	k.used = c.clock()
	handle = rand.Uint64()
	c.handles[handle] = node
	return handle, k.backing, true
}

// named notes where a file was looked up that may get a copy.
func (c *copies) named(id view.ID, at view.Change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.names) >= mostNames {
		clear(c.names)
	}
	c.names[id] = at
}

// release is told of every RELEASE. It returns the name of a file that was closed and is read from its copy by now: the kernel is to forget what it
// was, or the next who opens it waits until the pages of the file are freed.
func (c *copies) release(node, handle uint64) (name view.Change, forget bool) {
	if c == nil {
		return view.Change{}, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if node, ok := c.handles[handle]; ok {
		delete(c.handles, handle)
		c.at(node).open--
	}
	id := view.ID(node)
	if name, forget = c.names[id]; forget && c.now[id] != 0 {
		delete(c.names, id)
		return name, true
	}
	return view.Change{}, false
}

// add makes a complete copy known. The table comes first: a node that is not in it is never given out.
func (c *copies) add(id view.ID, f *os.File, size int64) error {
	if c.kernel == nil {
		return errors.New("the kernel has not asked yet")
	}
	backing, errno := c.kernel.RegisterBackingFd(&fuse.BackingMap{Fd: int32(f.Fd())})
	if errno != 0 {
		return errno
	}
	k := &copied{file: id, size: size, backing: backing, used: c.clock()}
	if err := writeCopied(c.table, len(c.all)+1, k); err != nil {
		c.kernel.UnregisterBackingFd(backing)
		return err
	}
	c.all = append(c.all, k)
	c.now[id] = len(c.all)
	return nil
}

// makeRoom gives back what rests until n more bytes fit, and reports whether they do.
func (c *copies) makeRoom(n int64) bool {
	for c.held+n > c.limit {
		oldest := 0
		for _, i := range c.now {
			k := c.all[i-1]
			if k.open == 0 && !k.inherited && c.clock().Sub(k.used) > copyRest && (oldest == 0 || k.used.Before(c.all[oldest-1].used)) {
				oldest = i
			}
		}
		if oldest == 0 || c.close(oldest) != nil {
			return false
		}
	}
	return true
}

// close gives a registration back.
func (c *copies) close(number int) error {
	k := c.all[number-1]
	if err := writeClosed(c.table, number); err != nil {
		c.stop("write the table of copies", err)
		return err
	}
	k.closed = true
	delete(c.now, k.file)
	c.held -= k.size
	c.kernel.UnregisterBackingFd(k.backing)
	return nil
}
