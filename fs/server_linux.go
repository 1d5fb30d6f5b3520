package fs

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"runtime/debug"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/fs/view"
)

const (
	// always is how long the kernel keeps what never changes.
	always = 100 * 365 * 24 * time.Hour
	// fresh is how long the kernel keeps what may change: with every notification lost, this is how stale a name can be.
	fresh = time.Second

	// smallBlock and largeBlock are st_blksize below and from largeFile on: Python allocates a buffer of it for each open file.
	smallBlock = 4 << 10
	largeBlock = 128 << 10
	largeFile  = 128 << 10

	statfsBlock = 4 << 10
	maxNameLen  = 255
)

// A server answers the kernel from a view. It keeps no state per node, per name or per open file: FORGET does nothing, file
// handles are 0, and another process can go on where this one stopped. Copies of large files are the exception (copies_linux.go).
type server struct {
	fuse.RawFileSystem // ENOSYS for everything else, which the kernel remembers

	view       View
	pinned     bool // one commit for ever: OPEN, OPENDIR and FLUSH cost nothing
	uid, gid   uint32
	generation uint64
	log        *slog.Logger
	copies     *copies // nil: every file is read through the server
	reported   damage
	kernel     atomic.Pointer[fuse.Server] // set by the first request

	touched atomic.Int64   // when a directory was last asked for, nanoseconds
	woken   chan struct{}  // a directory was asked for after a long time
	forget  chan forgotten // what the kernel need not keep

	counts [nOps]atomic.Int64
}

// Requests that are counted, for tests and benchmarks.
const (
	opLookup = iota
	opGetattr
	opReadlink
	opOpen
	opRead
	opOpendir
	opReaddir
	opGetxattr
	nOps
)

func newServer(v View, pinned bool, log *slog.Logger) *server {
	return &server{
		RawFileSystem: fuse.NewDefaultRawFileSystem(),
		view:          v,
		pinned:        pinned,
		uid:           uint32(os.Getuid()),
		gid:           uint32(os.Getgid()),
		generation:    uint64(v.Instance()),
		log:           log,
		woken:         make(chan struct{}, 1),
		forget:        make(chan forgotten, mostNames),
	}
}

func (s *server) String() string { return "replicate" }

// Init is called when the first request came.
func (s *server) Init(k *fuse.Server) { s.kernel.Store(k) }

// touch notes that a directory was asked for.
func (s *server) touch() {
	now := time.Now().UnixNano()
	if before := s.touched.Swap(now); time.Duration(now-before) > idleAfter {
		select {
		case s.woken <- struct{}{}:
		default:
		}
	}
}

// idle is how long no directory was asked for.
func (s *server) idle(now time.Time) time.Duration {
	return time.Duration(now.UnixNano() - s.touched.Load())
}

// entryTTL is how long a name of a directory may be kept.
func (s *server) entryTTL(dir view.ID) time.Duration {
	switch s.view.Life(dir) {
	case view.Forever:
		return always
	}
	return fresh
}

// missTTL is how long it may be kept that a directory has no such name.
func (s *server) missTTL(dir view.ID) time.Duration {
	if s.view.Life(dir) == view.Query {
		return 0
	}
	return s.entryTTL(dir)
}

// attrTTL is how long attributes of a node may be kept.
func (s *server) attrTTL(id view.ID) time.Duration {
	switch s.view.Life(id) {
	case view.Forever, view.Named:
		return always
	case view.Growing:
		return 0
	}
	return fresh
}

func (s *server) Lookup(_ <-chan struct{}, h *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	s.counts[opLookup].Add(1)
	s.touch()
	dir := view.ID(h.NodeId)
	if len(name) > maxNameLen {
		return fuse.Status(syscall.ENAMETOOLONG)
	}
	if s.view.Life(dir) != view.Forever && view.Noise(name) {
		out.SetEntryTimeout(always)
		return fuse.OK
	}
	ctx := context.Background()
	id, err := s.view.Lookup(ctx, dir, name)
	var a view.Attr
	if err == nil {
		a, err = s.view.Attr(ctx, id)
	}
	if replicate.KindOf(err) == replicate.NotFound { // node 0 with a TTL: missing, and may be remembered
		out.SetEntryTimeout(s.missTTL(dir))
		return fuse.OK
	}
	if err != nil {
		return s.status(err, "lookup "+name)
	}
	if s.fillEntry(out, dir, id, &a) {
		s.copies.named(id, view.Change{Dir: dir, Name: name})
	}
	return fuse.OK
}

// fillEntry also reports whether the name may lead to a copy later.
func (s *server) fillEntry(out *fuse.EntryOut, dir, id view.ID, a *view.Attr) bool {
	node, changes := s.copies.node(id, s.view.Life(id), a)
	out.NodeId = node
	out.Generation = s.generation
	if !changes {
		out.SetEntryTimeout(s.entryTTL(dir))
	}
	out.SetAttrTimeout(s.attrTTL(id))
	s.fill(&out.Attr, id, a)
	return changes && node == uint64(id)
}

func (s *server) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	s.counts[opGetattr].Add(1)
	id, err := s.copies.file(in.NodeId)
	var a view.Attr
	if err == nil {
		a, err = s.view.Attr(context.Background(), id)
	}
	if err != nil {
		return s.status(err, "stat")
	}
	out.SetTimeout(s.attrTTL(id))
	s.fill(&out.Attr, id, &a)
	return fuse.OK
}

func (s *server) fill(out *fuse.Attr, id view.ID, a *view.Attr) {
	out.Ino = uint64(id)
	out.Mode = a.Mode
	out.Size = uint64(a.Size)
	out.Blocks = uint64(a.Size+511) / 512
	out.Blksize = smallBlock
	if a.Size >= largeFile {
		out.Blksize = largeBlock
	}
	sec, nsec := splitNanos(a.Mtime)
	out.Mtime, out.Mtimensec = sec, nsec
	out.Atime, out.Atimensec = sec, nsec
	out.Ctime, out.Ctimensec = sec, nsec
	out.Nlink = 1
	out.Owner = fuse.Owner{Uid: s.uid, Gid: s.gid}
}

// splitNanos also does what stat wants for times before 1970: nanoseconds are never negative.
func splitNanos(t int64) (sec uint64, nsec uint32) {
	s, n := t/1e9, t%1e9
	if n < 0 {
		s, n = s-1, n+1e9
	}
	return uint64(s), uint32(n)
}

func (s *server) Readlink(_ <-chan struct{}, h *fuse.InHeader) ([]byte, fuse.Status) {
	s.counts[opReadlink].Add(1)
	target, err := s.view.Link(context.Background(), view.ID(h.NodeId))
	if err != nil {
		return nil, s.status(err, "readlink")
	}
	return []byte(target), fuse.OK
}

func (s *server) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s.counts[opOpen].Add(1)
	if in.Flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return fuse.EROFS
	}
	if s.pinned {
		return fuse.ENOSYS
	}
	id, err := s.copies.file(in.NodeId)
	if err == nil {
		err = s.view.Open(context.Background(), id)
	}
	if err != nil {
		return s.status(err, "open")
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	if handle, backing, ok := s.copies.open(in.NodeId); ok {
		out.OpenFlags = fuse.FOPEN_PASSTHROUGH | fuse.FOPEN_NOFLUSH
		out.Fh, out.BackingID = handle, backing
	} else if s.view.Life(id) == view.Growing {
		out.OpenFlags = fuse.FOPEN_DIRECT_IO | fuse.FOPEN_NOFLUSH
	}
	return fuse.OK
}

func (s *server) Release(_ <-chan struct{}, in *fuse.ReleaseIn) {
	if name, forget := s.copies.release(in.NodeId, in.Fh); forget {
		select {
		case s.forget <- forgotten{in.NodeId, name}:
		default: // it is found out when the name is looked up
		}
	}
}

func (s *server) Flush(<-chan struct{}, *fuse.FlushIn) fuse.Status {
	if s.pinned {
		return fuse.ENOSYS
	}
	return fuse.OK
}

func (s *server) Read(_ <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	s.counts[opRead].Add(1)
	if in.Offset > math.MaxInt64 {
		return nil, fuse.EINVAL
	}
	id, err := s.copies.file(in.NodeId)
	var r io.ReaderAt
	if err == nil {
		r, err = s.view.Content(context.Background(), id)
	}
	if err != nil {
		return nil, s.status(err, "open")
	}
	a, err := newReply(r, buf, int64(in.Offset))
	if err != nil {
		return nil, s.status(err, "read")
	}
	s.copy(id, a)
	return a, fuse.OK
}

// copy takes what was read of a file into its copy, if it has or is to have one.
func (s *server) copy(id view.ID, a *reply) {
	if s.copies == nil {
		return
	}
	if a.off == 0 && a.size > smallBlock {
		if attr, err := s.view.Attr(context.Background(), id); err == nil {
			s.copies.begin(id, s.view.Life(id), &attr)
		}
	}
	s.copies.take(id, a)
}

func (s *server) OpenDir(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	s.counts[opOpendir].Add(1)
	if s.pinned {
		return fuse.ENOSYS
	}
	if s.view.Life(view.ID(in.NodeId)) == view.Forever {
		out.OpenFlags = fuse.FOPEN_CACHE_DIR | fuse.FOPEN_KEEP_CACHE
	}
	return fuse.OK
}

func (s *server) ReadDir(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	return s.list(in, func(d fuse.DirEntry, _ *view.Entry) bool { return out.AddDirEntry(d) })
}

func (s *server) ReadDirPlus(_ <-chan struct{}, in *fuse.ReadIn, out *fuse.DirEntryList) fuse.Status {
	dir := view.ID(in.NodeId)
	return s.list(in, func(d fuse.DirEntry, e *view.Entry) bool {
		entry := out.AddDirLookupEntry(d)
		if entry == nil {
			return false
		}
		if e != nil && e.Attr != nil { // else node 0: the name only, attributes are asked for when wanted
			s.fillEntry(entry, dir, e.ID, e.Attr)
		}
		return true
	})
}

// list adds entries behind the offset of a request until one does not fit. The entry is nil for "." and "..".
func (s *server) list(in *fuse.ReadIn, add func(fuse.DirEntry, *view.Entry) bool) fuse.Status {
	s.counts[opReaddir].Add(1)
	s.touch()
	dots := []fuse.DirEntry{
		{Name: ".", Mode: fuse.S_IFDIR, Ino: in.NodeId, Off: 1},
		{Name: "..", Mode: fuse.S_IFDIR, Off: 2},
	}
	for _, d := range dots {
		if in.Offset < d.Off && !add(d, nil) {
			return fuse.OK
		}
	}
	err := s.view.List(context.Background(), view.ID(in.NodeId), max(in.Offset, FirstCookie-1), func(cookie uint64, e view.Entry) bool {
		return add(fuse.DirEntry{Name: e.Name, Mode: e.Mode, Ino: uint64(e.ID), Off: cookie}, &e)
	})
	if err != nil {
		return s.status(err, "list")
	}
	return fuse.OK
}

func (s *server) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	out.Bsize, out.Frsize = statfsBlock, statfsBlock
	out.Blocks = uint64(s.view.Size()+statfsBlock-1) / statfsBlock
	out.NameLen = maxNameLen
	return fuse.OK
}

// status turns an error into an errno. What is neither missing nor gone is a damaged file or a bug: it goes to the log, once.
func (s *server) status(err error, what string) fuse.Status {
	switch {
	case replicate.KindOf(err) == replicate.NotFound:
		return fuse.ENOENT
	case errors.Is(err, view.ErrStale):
		return fuse.Status(syscall.ESTALE)
	}
	if s.reported.first(err.Error()) {
		s.log.Error(what, "error", err)
	}
	return fuse.EIO
}

// options are what the connection is opened with. Each has a measured reason.
func (s *server) options() *fuse.MountOptions {
	o := &fuse.MountOptions{
		Name:                     fsType,
		ExplicitDataCacheControl: true, // pages go only when we say so: a node's content never changes
		EnableSymlinkCaching:     true,
		DisableSplice:            true, // answers are in memory
		DisableXAttrs:            true, // ENOSYS once, instead of two requests for each file of `ls -l`
		MaxBackground:            64,   // the default of 12 starves read-ahead on a slow store
		MaxWrite:                 maxRead,
		MaxInflightRequestBytes:  64 << 20,
		ExtraCapabilities:        fuse.CAP_DIRECT_IO_ALLOW_MMAP, // a shared mapping of a growing file is ENODEV without
		DisabledCapabilities:     fuse.CAP_READDIRPLUS_AUTO | fuse.CAP_PASSTHROUGH,
		Logger:                   slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		PanicHandler: func(p any) fuse.Status {
			s.log.Error("panic", "value", p, "stack", string(debug.Stack()))
			return fuse.EIO
		},
	}
	if s.copies != nil {
		o.DisabledCapabilities &^= fuse.CAP_PASSTHROUGH
	}
	if s.pinned {
		o.ExtraCapabilities |= fuse.CAP_NO_OPENDIR_SUPPORT
	}
	return o
}
