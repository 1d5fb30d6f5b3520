package fs

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"sync"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/fs/view"
)

// openTries is how often a connection that is in use is opened: a first request whose caller went away meanwhile is an error.
const openTries = 10

// serve answers the kernel until the connection ends, and says to words when it is ready and that it lives.
func serve(ctx context.Context, v View, o order, words io.Writer) error {
	ageHeap()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	s := newServer(v, o.Commit != "", log)
	if os.Geteuid() == 0 && !s.pinned {
		s.copies = openCopies(o, log)
	}
	ready := func() { _ = word{Kind: wordReady, Instance: v.Instance()}.write(words) }
	if o.Again && v.Instance() != o.Instance {
		_ = word{Kind: wordAfresh}.write(words)
		return view.ErrStale
	}
	if o.Again {
		ready() // before, as the first request may be long in coming
	}
	k, err := connect(s, fuseFD)
	if err != nil {
		return err
	}
	if !o.Again {
		ready()
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wait sync.WaitGroup
	wait.Go(func() { beat(ctx, words) })
	stale := make(chan error, 1)
	if !s.pinned {
		wait.Go(func() { stale <- newNotifier(s).run(ctx) })
	}
	if s.copies != nil {
		wait.Go(func() { s.forgetFiles(ctx) })
	}
	served := make(chan struct{})
	go func() { k.Serve(); close(served) }()
	select {
	case <-served:
		stop()
		wait.Wait()
		return nil
	case <-stale:
		_ = word{Kind: wordAfresh}.write(words)
		return view.ErrStale
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// agedHeap is how much memory a server uses, with room.
const agedHeap = 128 << 20

// ageHeap makes the heap look used, so that what is allocated from now on is cleared first, which brings its pages in. When a server is
// killed while the kernel copies a request to it, a page that has to be brought in first cannot be any more (Linux 6.18, fuse_copy_fill):
// the caller would see an input/output error, where otherwise the request is given to the next server. Nothing is touched here.
// It takes clearFreed: memory that Go knows to be zero, as it gave it back to the system, is not cleared.
func ageHeap() {
	runtime.KeepAlive(make([]byte, agedHeap)) // which makes it be allocated
	runtime.GC()
}

// clearFreed is the setting of GODEBUG with which Go gives memory back without knowing what is in it afterwards.
const clearFreed = "madvdontneed=0"

// connect takes up the connection on a descriptor, which stays open.
func connect(s *server, fd int) (*fuse.Server, error) {
	var failure error
	for range openTries {
		copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, fd)
		if err != nil {
			return nil, fmt.Errorf("take up the connection: %w", err)
		}
		k, err := fuse.NewServer(s, fmt.Sprintf("/dev/fd/%d", copied), s.options())
		if err == nil {
			if s.copies != nil {
				s.copies.kernel = k
			}
			return k, nil
		}
		failure = err
	}
	return nil, fmt.Errorf("take up the connection: %w", failure)
}

func beat(ctx context.Context, words io.Writer) {
	for ctx.Err() == nil {
		pause(ctx, beatEvery)
		_ = word{Kind: wordBeat}.write(words)
	}
}
