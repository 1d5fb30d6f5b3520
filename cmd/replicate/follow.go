package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote"
	"github.com/replicate/replicate/remote/job"
)

const (
	exitInterrupted = 130
	// againWithin is how soon a second Ctrl-C stops the job.
	againWithin = 3 * time.Second
)

// follow shows a run to its end and returns its exit code.
func (w *world) follow(ctx context.Context, r *remote.Run) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &following{w: w, run: r, left: make(chan struct{}), leave: cancel}
	f.start(ctx)
	defer f.stop()
	start := w.now()
	state, err := r.Follow(ctx)
	select {
	case <-f.left:
		if err := r.Leave(context.WithoutCancel(ctx)); err != nil {
			w.report("warning", err)
		}
		w.say("%s goes on; replicate attach %s shows it again", r.ID.Short(), r.ID.Short())
		return nil
	default:
	}
	r.Close()
	if !state.Ended() {
		w.report("error", err)
		w.say("replicate: hint: what became of the job is not known; replicate attach %s asks again", r.ID.Short())
		return exitCode(remote.ExitUnknown)
	}
	if err != nil {
		w.report("warning", &replicate.Error{Op: "fetch the commits of", Path: r.ID.Short(), Err: err, Hint: "replicate pull fetches them later"})
	}
	w.say("%s %s after %s%s", r.ID.Short(), state.Status, lasted(w.now().Sub(start).Round(time.Second)), because(state))
	if state.ExitCode == 0 {
		return nil
	}
	return exitCode(state.ExitCode)
}

// because says why a job ended, where its status does not.
func because(s job.State) string {
	switch {
	case s.OOM:
		return ": out of memory"
	case s.Reason != "":
		return ": " + s.Reason
	case s.Signal != "":
		return ": " + s.Signal
	case s.ExitCode != 0:
		return fmt.Sprintf(": exit code %d", s.ExitCode)
	}
	return ""
}

// A following carries out what signals mean while a run is followed. At a terminal the first Ctrl-C asks, the second stops the job and the third kills it; a
// hang-up leaves it. Without a terminal signals stop the job.
type following struct {
	w       *world
	run     *remote.Run
	left    chan struct{} // closed when this machine is to leave the job alone
	leave   context.CancelFunc
	signals chan os.Signal
	keys    chan byte
	restore func() // the terminal
}

func (f *following) start(ctx context.Context) {
	f.signals = make(chan os.Signal, 8)
	signal.Notify(f.signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	f.restore = func() {}
	go f.listen(ctx)
}

func (f *following) stop() {
	signal.Stop(f.signals)
	f.restore()
}

func (f *following) listen(ctx context.Context) {
	var last time.Time
	times := 0
	for {
		select {
		case <-ctx.Done():
			return
		case key := <-f.keys:
			if key == 'd' || key == 'D' {
				close(f.left)
				f.leave()
				return
			}
		case s := <-f.signals:
			now := f.w.now()
			if now.Sub(last) > againWithin && times < 2 {
				times = 0
			}
			times, last = times+1, now
			if s == syscall.SIGHUP {
				close(f.left)
				f.leave()
				return
			}
			f.signal(ctx, s, times)
		}
	}
}

// signal is what Ctrl-C or TERM means, the times-th of its kind.
func (f *following) signal(ctx context.Context, s os.Signal, times int) {
	switch terminal := f.w.inTerminal && f.w.errTerminal; {
	case s == syscall.SIGTERM:
		f.ask(ctx, job.Stop)
	case terminal && times == 1:
		f.w.say("again: stop the job · d: detach")
		f.readKeys()
	case times <= 2:
		f.ask(ctx, job.Interrupt)
	default:
		f.ask(ctx, job.Kill)
	}
}

// readKeys begins to read what is typed, key by key.
func (f *following) readKeys() {
	if f.keys != nil {
		return
	}
	restore, err := f.w.byteInput()
	if err != nil {
		return // there is still Ctrl-C
	}
	f.restore = restore
	f.keys = make(chan byte)
	go func() {
		for key := make([]byte, 1); ; {
			if _, err := f.w.stdin.Read(key); err != nil {
				return
			}
			f.keys <- key[0]
		}
	}()
}

func (f *following) ask(ctx context.Context, s job.Signal) {
	if err := f.run.Signal(ctx, s); err != nil && ctx.Err() == nil {
		f.w.report("warning", err)
	}
}
