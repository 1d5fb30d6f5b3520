package fs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/replicate/replicate"
)

// Mount mounts a repository at o.Dir and returns the absolute mount point when it is ready; avoid are the folders that the server
// reads, which the mount may neither hold nor lie in. With o.Foreground it calls ready and returns when the mount is gone. If
// the same storage is already mounted there, that is all it does.
func Mount(ctx context.Context, o Options, avoid []string, ready func(dir string)) error {
	o.Dir = resolve(o.Dir)
	fail := func(err error) error {
		e := &replicate.Error{Op: "mount", Path: o.Dir, Kind: replicate.KindOf(err), Err: err}
		if inner, ok := errors.AsType[*replicate.Error](err); ok && inner.Op == e.Op && inner.Path == e.Path {
			return err
		}
		return e
	}
	if mounted, err := prepare(o, append(avoid, o.IndexDir, o.CacheDir, o.StateDir)); err != nil {
		return fail(err)
	} else if mounted {
		ready(o.Dir)
		return nil
	}
	var failure error
	report := func(err error) {
		if failure = err; err == nil {
			ready(o.Dir)
		}
	}
	if o.Foreground {
		err := supervise(ctx, o, os.Stderr, report)
		if err == nil {
			err = failure
		}
		if err != nil {
			return fail(err)
		}
		return nil
	}
	if err := launch(ctx, o); err != nil {
		return fail(err)
	}
	ready(o.Dir)
	return nil
}

// prepare clears what is dead at the mount point and checks the rest. It reports whether the same is mounted there already.
func prepare(o Options, avoid []string) (mounted bool, err error) {
	if err := clearDead(o.Dir); err != nil {
		return false, err
	}
	m, ok, err := mountAt(o.Dir)
	if err != nil {
		return false, err
	}
	if ok && m.ours() {
		r, _ := stateOf(o.StateDir, o.Dir).read()
		if m.source == sourceName(o.Storage) && r.Commit == o.Commit {
			return true, nil
		}
		return false, replicate.Errorf(replicate.Conflict, "%s is mounted there", m.source).WithHint("replicate umount %s", o.Dir)
	}
	if _, err := os.Stat(fuseDevice); err != nil {
		return false, replicate.Errorf(replicate.Unavailable, "this machine has no %s", fuseDevice).WithHint(deviceHint)
	}
	if os.Geteuid() != 0 {
		if _, err := findHelper(); err != nil {
			return false, err
		}
	}
	return false, checkDir(o.Dir, avoid)
}

// launch starts a supervisor that outlives this process and waits for its word.
func launch(ctx context.Context, o Options) error {
	log, err := stateOf(o.StateDir, o.Dir).openLog()
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	defer log.Close()
	in, stdin, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	defer stdin.Close()
	out, words, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe: %w", err)
	}
	cmd := process("/proc/self/exe", o.Self, supervisorRole)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, log, log
	cmd.ExtraFiles = []*os.File{words}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	in.Close()
	words.Close()
	if err != nil {
		return fmt.Errorf("start the mount process: %w", err)
	}
	if err := json.NewEncoder(stdin).Encode(o); err != nil {
		return fmt.Errorf("start the mount process: %w", err)
	}
	select {
	case w, ok := <-listen(out):
		switch {
		case !ok:
			return replicate.Errorf(replicate.Internal, "the mount process ended").WithHint("its log is %s", log.Name())
		case w.Kind == wordError:
			return w.err()
		}
		return nil
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGTERM)
		return ctx.Err()
	}
}

// superviseForParent is the supervisor's process.
func superviseForParent(ctx context.Context) error {
	var o Options
	if err := json.NewDecoder(os.Stdin).Decode(&o); err != nil {
		return fmt.Errorf("read the options: %w", err)
	}
	parent := os.NewFile(fuseFD, "words")
	return supervise(ctx, o, os.Stderr, func(err error) {
		w := word{Kind: wordReady}
		if err != nil {
			w = errorWord(err)
		}
		_ = w.write(parent)
		parent.Close()
	})
}

// Process runs one of the processes behind a mount: it is what the command line Options.Self, with a role behind it, must call. open
// makes the view that the server serves.
func Process(ctx context.Context, role string, open func(context.Context, Options) (View, error)) error {
	switch role {
	case supervisorRole:
		return superviseForParent(ctx)
	case serverRole:
		return serveForParent(ctx, open)
	}
	return replicate.Errorf(replicate.Usage, "no such role: %q", role)
}

// errOrphan is the end of a server whose supervisor is gone: the mount must not live on unwatched.
var errOrphan = errors.New("the supervisor is gone")

// serverGCPercent trades time for memory: a server lives for weeks beside trainings that need the memory.
const serverGCPercent = 30

// serveForParent is the server's process.
func serveForParent(ctx context.Context, open func(context.Context, Options) (View, error)) error {
	input := json.NewDecoder(os.Stdin)
	var o order
	if err := input.Decode(&o); err != nil {
		return fmt.Errorf("read the options: %w", err)
	}
	debug.SetGCPercent(serverGCPercent)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel(errOrphan)
	}()
	words := os.NewFile(wordsFD, "words")
	v, err := open(ctx, o.Options)
	if err != nil {
		_ = errorWord(err).write(words)
		return err
	}
	defer v.Close()
	return serve(ctx, v, o, words)
}
