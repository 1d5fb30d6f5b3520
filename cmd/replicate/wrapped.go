package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

// Exit codes as shells give them.
const (
	exitNotExecutable = 126
	exitNoCommand     = 127
	exitSignal        = 128 // plus the number of the signal
)

// An ending is how a wrapped command ended.
type ending struct {
	status replicate.Status
	code   int
	err    error // it did not start
}

// runWrapped runs a command to its end. Signals that this process gets are passed on; those that a terminal sends have reached
// the command already, as it is in the same foreground group.
func runWrapped(ctx context.Context, process *exec.Cmd) ending {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	if err := process.Start(); err != nil {
		return notStarted(process, err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		for {
			select {
			case <-done:
				return
			case s := <-signals:
				if fromTerminal := (s == unix.SIGINT || s == unix.SIGQUIT) && inForeground(); !fromTerminal {
					_ = process.Process.Signal(s) // it may have ended
				}
			}
		}
	}()
	_ = process.Wait() // what it says is in ProcessState
	return endingOf(process.ProcessState.Sys().(syscall.WaitStatus))
}

func notStarted(process *exec.Cmd, err error) ending {
	code := exitNotExecutable
	cause := err
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		cause = e.Err
	}
	if e, ok := errors.AsType[*exec.Error](err); ok {
		cause = e.Err
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
		code = exitNoCommand
	}
	return ending{replicate.Failed, code, &replicate.Error{Op: "run", Path: process.Args[0], Err: cause}}
}

// endingOf says what the end of a process means. Shells report a signal that killed their child as a code.
func endingOf(status syscall.WaitStatus) ending {
	code := status.ExitStatus()
	if status.Signaled() {
		code = exitSignal + int(status.Signal())
	}
	switch {
	case code == 0:
		return ending{status: replicate.Finished}
	case code == exitSignal+int(unix.SIGINT):
		return ending{status: replicate.Interrupted, code: code}
	case code == exitSignal+int(unix.SIGTERM):
		return ending{status: replicate.Terminated, code: code}
	case status.Signaled():
		return ending{status: replicate.Crashed, code: code}
	}
	return ending{status: replicate.Failed, code: code}
}

// inForeground reports whether this process is in the group that its terminal sends signals to.
func inForeground() bool {
	tty, err := os.Open("/dev/tty")
	if err != nil {
		return false
	}
	defer tty.Close()
	conn, err := tty.SyscallConn()
	if err != nil {
		return false
	}
	foreground := -1
	_ = conn.Control(func(fd uintptr) { foreground, _ = unix.IoctlGetInt(int(fd), unix.TIOCGPGRP) })
	return foreground == unix.Getpgrp()
}
