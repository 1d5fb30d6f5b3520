package fs

import (
	"cmp"
	"math/bits"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/fs/view"
)

const (
	// fillPage is in what pieces a fill knows what it has: the kernel asks for whole pages.
	fillPage = 4 << 10
	// mostFills is how many files are copied at a time. Who reads a part of one and goes makes room for the next.
	mostFills = 8
	// reserveStep is for how many bytes of a fill blocks are found at a time.
	reserveStep = 32 << 20
)

// A fill is a copy in the making.
type fill struct {
	file    *os.File
	size    int64
	have    []uint64 // a bit for each page
	missing int64    // pages that nobody brings
	used    time.Time
	writes  sync.WaitGroup // those of replies, begun while something is missing

	reserved []atomic.Bool // for each reserveStep
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
	c.fills[id] = &fill{
		file: file, size: a.Size, have: make([]uint64, (pages+63)/64), missing: pages, used: c.clock(),
		reserved: make([]atomic.Bool, (a.Size+reserveStep-1)/reserveStep),
	}
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

// take takes what was read of a file, verified, into its copy, once the reader has it. Who brings the last part is answered when the copy is complete,
// so that whoever opens the file next is given the copy.
func (c *copies) take(id view.ID, a *reply) {
	c.mu.Lock()
	f := c.fills[id]
	if f == nil || f.missing == 0 {
		c.mu.Unlock()
		return
	}
	f.used = c.clock()
	f.writes.Add(1)
	last := f.mark(a.off, int64(a.size))
	c.mu.Unlock()
	if !last {
		a.done = slices.Insert(a.done, 0, func() { c.write(id, f, a) })
		return
	}
	c.write(id, f, a)
	f.writes.Wait()
	c.complete(id, f)
}

// write writes a reply into a copy.
func (c *copies) write(id view.ID, f *fill, a *reply) {
	defer f.writes.Done()
	var n int
	err := control(f.file, func(fd int) (err error) {
		f.reserve(fd, a.off, int64(a.size))
		n, err = unix.Pwritev(fd, a.parts, a.off)
		return err
	})
	if err == nil && n == a.size {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fills[id] == f {
		c.dropFill(id) // the disk is full, as it seems; another time
	}
}

// reserve has the file system find the blocks of a stretch of which something is written for the first time. That is optional, and costs less than to have
// it count blocks page by page, as it does for those that it finds later; all at once would be too many for who reads the head of a large file.
func (f *fill) reserve(fd int, off, n int64) {
	for step := off / reserveStep; step <= (off+n-1)/reserveStep; step++ {
		if !f.reserved[step].Swap(true) {
			from := step * reserveStep
			_ = unix.Fallocate(fd, 0, from, min(reserveStep, f.size-from))
		}
	}
}

// control does something with the descriptor of a file, which is not closed meanwhile.
func control(file *os.File, do func(fd int) error) (err error) {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	closed := conn.Control(func(fd uintptr) { err = do(int(fd)) })
	return cmp.Or(err, closed)
}

// complete makes a copy of a fill that has everything, unless it was dropped meanwhile.
func (c *copies) complete(id view.ID, f *fill) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fills[id] != f {
		return
	}
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
