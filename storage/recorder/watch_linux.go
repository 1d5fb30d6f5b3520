package recorder

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchProcess waits until a process is gone, or until stop is closed. It reports whether the process is gone; one that never was
// there is.
func watchProcess(pid int, stop <-chan struct{}) bool {
	fd, err := unix.PidfdOpen(pid, 0)
	switch {
	case errors.Is(err, syscall.ESRCH):
		return true
	case err != nil:
		return pollProcess(pid, stop)
	}
	if err := unix.SetNonblock(fd, true); err != nil { // else no goroutine could wait for it
		unix.Close(fd)
		return pollProcess(pid, stop)
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	gone := make(chan error, 1)
	go func() { gone <- waitReadable(file) }()
	select {
	case err := <-gone:
		file.Close()
		return err == nil
	case <-stop:
		file.Close() // ends the wait
		<-gone
		return false
	}
}

// waitReadable waits until there is something to read; a pidfd is readable when its process has ended.
func waitReadable(file *os.File) error {
	conn, err := file.SyscallConn()
	if err != nil {
		return err
	}
	woken := false
	return conn.Read(func(uintptr) bool {
		defer func() { woken = true }()
		return woken
	})
}

// pollEvery is how often kernels before 5.3 are asked. A death must be found within a second.
const pollEvery = 200 * time.Millisecond

func pollProcess(pid int, stop <-chan struct{}) bool {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		if err := syscall.Kill(pid, 0); err == syscall.ESRCH {
			return true
		}
		select {
		case <-stop:
			return false
		case <-tick.C:
		}
	}
}
