package job

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

// A process is one attempt at the job: a command that leads a session and a process group of its own.
type process struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended
}

// startProcess starts a command. Its end is in cmd.ProcessState when done is closed. Should this process be killed, the kernel kills the
// command too: that is bound to the thread that started it, which therefore waits for its end.
func startProcess(cmd *exec.Cmd, r *reaper) (*process, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	dieWithParent(cmd.SysProcAttr)
	p := &process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.done)
		err := r.start(cmd)
		started <- err
		if err == nil {
			_ = cmd.Wait() // what it says is in ProcessState
			r.waited(cmd)
		}
	}()
	return p, <-started
}

// signal sends a signal to all of the job's process group.
func (p *process) signal(s syscall.Signal) { _ = unix.Kill(-p.cmd.Process.Pid, s) } // it may have ended

// lookAtGroup is how often it is looked whether somebody of a group is left: nobody tells when a grandchild ends.
const lookAtGroup = 10 * time.Millisecond

// gone returns a channel that is closed when the command and all of its group have ended.
func (p *process) gone() <-chan struct{} {
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for <-p.done; unix.Kill(-p.cmd.Process.Pid, 0) == nil; {
			time.Sleep(lookAtGroup)
		}
	}()
	return gone
}

// sweep kills what is left of the group, as the job has ended, and waits until it is gone: it may hold a GPU.
func (p *process) sweep() {
	const patience = 5 * time.Second
	p.signal(unix.SIGKILL)
	select {
	case <-p.gone():
	case <-time.After(patience): // in the hands of a driver
	}
}

// An ending is how a job ended.
type ending struct {
	status replicate.Status
	code   int
	signal string
	reason string
}

// endingOf says what the end of a process means. Shells report a signal that killed their child as a code.
func endingOf(ws syscall.WaitStatus) ending {
	e := ending{status: replicate.Failed, code: ws.ExitStatus()}
	if ws.Signaled() {
		e.code, e.signal = ExitSignal+int(ws.Signal()), unix.SignalName(ws.Signal())
	}
	switch {
	case e.code == 0:
		e.status = replicate.Finished
	case e.code == ExitSignal+int(unix.SIGINT):
		e.status = replicate.Interrupted
	case e.code == ExitSignal+int(unix.SIGTERM):
		e.status = replicate.Terminated
	case ws.Signaled():
		e.status = replicate.Crashed
	}
	return e
}

// notStarted says what it means that a command did not start, with the codes of shells.
func notStarted(err error) ending {
	e := ending{status: replicate.Failed, code: ExitNotExecutable, reason: err.Error()}
	if isMissing(err) || errors.Is(err, exec.ErrNotFound) {
		e.code = ExitNotFound
	}
	return e
}

// lookPath finds a program as a shell in a directory would: that of the job, not ours.
func lookPath(name, dir, path string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, executable(name)
	}
	found := &fs.PathError{Op: "run", Path: name, Err: fs.ErrNotExist}
	for _, folder := range filepath.SplitList(path) {
		if !filepath.IsAbs(folder) { // "" too
			folder = filepath.Join(dir, folder)
		}
		file := filepath.Join(folder, name)
		switch err := executable(file); {
		case err == nil:
			return file, nil
		case errors.Is(err, fs.ErrPermission):
			found.Err = fs.ErrPermission
		}
	}
	return "", found
}

// executable says why a file cannot be run, or nil.
func executable(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if info.IsDir() || unix.Access(file, unix.X_OK) != nil || info.Mode()&0o111 == 0 {
		return &fs.PathError{Op: "run", Path: file, Err: fs.ErrPermission}
	}
	return nil
}
