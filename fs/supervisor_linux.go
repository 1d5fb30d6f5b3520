package fs

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

const (
	// beatEvery is how often the server says that it is alive; a server silent for beatLimit is stuck. One that opens a
	// large index for the first time may be busy for a while before its first word.
	beatEvery = 5 * time.Second
	beatLimit = time.Minute

	// A request that kills the server is sent again to the next one, for ever, so maxCrashes within crashWindow end the mount.
	maxCrashes  = 3
	crashWindow = 10 * time.Second

	// stackWait is how long a stuck server gets to write its stacks.
	stackWait = 2 * time.Second

	// readAheadKB widens the kernel's window of 128 KiB, which only root may. Programs that say that they read in order get twice as much, and two windows
	// are on their way at a time. What is on its way has memory, which costs more than a few more requests: what hides a disk or a network is
	// the repository's reading ahead.
	readAheadKB = "512"
)

// A supervisor holds the connection to the kernel while servers come and go.
type supervisor struct {
	o       Options
	fuse    *os.File
	mount   mountEntry
	state   *state
	log     *slog.Logger
	stderr  *os.File // of the servers
	report  func(error)
	exe     string // what is run
	record  stateRecord
	used    bool  // requests of the connection were answered
	view    int64 // instance of the view that answered them
	crashes []time.Time
}

// supervise mounts and returns when the mount is gone. It calls report once: with nil when the mount is ready, or with why it
// never was.
func supervise(ctx context.Context, o Options, stderr *os.File, report func(error)) error {
	s := &supervisor{o: o, stderr: stderr, report: report, exe: "/proc/self/exe",
		log: slog.New(slog.NewTextHandler(stderr, nil)), state: stateOf(o.StateDir, o.Dir)}
	if err := s.attach(); err != nil {
		report(err)
		return err
	}
	defer s.fuse.Close()
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	err := s.run(ctx, signals)
	if err == nil {
		s.state.drop()
	}
	return err
}

func (s *supervisor) attach() (err error) {
	if err := s.state.hold(); err != nil {
		return err
	}
	if s.fuse, err = attach(s.o.Dir, s.o.Storage); err != nil {
		return err
	}
	s.mount, _, err = mountAt(s.o.Dir)
	if err != nil {
		return err
	}
	s.record = stateRecord{Dir: s.o.Dir, Storage: sourceName(s.o.Storage), Commit: s.o.Commit, Started: time.Now(), Supervisor: os.Getpid()}
	return nil
}

// run starts servers until the connection has ended.
func (s *supervisor) run(ctx context.Context, signals <-chan os.Signal) error {
	ready := false
	for {
		c, err := s.start()
		if err != nil {
			s.giveUp(err, !ready)
			return err
		}
		failure := s.watch(ctx, c, signals, &ready)
		c.end()
		switch {
		case s.ended():
			_ = clearDead(s.o.Dir) // an aborted connection leaves its mount in the table
			if !ready {
				s.report(replicate.Errorf(replicate.Unavailable, "unmounted before it was ready"))
			}
			return nil
		case errors.Is(failure, errUpgrade):
			s.crashes = nil
		case errors.Is(failure, errAfresh) && ready:
			if err := s.remount(); err != nil {
				return err
			}
		case !ready || s.tooManyCrashes(time.Now()):
			s.giveUp(failure, !ready)
			return failure
		}
		s.log.Warn("the server ended, starting another", "why", failure)
		s.record.Restarts++
	}
}

func (s *supervisor) giveUp(why error, report bool) {
	s.log.Error("the mount ends", "why", why)
	if err := detach(s.mount); err != nil {
		s.log.Error("unmount", "error", err)
	}
	if report {
		s.report(why)
	}
}

// ended reports whether the kernel has closed the connection.
func (s *supervisor) ended() bool {
	fds := []unix.PollFd{{Fd: int32(s.fuse.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 1 && fds[0].Revents&unix.POLLERR != 0
}

func (s *supervisor) tooManyCrashes(now time.Time) bool {
	recent := s.crashes[:0]
	for _, t := range append(s.crashes, now) {
		if now.Sub(t) < crashWindow {
			recent = append(recent, t)
		}
	}
	s.crashes = recent
	return len(recent) >= maxCrashes
}

// watch waits until a server has ended, and says why.
func (s *supervisor) watch(ctx context.Context, c *child, signals <-chan os.Signal, ready *bool) error {
	silence := time.NewTimer(beatLimit)
	defer silence.Stop()
	var why error
	stops := 0
	for {
		select {
		case w, ok := <-c.words:
			if !ok {
				c.words = nil
				continue
			}
			silence.Reset(beatLimit)
			switch w.Kind {
			case wordError:
				why = w.err()
			case wordAfresh:
				why = errAfresh
			case wordReady:
				s.view, s.used = w.Instance, true
				s.ready(ready)
			}
		case err := <-c.done:
			if last := c.lastWords(); last != nil {
				why = last
			}
			if why != nil {
				return why
			}
			return fmt.Errorf("the server ended: %w", err)
		case <-silence.C:
			s.log.Error("the server is silent, its stacks follow", "for", beatLimit)
			c.signal(unix.SIGQUIT)
			pause(ctx, stackWait)
			c.signal(unix.SIGKILL)
		case sig := <-signals:
			if sig == unix.SIGHUP {
				s.exe = strings.TrimSuffix(s.o.Self[0], " (deleted)")
				why = errUpgrade
				c.signal(unix.SIGKILL)
				continue
			}
			stops++
			s.stop(ctx, stops)
		case <-ctx.Done():
			s.stop(context.WithoutCancel(ctx), 2)
			ctx = context.WithoutCancel(ctx)
		}
	}
}

// ready says so the first time; later it has the kernel repeat the requests that the dead server had taken.
func (s *supervisor) ready(ready *bool) {
	if *ready {
		s.resend()
		return
	}
	*ready = true
	if os.Geteuid() == 0 {
		_ = os.WriteFile("/sys/class/bdi/"+s.mount.device+"/read_ahead_kb", []byte(readAheadKB), 0)
	}
	s.report(nil)
	s.notify()
}

// resend writes FUSE_NOTIFY_RESEND, which Linux knows since 6.9.
func (s *supervisor) resend() {
	const notifyResend = 7
	message := binary.NativeEndian.AppendUint32(nil, 16)
	message = binary.NativeEndian.AppendUint32(message, notifyResend)
	message = binary.NativeEndian.AppendUint64(message, 0)
	if _, err := unix.Write(int(s.fuse.Fd()), message); err != nil {
		s.log.Warn("this kernel does not repeat requests: callers that the dead server was answering hang until killed", "error", err)
	}
}

// errUpgrade is why a server ended that was told to make room for the binary that is now on disk.
var errUpgrade = errors.New("told to start the program that is now on disk")

// stop unmounts for the first signal and forces for the second. The server ends with the connection.
func (s *supervisor) stop(ctx context.Context, times int) {
	if times > 1 {
		_ = detach(s.mount)
		if err := abort(s.mount); err != nil {
			os.Exit(1) // the descriptor closes with us and the server, and with it the connection
		}
		return
	}
	busy, err := release(ctx, s.mount)
	if err != nil {
		s.log.Error("unmount", "error", err)
	}
	for _, h := range busy {
		s.log.Warn("detached, though still used", "by", h.String())
	}
}

// notify tells a service manager that the mount is ready.
func (s *supervisor) notify() {
	if s.o.NotifySocket == "" {
		return
	}
	conn, err := net.Dial("unixgram", s.o.NotifySocket)
	if err != nil {
		s.log.Warn("tell the service manager", "error", err)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "READY=1")
}

// errAfresh is why a server ended whose nodes are not those that the kernel knows.
var errAfresh = errors.New("the index was made anew, and with it every node")

// remount puts a new mount in the place of one whose nodes are stale. Who has files of the old one open gets errors.
func (s *supervisor) remount() (err error) {
	if err := detach(s.mount); err != nil {
		return err
	}
	s.fuse.Close()
	s.used = false
	if s.fuse, err = attach(s.o.Dir, s.o.Storage); err != nil {
		return err
	}
	s.mount, _, err = mountAt(s.o.Dir)
	return err
}

// start starts a server on the connection.
func (s *supervisor) start() (*child, error) {
	c, err := startChild(s.exe, order{s.o, s.used, s.view}, s.fuse, s.stderr)
	if err != nil {
		return nil, err
	}
	s.record.Server = c.cmd.Process.Pid
	return c, s.state.write(s.record)
}

// A word is one line of what a server tells its supervisor, and a supervisor the command that started it.
type word struct {
	Kind     string
	Instance int64          `json:",omitempty"` // of a view, with wordReady
	Op       string         `json:",omitempty"`
	Path     string         `json:",omitempty"`
	Error    replicate.Kind `json:",omitempty"`
	Text     string         `json:",omitempty"`
	Hint     string         `json:",omitempty"`
}

const (
	wordReady  = "ready"
	wordBeat   = "beat"
	wordAfresh = "afresh" // the view is not that of the connection
	wordError  = "error"
)

// errorWord carries an error to another process.
func errorWord(err error) word {
	w := word{Kind: wordError, Error: replicate.KindOf(err), Hint: replicate.HintOf(err), Text: err.Error()}
	if e, ok := errors.AsType[*replicate.Error](err); ok && e == err && e.Err != nil {
		w.Op, w.Path, w.Text = e.Op, e.Path, e.Err.Error()
	}
	return w
}

func (w word) err() error {
	return &replicate.Error{Op: w.Op, Path: w.Path, Kind: w.Error, Err: errors.New(w.Text), Hint: w.Hint}
}

func (w word) write(to io.Writer) error { return json.NewEncoder(to).Encode(w) }
