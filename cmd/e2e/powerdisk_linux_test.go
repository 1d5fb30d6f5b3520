package e2e

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// A powerDisk is a file system in memory that remembers every change, in order, so that it can be put into each state that a cut of the power may
// leave behind. The kernel caches nothing of it. It has what a repository needs: no devices, no owners, no shared mappings.
type powerDisk struct {
	fuse.RawFileSystem // answers ENOSYS
	dir                string

	mu      sync.Mutex // guards what follows
	now     *image
	changes []func(*image)
	last    uint64 // the highest inode number
	listed  map[uint64][]fuse.DirEntry
}

// An image is what a disk holds, and what of it is durable.
//
// The model is the weakest that POSIX lets a file system be, in one point stronger: a rename happens whole or not at all, as in every journal. fsync
// and fdatasync of a file make its content durable, not its name. fsync of a directory makes the names in it durable, not the content of
// files, nor the directory's own name. Nothing else is, and there is no order: of two changes that were not synced the later one may survive alone.
type image struct {
	inodes map[uint64]*inode
	moves  []move // renames between directories that are not durable
}

type inode struct {
	mode         uint32 // with the type, as stat shows it
	mtime, ctime time.Time
	replicates   bool // it is .replicate or below: everything else on the disk always survives
	target       string
	data, synced []byte            // of a file: now, and what is durable
	names, kept  map[string]uint64 // of a directory: the same
}

type move struct {
	ino, from, to    uint64
	oldName, newName string
}

func (x *inode) isDir() bool { return x.mode&syscall.S_IFMT == syscall.S_IFDIR }

// sync makes an inode durable.
func (m *image) sync(ino uint64) {
	x := m.inodes[ino]
	if !x.isDir() {
		x.synced = bytes.Clone(x.data)
		return
	}
	x.kept = maps.Clone(x.names)
	m.moves = slices.DeleteFunc(m.moves, func(v move) bool {
		switch ino {
		case v.from:
			m.inodes[v.to].kept[v.newName] = v.ino
		case v.to:
			if from := m.inodes[v.from].kept; from[v.oldName] == v.ino {
				delete(from, v.oldName)
			}
		default:
			return false
		}
		return true
	})
}

// A loss decides what of a file and of a directory is there after a power cut.
type loss struct {
	name  string
	file  func(x *inode) []byte
	names func(x *inode) (current bool)
}

func losses(chance *rand.Rand) []loss {
	synced := func(x *inode) []byte { return x.synced }
	current := func(x *inode) []byte { return x.data }
	zeros := func(x *inode) []byte {
		b := make([]byte, max(len(x.data), len(x.synced)))
		copy(b, x.synced)
		return b
	}
	torn := func(x *inode) []byte {
		const block = 4096
		b := zeros(x)
		for at := 0; at < len(x.data); at += block {
			if chance.IntN(2) == 0 {
				copy(b[at:], x.data[at:min(at+block, len(x.data))])
			}
		}
		return b
	}
	always := func(current bool) func(*inode) bool { return func(*inode) bool { return current } }
	return []loss{
		{"only what was synced", synced, always(false)},
		{"all names, files as synced", synced, always(true)},
		{"all names, zeros for data", zeros, always(true)},
		{"all data, names as synced", current, always(false)},
		{"some of both", func(x *inode) []byte {
			return []func(*inode) []byte{synced, current, zeros, torn}[chance.IntN(4)](x)
		}, func(*inode) bool { return chance.IntN(2) == 0 }},
	}
}

// cut returns what is left when the power goes.
func (m *image) cut(how loss) *image {
	left := &image{inodes: map[uint64]*inode{}}
	current := map[uint64]bool{}
	for _, ino := range slices.Sorted(maps.Keys(m.inodes)) { // in order: the seed of a test decides
		x := m.inodes[ino]
		y := *x
		y.data = bytes.Clone(x.data)
		if x.isDir() {
			current[ino] = how.names(x)
			y.names = maps.Clone(x.kept)
			if current[ino] {
				y.names = maps.Clone(x.names)
			}
		} else if x.replicates {
			y.data = bytes.Clone(how.file(x))
		}
		left.inodes[ino] = &y
	}
	for _, v := range m.moves {
		from := left.inodes[v.from].names
		switch {
		case current[v.from] && !current[v.to]:
			from[v.oldName] = v.ino
		case current[v.to] && from[v.oldName] == v.ino:
			delete(from, v.oldName)
		}
	}
	for ino, y := range left.inodes {
		if y.isDir() && !y.replicates {
			for name, n := range m.inodes[ino].names {
				if !m.inodes[n].replicates {
					y.names[name] = n
				}
			}
			maps.DeleteFunc(y.names, func(name string, n uint64) bool {
				return !m.inodes[n].replicates && m.inodes[ino].names[name] != n
			})
		}
		y.synced, y.kept = bytes.Clone(y.data), maps.Clone(y.names)
	}
	return left
}

// mountPowerDisk mounts a new disk until the test ends.
func mountPowerDisk(t *testing.T) *powerDisk {
	t.Helper()
	require.Fuse(t)
	require.Root(t)
	d := &powerDisk{
		RawFileSystem: fuse.NewDefaultRawFileSystem(), dir: t.TempDir(), last: fuse.FUSE_ROOT_ID, listed: map[uint64][]fuse.DirEntry{},
		now: &image{inodes: map[uint64]*inode{fuse.FUSE_ROOT_ID: newInode(syscall.S_IFDIR|0o755, time.Now())}},
	}
	server, err := fuse.NewServer(d, d.dir, &fuse.MountOptions{FsName: "powerdisk", Name: "powerdisk", DirectMount: true, DisableReadDirPlus: true, MaxWrite: 512 << 10})
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve()
	if err := server.WaitMount(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Unmount(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func newInode(mode uint32, now time.Time) *inode {
	x := &inode{mode: mode, mtime: now, ctime: now}
	if x.isDir() {
		x.names, x.kept = map[string]uint64{}, map[string]uint64{}
	}
	return x
}

// length is how many changes there were.
func (d *powerDisk) length() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.changes)
}

// become puts the disk into another state. No file may be open.
func (d *powerDisk) become(m *image) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.now, d.changes = m, nil
}

// do carries out a change. The lock is held.
func (d *powerDisk) do(change func(*image)) fuse.Status {
	change(d.now)
	d.changes = append(d.changes, change)
	return fuse.OK
}

func (d *powerDisk) attr(ino uint64, out *fuse.Attr) fuse.Status {
	x := d.now.inodes[ino]
	if x == nil {
		return fuse.ENOENT
	}
	*out = fuse.Attr{Ino: ino, Mode: x.mode, Size: uint64(len(x.data) + len(x.target)), Blocks: uint64(len(x.data)+511) / 512, Nlink: 1, Blksize: 4096}
	out.SetTimes(nil, &x.mtime, &x.ctime)
	return fuse.OK
}

func (d *powerDisk) entry(ino uint64, out *fuse.EntryOut) fuse.Status {
	out.NodeId = ino
	return d.attr(ino, &out.Attr)
}

// find returns what has a name.
func (d *powerDisk) find(dir uint64, name string) (uint64, bool) {
	x := d.now.inodes[dir]
	if x == nil {
		return 0, false
	}
	ino, ok := x.names[name]
	return ino, ok
}

func (d *powerDisk) Lookup(_ <-chan struct{}, in *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	ino, ok := d.find(in.NodeId, name)
	if !ok {
		return fuse.ENOENT
	}
	return d.entry(ino, out)
}

func (d *powerDisk) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.attr(in.NodeId, &out.Attr)
}

// add makes an inode with a name.
func (d *powerDisk) add(dir uint64, name string, x *inode, out *fuse.EntryOut) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.find(dir, name); ok {
		return fuse.Status(syscall.EEXIST)
	}
	d.last++
	ino := d.last
	d.do(func(m *image) {
		y := newInode(x.mode, x.ctime)
		y.target = x.target
		y.replicates = m.inodes[dir].replicates || name == ".replicate"
		m.inodes[ino] = y
		m.name(dir, name, ino, x.ctime)
	})
	return d.entry(ino, out)
}

func (m *image) name(dir uint64, name string, ino uint64, now time.Time) {
	m.inodes[dir].names[name] = ino
	m.inodes[dir].mtime, m.inodes[dir].ctime, m.inodes[ino].ctime = now, now, now
}

func (m *image) unname(dir uint64, name string, now time.Time) {
	delete(m.inodes[dir].names, name)
	m.inodes[dir].mtime, m.inodes[dir].ctime = now, now
}

func (d *powerDisk) Mkdir(_ <-chan struct{}, in *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return d.add(in.NodeId, name, newInode(syscall.S_IFDIR|in.Mode&0o7777, time.Now()), out)
}

func (d *powerDisk) Create(_ <-chan struct{}, in *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return d.add(in.NodeId, name, newInode(syscall.S_IFREG|in.Mode&0o7777, time.Now()), &out.EntryOut)
}

func (d *powerDisk) Symlink(_ <-chan struct{}, in *fuse.InHeader, target, name string, out *fuse.EntryOut) fuse.Status {
	x := newInode(syscall.S_IFLNK|0o777, time.Now())
	x.target = target
	return d.add(in.NodeId, name, x, out)
}

func (d *powerDisk) Readlink(_ <-chan struct{}, in *fuse.InHeader) ([]byte, fuse.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return []byte(d.now.inodes[in.NodeId].target), fuse.OK
}

func (d *powerDisk) Link(_ <-chan struct{}, in *fuse.LinkIn, name string, out *fuse.EntryOut) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.find(in.NodeId, name); ok {
		return fuse.Status(syscall.EEXIST)
	}
	now, dir, ino := time.Now(), in.NodeId, in.Oldnodeid
	d.do(func(m *image) { m.name(dir, name, ino, now) })
	return d.entry(ino, out)
}

func (d *powerDisk) Unlink(_ <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, dir := time.Now(), in.NodeId
	if _, ok := d.find(dir, name); !ok {
		return fuse.ENOENT
	}
	return d.do(func(m *image) { m.unname(dir, name, now) })
}

func (d *powerDisk) Rmdir(cancel <-chan struct{}, in *fuse.InHeader, name string) fuse.Status {
	d.mu.Lock()
	ino, ok := d.find(in.NodeId, name)
	full := ok && len(d.now.inodes[ino].names) > 0
	d.mu.Unlock()
	if full {
		return fuse.Status(syscall.ENOTEMPTY)
	}
	return d.Unlink(cancel, in, name)
}

func (d *powerDisk) Rename(_ <-chan struct{}, in *fuse.RenameIn, oldName, newName string) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, from, to := time.Now(), in.NodeId, in.Newdir
	ino, ok := d.find(from, oldName)
	over, taken := d.find(to, newName)
	switch {
	case !ok:
		return fuse.ENOENT
	case in.Flags != 0:
		return fuse.EINVAL
	case taken && len(d.now.inodes[over].names) > 0:
		return fuse.Status(syscall.ENOTEMPTY)
	}
	return d.do(func(m *image) {
		m.unname(from, oldName, now)
		m.name(to, newName, ino, now)
		if from != to {
			m.moves = append(m.moves, move{ino, from, to, oldName, newName})
		}
	})
}

func (d *powerDisk) SetAttr(_ <-chan struct{}, in *fuse.SetAttrIn, out *fuse.AttrOut) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, ino := time.Now(), in.NodeId
	mode, hasMode := in.GetMode()
	size, hasSize := in.GetSize()
	mtime, hasMtime := in.GetMTime()
	if hasMode || hasSize || hasMtime {
		d.do(func(m *image) {
			x := m.inodes[ino]
			x.ctime = now
			if hasMode {
				x.mode = x.mode&syscall.S_IFMT | mode&0o7777
			}
			if hasSize {
				x.resize(int(size))
				x.mtime = now
			}
			if hasMtime {
				x.mtime = mtime
			}
		})
	}
	return d.attr(ino, &out.Attr)
}

func (x *inode) resize(size int) {
	if size <= len(x.data) {
		x.data = x.data[:size:size] // what is written behind it is not what was there before
		return
	}
	x.data = append(x.data, make([]byte, size-len(x.data))...)
}

func (d *powerDisk) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.OpenFlags = fuse.FOPEN_DIRECT_IO
	return fuse.OK
}

func (d *powerDisk) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	data := d.now.inodes[in.NodeId].data
	from := min(in.Offset, uint64(len(data)))
	n := copy(buf, data[from:])
	return fuse.ReadResultData(buf[:n]), fuse.OK
}

func (d *powerDisk) Write(_ <-chan struct{}, in *fuse.WriteIn, data []byte) (uint32, fuse.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, ino, at, written := time.Now(), in.NodeId, int(in.Offset), bytes.Clone(data)
	if in.Flags&syscall.O_APPEND != 0 {
		at = len(d.now.inodes[ino].data)
	}
	d.do(func(m *image) {
		x := m.inodes[ino]
		x.mtime, x.ctime = now, now
		if end := at + len(written); end > len(x.data) {
			x.resize(end)
		}
		copy(x.data[at:], written)
	})
	return uint32(len(data)), fuse.OK
}

func (d *powerDisk) Fsync(_ <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	ino := in.NodeId
	return d.do(func(m *image) { m.sync(ino) })
}

func (d *powerDisk) FsyncDir(cancel <-chan struct{}, in *fuse.FsyncIn) fuse.Status {
	return d.Fsync(cancel, in)
}

func (d *powerDisk) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.now.inodes[in.NodeId]
	if x == nil {
		return fuse.ENOENT
	}
	d.last++ // handles and inodes share their numbers
	out.Fh = d.last
	for _, name := range slices.Sorted(maps.Keys(x.names)) {
		d.listed[out.Fh] = append(d.listed[out.Fh], fuse.DirEntry{Name: name, Ino: x.names[name], Mode: d.now.inodes[x.names[name]].mode})
	}
	return fuse.OK
}

func (d *powerDisk) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, list *fuse.DirEntryList) fuse.Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.listed[in.Fh][in.Offset:] {
		if !list.AddDirEntry(e) {
			break
		}
	}
	return fuse.OK
}

func (d *powerDisk) ReleaseDir(in *fuse.ReleaseIn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.listed, in.Fh)
}

func (d *powerDisk) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Blocks: 1 << 30, Bfree: 1 << 29, Bavail: 1 << 29, Files: 1 << 30, Ffree: 1 << 29, Bsize: 4096, Frsize: 4096, NameLen: 255}
	return fuse.OK
}
