package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"

	"github.com/replicate/replicate"
)

// An errand is one file to be read.
type errand struct {
	index int // in the entries of the snapshot
	path  string
	stat  stat
	base  *Entry // what stood at the path when it was looked at last, in the parent or in another experiment, if that was a file

	carried *Entry // the file is this one of the parent, whatever stands at the path
	source  string // where to read it, if that is not its path in the project
}

// A captured file is what was read on an errand.
type captured struct {
	*errand
	hash    replicate.Hash
	extents []Extent
	torn    bool
}

// tasks groups the jobs: small files in path order share a frame, every other file is by itself. Large ones come first, as they take longest.
func (s *snapshot) tasks() [][]errand {
	var large, tasks [][]errand
	var size int64
	from := -1 // of the group
	for i := range s.jobs {
		n := s.jobs[i].stat.size
		if n > smallFile {
			if from >= 0 {
				tasks, from = append(tasks, s.jobs[from:i]), -1
			}
			large = append(large, s.jobs[i:i+1])
			continue
		}
		if from >= 0 && size+n > groupSize {
			tasks, from = append(tasks, s.jobs[from:i]), -1
		}
		if from < 0 {
			from, size = i, 0
		}
		size += n
	}
	if from >= 0 {
		tasks = append(tasks, s.jobs[from:])
	}
	return append(s.twins(large), tasks...)
}

// twins sorts large files by size, the largest first, and puts those that may be copies of each other into one task: read one behind the
// other, the second is found to be stored.
func (s *snapshot) twins(large [][]errand) [][]errand {
	slices.SortStableFunc(large, func(a, b []errand) int { return cmp.Compare(b[0].stat.size, a[0].stat.size) })
	var tasks [][]errand
	var last replicate.Hash
	for i, task := range large {
		same := i > 0 && large[i-1][0].stat.size == task[0].stat.size
		if !same && (i+1 == len(large) || large[i+1][0].stat.size != task[0].stat.size) {
			tasks = append(tasks, task)
			continue
		}
		head, _ := readPrefix(s.path(&task[0]), smallFile) // what cannot be read has no copies
		if hash := hashOf(head); same && hash == last {
			tasks[len(tasks)-1] = append(slices.Clip(tasks[len(tasks)-1]), task...)
		} else {
			last, tasks = hash, append(tasks, task)
		}
	}
	return tasks
}

// path returns where a file is read from.
func (s *snapshot) path(j *errand) string {
	if j.source != "" {
		return j.source
	}
	return s.project.root + "/" + j.path
}

// maxWorkers bounds how many files are read side by side: each takes up to 25 MB, and six are faster than disks.
const maxWorkers = 6

// workers is one per core, within that bound.
func workers() int { return min(runtime.GOMAXPROCS(0), maxWorkers) }

// capture works on all tasks.
func (s *snapshot) capture(ctx context.Context) error {
	tasks := s.tasks()
	if len(tasks) == 0 {
		return nil
	}
	s.index()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	queue := make(chan []errand)
	working, cores := min(len(tasks), workers()), runtime.GOMAXPROCS(0)
	spare := make(chan struct{}, cores)
	for range cores - working {
		spare <- struct{}{}
	}
	var wg sync.WaitGroup
	for range working {
		wg.Go(func() {
			defer func() { spare <- struct{}{} }()
			c := &captor{
				path: s.path, build: s.build, known: s.known, spare: spare, hooked: s.project.hooked, scratch: scratches.Get().(*scratch),
			}
			defer scratches.Put(c.scratch)
			for task := range queue {
				if err := s.captureTask(ctx, c, task); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, task := range tasks {
		if ctx.Err() != nil {
			break
		}
		queue <- task
	}
	close(queue)
	wg.Wait()
	return context.Cause(ctx)
}

func (s *snapshot) captureTask(ctx context.Context, c *captor, task []errand) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c.small = c.small[:0]
	var group []captured
	for i := range task {
		j := &task[i]
		start := len(c.small)
		got, err := s.read(ctx, c, j)
		if err == nil && got.extents != nil {
			s.done(&got)
			continue
		}
		if left, ok := errors.AsType[errLeftOut](err); ok {
			s.leave(j, left.why)
			continue
		}
		if err != nil {
			return fmt.Errorf("save %s: %w", j.path, err)
		}
		if s.stored(&got) {
			c.small = c.small[:start]
			continue
		}
		got.extents = []Extent{{From: uint32(start)}}
		group = append(group, got)
	}
	return s.storeGroup(c, group)
}

// read reads a file: in chunks, which are stored then, or whole behind what c.small holds.
func (s *snapshot) read(ctx context.Context, c *captor, j *errand) (captured, error) {
	if j.carried != nil {
		return s.readCarried(ctx, c, j)
	}
	if j.stat.size < minChunked {
		if got, err := c.whole(j); err != errGrown {
			return got, err
		}
	}
	return c.large(ctx, j)
}

// readCarried reads a file that is in the parent and not looked at, and whose packs cannot be relied on any more: from the project, if it still is
// what it was, else from the packs, which may still be there.
func (s *snapshot) readCarried(ctx context.Context, c *captor, j *errand) (captured, error) {
	old := j.carried
	again := *j
	again.carried = nil
	start := len(c.small)
	got, err := s.read(ctx, c, &again)
	if err != nil || got.hash != old.Hash {
		c.small = c.small[:start]
		f, err := os.CreateTemp(s.project.build, "carried-*")
		if err != nil {
			return captured{}, err
		}
		defer os.Remove(f.Name())
		defer f.Close()
		if err := s.project.repository.WriteFile(ctx, f, old); err != nil {
			return captured{}, errLeftOut{"lost: " + err.Error()}
		}
		again.source = f.Name()
		if got, err = s.read(ctx, c, &again); err != nil {
			return captured{}, err
		}
	}
	got.errand, got.torn = j, old.Torn
	j.stat = stat{kind: unsaved, mode: old.Mode, mtime: old.Mtime, size: old.Size}
	return got, nil
}

// storeGroup stores c.small as one frame, in which the files of a group are.
func (s *snapshot) storeGroup(c *captor, group []captured) error {
	if len(group) == 0 {
		return nil
	}
	kind := kindGroup
	hash := group[0].hash
	if len(group) > 1 {
		hash = hashOf(c.small)
	} else if len(c.small) > smallFile {
		kind = kindChunk
	}
	f := newFrame(c.small, hash, &c.stored)
	p, err := s.build.take()
	if err != nil {
		return err
	}
	ref, err := s.build.add(p, kind, f)
	s.build.give(p)
	if err != nil {
		return err
	}
	for i := range group {
		group[i].extents[0].Ref = ref
		s.done(&group[i])
	}
	return nil
}

// stored finishes a file whose content is empty or stored already, and reports whether it is.
func (s *snapshot) stored(got *captured) bool {
	if got.stat.size == 0 {
		s.done(got)
		return true
	}
	s.mu.Lock()
	old := s.hashes[got.hash]
	s.mu.Unlock()
	if b := got.base; b != nil && b.Hash == got.hash {
		old = b
	}
	if old == nil || old.Size != got.stat.size || !s.reachable(old) {
		return false
	}
	s.place(got, old.Extents, old.Recipe)
	s.mu.Lock()
	s.fresh = append(s.fresh, got.index) // old may be of this snapshot
	s.mu.Unlock()
	return true
}

// done gives the file a place of its own, unless its content turns out to be what the parent has there.
func (s *snapshot) done(got *captured) {
	if b := got.base; b != nil && b.Hash == got.hash && b.Size == got.stat.size && s.reachable(b) {
		s.place(got, b.Extents, b.Recipe)
		return
	}
	if len(got.extents) == 1 {
		got.extents[0].Hash = replicate.Hash{} // the file's own says it
	}
	if len(got.extents) > maxInline {
		s.mu.Lock()
		s.pending[got.index] = got.extents
		s.mu.Unlock()
		got.extents = nil
	}
	s.place(got, got.extents, nil)
	e := &s.entries[got.index]
	s.mu.Lock()
	s.fresh = append(s.fresh, got.index)
	switch {
	case e.Size >= minChunked:
		s.sizes[e.Size] = append(s.sizes[e.Size], e)
	case s.hashes[e.Hash] == nil:
		s.hashes[e.Hash] = e
	}
	s.mu.Unlock()
}

// place completes the entry of a file that was read.
func (s *snapshot) place(got *captured, extents []Extent, recipe *Ref) {
	e := &s.entries[got.index]
	e.Mode, e.Mtime, e.Size = got.stat.mode, got.stat.mtime, got.stat.size
	e.Hash, e.Torn, e.Extents, e.Recipe = got.hash, got.torn, extents, recipe
	s.stats[got.index] = got.stat
	s.mu.Lock()
	s.changed++
	if got.torn {
		s.torn = append(s.torn, got.path)
	}
	s.mu.Unlock()
}
