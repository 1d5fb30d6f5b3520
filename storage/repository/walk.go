package repository

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	// walkers is how many directories are read side by side. On local disks two suffice; on NFS every lstat is a round trip.
	walkers = 8
	// statBatch is how many names of one directory a walker looks at before another may take the rest.
	statBatch = 1024
)

// A stat is what lstat says of a path, as far as a change of it or of the content shows.
type stat struct {
	kind   EntryKind
	mode   uint32 // 07777
	size   int64
	mtime  int64 // nanoseconds since 1970
	ctime  int64
	inode  uint64
	device uint64
}

// A sighting is a path that a snapshot saves.
type sighting struct {
	path string
	stat
	target   string     // of a link
	below    []sighting // of a directory, sorted; gone after flatten
	explicit bool       // kept by a pattern: no built-in rule applies
}

// A fileID tells files apart whatever their paths.
type fileID struct{ device, inode uint64 }

// A walker lists what a snapshot of a project saves. It opens directories and files of patterns, and nothing else.
type walker struct {
	root       string          // absolute, without symlinks
	ignore     []string        // patterns of replicate.yaml
	everything bool            // no rule leaves anything out
	skip       map[fileID]bool // directories that are not entered: the storage, the spool
	mounts     map[string]bool // mount points of replicate itself

	mu      sync.Mutex // guards what follows
	work    sync.Cond
	tasks   []func() // the last one is taken first, so that few wait
	open    int      // tasks waiting or running
	leftOut []LeftOut
	err     error // the first that ends the walk
}

// walk returns every path below the given ones, which are relative to the root ("" is the root), in the order of a tree, and what was left
// out, sorted. The directories above a given path are in the list. Files and directories that cannot be read are left out; only a root that
// cannot be read and a cancelled context are errors.
func (w *walker) walk(ctx context.Context, paths []string) ([]sighting, []LeftOut, error) {
	w.work.L = &w.mu
	w.mounts = replicateMounts()
	root := sighting{stat: stat{kind: Dir}}
	rules, err := w.rootRules()
	if err != nil {
		return nil, nil, err
	}
	for _, path := range paths {
		if path == "" {
			w.push(func() { w.directory(&root, rules) })
			paths = nil
			break
		}
	}
	var named []*sighting
	for _, path := range paths {
		if f := w.start(path, rules); f != nil {
			named = append(named, f)
		}
	}
	w.run(ctx)
	if w.err != nil {
		return nil, nil, w.err
	}
	list := flatten(nil, root.below)
	for _, f := range named {
		list = flatten(append(list, w.above(f.path)...), []sighting{*f})
	}
	if len(named) > 0 {
		slices.SortStableFunc(list, func(a, b sighting) int { return ComparePaths(a.path, b.path) })
		list = slices.CompactFunc(list, func(a, b sighting) bool { return a.path == b.path })
	}
	slices.SortFunc(w.leftOut, func(a, b LeftOut) int { return ComparePaths(a.Path, b.Path) })
	return list, slices.Compact(w.leftOut), nil
}

// rootRules returns the rules of the root directory.
func (w *walker) rootRules() (*ruleChain, error) {
	names, err := os.ReadDir(w.root)
	if err != nil {
		return nil, err
	}
	return w.rulesOf(nil, "", names), nil
}

// rulesOf returns the rules that hold in a directory, reading the files of patterns that lie in it.
func (w *walker) rulesOf(above *ruleChain, dir string, names []os.DirEntry) *ruleChain {
	if w.everything {
		return nil
	}
	own := &ruleChain{above: above, dir: dir}
	if dir != "" {
		own.dir += "/"
	}
	for _, e := range names {
		// As in git, a .gitignore that is a symlink says nothing.
		if name := e.Name(); name == gitIgnoreName && e.Type().IsRegular() || name == replicateIgnoreName && !e.IsDir() {
			text, err := readPrefix(w.root+"/"+own.dir+name, maxIgnoreFile)
			if err != nil {
				continue // reported where the file itself is read
			}
			if p := parsePatterns(own.dir+name, text); name == gitIgnoreName {
				own.git = p
			} else {
				own.replicate = p
			}
		}
	}
	if above == nil {
		if own.replicate == nil {
			own.replicate = parsePatterns("", nil)
		}
		own.addYAML(w.ignore)
		return own
	}
	own.named = above.named
	if own.git == nil && own.replicate == nil {
		return above
	}
	return own
}

// readPrefix returns the first n bytes of a regular file.
func readPrefix(path string, n int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fs.ErrInvalid)
	}
	return io.ReadAll(io.LimitReader(f, n))
}

// start begins at a path that somebody named. It reports and returns nil for one that is not there or left out.
func (w *walker) start(path string, rules *ruleChain) *sighting {
	names := strings.Split(path, "/")
	for i := range names {
		at := strings.Join(names[:i+1], "/")
		f := &sighting{path: at}
		if err := w.lstat(f); err != nil {
			w.leave(at, whyOf(err))
			return nil
		}
		v := rules.decide(at, names[i], f.kind == Dir)
		if v.decided && v.out {
			own := *rules
			own.named = true
			if v = own.decide(at, names[i], f.kind == Dir); v.out {
				w.leaveRuling(f, v)
				return nil
			}
			rules = &own
		}
		f.explicit = v.decided
		if i == len(names)-1 {
			return w.begin(f, rules)
		}
		if f.kind != Dir {
			w.leave(path, "not there")
			return nil
		}
		below, err := os.ReadDir(w.abs(at))
		if err != nil {
			w.leave(path, whyOf(err))
			return nil
		}
		rules = w.rulesOf(rules, at, below)
	}
	return nil
}

// begin enters a named path that is a directory.
func (w *walker) begin(f *sighting, rules *ruleChain) *sighting {
	switch {
	case f.kind == unsaved:
		w.leave(f.path, unsavedName(f.mode))
		return nil
	case f.kind == Dir && w.enter(f):
		w.push(func() { w.directory(f, rules) })
	}
	return f
}

// above returns the directories above a path.
func (w *walker) above(path string) []sighting {
	var list []sighting
	for i := range len(path) {
		if path[i] != '/' {
			continue
		}
		f := sighting{path: path[:i]}
		if w.lstat(&f) == nil && f.kind == Dir {
			list = append(list, f)
		}
	}
	return list
}

// push adds a task. Tasks may push.
func (w *walker) push(task func()) {
	w.mu.Lock()
	w.tasks = append(w.tasks, task)
	w.open++
	w.mu.Unlock()
	w.work.Signal()
}

// run works until no task is left.
func (w *walker) run(ctx context.Context) {
	var wg sync.WaitGroup
	for range walkers {
		wg.Go(func() {
			for task := w.next(ctx); task != nil; task = w.next(ctx) {
				task()
				w.done()
			}
		})
	}
	wg.Wait()
}

func (w *walker) next(ctx context.Context) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.tasks) == 0 && w.open > 0 {
		w.work.Wait()
	}
	if w.err == nil {
		w.err = ctx.Err()
	}
	if w.open == 0 || w.err != nil {
		w.open = 0
		w.tasks = nil
		w.work.Broadcast()
		return nil
	}
	task := w.tasks[len(w.tasks)-1]
	w.tasks = w.tasks[:len(w.tasks)-1]
	return task
}

func (w *walker) done() {
	w.mu.Lock()
	if w.open--; w.open <= 0 {
		w.work.Broadcast()
	}
	w.mu.Unlock()
}

// directory lists one directory into d.below.
func (w *walker) directory(d *sighting, rules *ruleChain) {
	f, err := os.OpenFile(w.abs(d.path), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		w.leave(d.path+"/", whyOf(err))
		return
	}
	defer f.Close()
	names, err := f.ReadDir(-1)
	if err != nil && len(names) == 0 {
		w.leave(d.path+"/", whyOf(err))
		return
	}
	if d.path != "" && !d.explicit && !w.everything && slices.ContainsFunc(names, func(e os.DirEntry) bool { return isVenv(e.Name()) }) {
		d.kind = unsaved // flatten drops it
		w.report(LeftOut{Path: d.path + "/", Why: whyVenv, ruled: true})
		return
	}
	slices.SortFunc(names, func(a, b os.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	if d.path != "" {
		rules = w.rulesOf(rules, d.path, names)
	}
	d.below = make([]sighting, len(names))
	for i := statBatch; i < len(names); i += statBatch {
		j := min(i+statBatch, len(names))
		w.push(func() { w.batch(d, names[i:j], d.below[i:j], rules) })
	}
	n := min(statBatch, len(names))
	w.entries(int(f.Fd()), d, names[:n], d.below[:n], rules)
}

// batch looks at some names of a large directory.
func (w *walker) batch(d *sighting, names []os.DirEntry, list []sighting, rules *ruleChain) {
	f, err := os.OpenFile(w.abs(d.path), os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		for i := range list {
			list[i].kind = unsaved
		}
		w.leave(d.path+"/", whyOf(err))
		return
	}
	defer f.Close()
	w.entries(int(f.Fd()), d, names, list, rules)
}

// entries looks at some names of a directory that is open as dirfd. What is left out stays unsaved, and is dropped by flatten.
func (w *walker) entries(dirfd int, d *sighting, names []os.DirEntry, list []sighting, rules *ruleChain) {
	for i, e := range names {
		f := &list[i]
		f.kind = unsaved
		f.path = e.Name()
		if d.path != "" {
			f.path = d.path + "/" + e.Name()
		}
		v := rules.decide(f.path, e.Name(), e.IsDir())
		if v.decided && v.out {
			w.leaveRuling(&sighting{path: f.path, stat: stat{kind: kindOf(e)}}, v)
			continue
		}
		f.explicit = v.decided
		switch err := w.lstatAt(dirfd, e.Name(), f); {
		case errors.Is(err, fs.ErrNotExist):
			f.kind = unsaved // removed since the directory was read
		case err != nil:
			f.kind = unsaved
			w.leave(f.path, whyOf(err))
		case f.kind == unsaved:
			w.leave(f.path, unsavedName(f.mode))
		case f.kind == Dir && !w.enter(f):
			f.kind = unsaved
		case f.kind == Dir:
			w.push(func() { w.directory(f, rules) })
		}
	}
}

// kindOf is what a listing says an entry is.
func kindOf(e os.DirEntry) EntryKind {
	switch {
	case e.IsDir():
		return Dir
	case e.Type().IsRegular():
		return File
	}
	return unsaved
}

// enter reports whether a directory is to be looked into: not the storage, the spool and mounts of repositories, without a word.
func (w *walker) enter(f *sighting) bool {
	return !w.skip[fileID{f.device, f.inode}] && !w.mounts[w.abs(f.path)]
}

// unsaved stands for what no tree holds: a FIFO, a socket, a device; and for entries that are to be dropped. The mode is the whole one.
const unsaved EntryKind = 255

func unsavedName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return "device"
}

// lstat fills in what stands at f.path.
func (w *walker) lstat(f *sighting) error { return w.lstatAt(unix.AT_FDCWD, w.abs(f.path), f) }

// lstatAt does that by the name in an open directory, which is faster than by a whole path.
func (w *walker) lstatAt(dirfd int, name string, f *sighting) (err error) {
	if f.stat, err = lstatAt(dirfd, name); err == nil && f.kind == Link {
		f.target, err = os.Readlink(w.abs(f.path))
	}
	return err
}

func (w *walker) abs(path string) string { return w.root + "/" + path }

func lstat(path string) (stat, error) { return lstatAt(unix.AT_FDCWD, path) }

func lstatAt(dirfd int, name string) (stat, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err != unix.EINTR {
			return statOf(&st), err
		}
	}
}

func statOf(st *unix.Stat_t) stat {
	s := stat{
		mode: uint32(st.Mode) & 0o7777, size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(), inode: st.Ino, device: uint64(st.Dev),
	}
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFREG:
		s.kind = File
	case unix.S_IFLNK:
		s.kind = Link
	case unix.S_IFDIR:
		s.kind = Dir
	default:
		s.kind, s.mode = unsaved, uint32(st.Mode)
	}
	return s
}

// whyOf is the reason in a report for an error of the file system.
func whyOf(err error) string {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "unreadable"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return "not there"
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}

func (w *walker) leave(path, why string) { w.report(LeftOut{Path: path, Why: why}) }

func (w *walker) report(l LeftOut) {
	w.mu.Lock()
	w.leftOut = append(w.leftOut, l)
	w.mu.Unlock()
}

// leaveRuling reports what a rule left out, unless the rule has no name.
func (w *walker) leaveRuling(f *sighting, v ruling) {
	if v.why == "" {
		return
	}
	path := f.path
	if f.kind == Dir {
		path += "/"
	}
	w.report(LeftOut{Path: path, Why: v.why, ruled: true})
}

// flatten appends a sorted hierarchy as a list, every directory before what is in it, without what was left out.
func flatten(list, level []sighting) []sighting {
	for i := range level {
		if f := &level[i]; f.kind != unsaved {
			below := f.below
			f.below = nil
			list = append(list, *f)
			list = flatten(list, below)
		}
	}
	return list
}
