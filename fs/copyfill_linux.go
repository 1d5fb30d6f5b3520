package fs

import (
	"math/bits"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/fs/view"
)

const (
	// fillPage is in what pieces a fill knows what it has: the kernel asks for whole pages.
	fillPage = 4 << 10
	// mostFills is how many files are copied at a time. Who reads a part of one and goes makes room for the next.
	mostFills = 8
)

// A fill is a copy in the making.
type fill struct {
	file    *os.File
	size    int64
	have    []uint64 // a bit for each page
	missing int64    // pages
	used    time.Time
}

// begin begins the copy of a file of which the start is being read, unless there is one.
func (c *copies) begin(id view.ID, life view.Life, a *view.Attr) {
	if node, changes := c.node(id, life, a); node != uint64(id) || !changes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fills[id] != nil || c.now[id] != 0 || c.table == nil {
		return
	}
	if len(c.fills) >= mostFills {
		c.dropOldestFill()
	}
	if !c.makeRoom(a.Size) {
		return
	}
	file, err := namelessFile(c.dir, a.Size)
	if err != nil {
		c.stop("make a file in the cache directory", err)
		return
	}
	pages := (a.Size + fillPage - 1) / fillPage
	c.fills[id] = &fill{file: file, size: a.Size, have: make([]uint64, (pages+63)/64), missing: pages, used: c.clock()}
	c.held += a.Size
}

// namelessFile makes a file of n bytes that nobody else can open. It has its size at once: it is written out of order, and each write that made
// it longer would be a change for the journal of the file system.
func namelessFile(dir string, n int64) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), dir)
	if err := f.Truncate(n); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// pass takes what was read of a file, verified, into its copy.
func (c *copies) pass(id view.ID, p []byte, off int64) {
	c.mu.Lock()
	f := c.fills[id]
	c.mu.Unlock()
	if f == nil {
		return
	}
	_, err := f.file.WriteAt(p, off)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fills[id] != f {
		return // dropped meanwhile
	}
	if err != nil {
		c.dropFill(id) // the disk is full, as it seems; another time
		return
	}
	if f.used = c.clock(); f.mark(off, int64(len(p))) {
		c.complete(id, f)
	}
}

// complete makes a copy of a fill that has everything.
func (c *copies) complete(id view.ID, f *fill) {
	err := c.add(id, f.file, f.size)
	if err == nil {
		c.held += f.size // the fill's share goes with it
	}
	c.dropFill(id)
	if err != nil {
		c.stop("give a copy to the kernel", err)
	}
}

func (c *copies) dropFill(id view.ID) {
	f := c.fills[id]
	delete(c.fills, id)
	c.held -= f.size
	f.file.Close()
}

func (c *copies) dropOldestFill() {
	var oldest view.ID
	for id, f := range c.fills {
		if oldest == 0 || f.used.Before(c.fills[oldest].used) {
			oldest = id
		}
	}
	c.dropFill(oldest)
}

// mark notes that the bytes from off to off + n are there, and reports whether these were the last ones.
func (f *fill) mark(off, n int64) bool {
	from, to := (off+fillPage-1)/fillPage, (off+n)/fillPage
	if off+n == f.size {
		to = (f.size + fillPage - 1) / fillPage
	}
	before := f.missing
	for page := from; page < to; page++ {
		word, bit := page/64, uint64(1)<<(page%64)
		f.missing -= int64(bits.OnesCount64(bit &^ f.have[word]))
		f.have[word] |= bit
	}
	return f.missing == 0 && before > 0
}
