package main

import (
	"crypto/rand"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
)

const recordHelp = `Records one experiment for a program that speaks the line protocol of docs/protocol.md on stdin and
stdout. The Python package and replicate init start it.`

// maxRecorderLog is the size from which the file that recorders complain to begins anew.
const maxRecorderLog = 1 << 20

func recordCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "record",
		Usage:       "record for a program (docs/protocol.md)",
		Description: recordHelp,
		Hidden:      true,
		Flags:       storageFlags()[:1],
		Action: func(c *cli.Context) error {
			in, out, err := detach()
			if err != nil {
				return err
			}
			o := w.recorderOptions(c.String("storage-url"))
			o.Opened = complainTo
			return recorder.Serve(c.Context, in, out, o)
		},
	}
}

// recorderOptions are what a recorder should know of this process, and the storage asked for, "" if none is. It tells people on stderr.
func (w *world) recorderOptions(storage string) recorder.Options {
	env := map[string]string{}
	for _, pair := range w.environ() {
		name, value, _ := strings.Cut(pair, "=")
		env[name] = value
	}
	o := recorder.Options{StorageFlag: storage, Env: env, Now: w.now, Random: rand.Reader, Tell: w.tell, Upload: startUploaders}
	if env["REPLICATE_UPLOADER"] == "none" {
		o.Upload = nil // a supervisor has the credentials, and sends
	}
	return o
}

// tell prints what a recorder has to say.
func (w *world) tell(r recorder.Remark) {
	switch {
	case w.getenv("REPLICATE_QUIET") == "1":
		return
	case r.Warning != "":
		w.say("replicate: warning: %s", oneLine(r.Warning))
	case r.Note != "":
		w.say("replicate: %s", oneLine(r.Note))
	}
	if r.Hint != "" {
		w.say("replicate: hint: %s", oneLine(r.Hint))
	}
}

// detach makes this process outlive its parent and everything the parent holds: it leaves its session, so that Ctrl-C goes to
// the training alone; it closes what it inherited; signals that are sent to all of a job do not end it, as it has to write
// down how the job ends. It returns stdin and stdout as files that the runtime can wait for.
func detach() (in, out *os.File, err error) {
	_, _ = unix.Setsid() // refused to the leader of a process group, which is what was wanted
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE)
	if err := closeInherited(); err != nil {
		return nil, nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, nil, err
	}
	defer null.Close()
	if err := dup(null, 2); err != nil { // an inherited stderr would keep `2>&1 | tee log` waiting
		return nil, nil, err
	}
	if err := unix.SetNonblock(0, true); err != nil {
		return nil, nil, err
	}
	if err := unix.SetNonblock(1, true); err != nil {
		return nil, nil, err
	}
	return os.NewFile(0, "stdin"), os.NewFile(1, "stdout"), nil
}

// closeInherited closes every descriptor from 3 on that came from the parent: a GPU or a lock file kept open outlives the
// training. What this process opened itself is closed on exec, which tells it apart.
func closeInherited() error {
	entries, err := os.ReadDir("/dev/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			unix.Close(fd)
		}
	}
	return nil
}

// complainTo makes a file of the project stderr: what the runtime prints when it dies goes there. Without such a file nothing is
// lost but that.
func complainTo(p *project.Project) {
	if err := os.MkdirAll(p.Private(), 0o700); err != nil {
		return
	}
	name := filepath.Join(p.Private(), "recorder.log")
	if info, err := os.Stat(name); err == nil && info.Size() > maxRecorderLog {
		os.Remove(name)
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	_ = dup(f, 2)
}

func dup(f *os.File, fd int) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var dupErr error
	err = conn.Control(func(from uintptr) { dupErr = syscall.Dup2(int(from), fd) })
	if err != nil {
		return err
	}
	return dupErr
}
