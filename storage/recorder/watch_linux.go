package recorder

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// watchProcess waits until a process is gone, which it learns at once, or until stop is closed. It reports whether the
// process is gone; one that never was there is.
func watchProcess(pid int, stop <-chan struct{}) bool {
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK)
	switch {
	case errors.Is(err, syscall.ESRCH):
		return true
	case err != nil: // a kernel before 5.10
		return pollProcess(pid, stop)
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	defer file.Close()
	conn, err := file.SyscallConn()
	if err != nil {
		return pollProcess(pid, stop)
	}
	gone := make(chan struct{})
	go func() {
		first := true
		err := conn.Read(func(uintptr) bool { // a pidfd becomes readable when the process ends
			again := !first
			first = false
			return again
		})
		if err == nil {
			close(gone)
		}
	}()
	select {
	case <-gone:
		return true
	case <-stop:
		return false // closing the file ends the read
	}
}
