package recorder

import (
	"time"

	"golang.org/x/sys/unix"
)

// watchEvery is how often a wait is interrupted to see whether it should stop.
const watchEvery = 500 * time.Millisecond

// watchProcess waits until a process is gone, or until stop is closed. It reports whether the process is gone; one that never was
// there is.
func watchProcess(pid int, stop <-chan struct{}) bool {
	queue, err := unix.Kqueue()
	if err != nil {
		return false
	}
	defer unix.Close(queue)
	exit := []unix.Kevent_t{{Ident: uint64(pid), Filter: unix.EVFILT_PROC, Flags: unix.EV_ADD, Fflags: unix.NOTE_EXIT}}
	if _, err := unix.Kevent(queue, exit, nil, nil); err != nil {
		return err == unix.ESRCH
	}
	timeout := unix.NsecToTimespec(watchEvery.Nanoseconds())
	for {
		n, err := unix.Kevent(queue, nil, make([]unix.Kevent_t, 1), &timeout)
		switch {
		case n > 0:
			return true
		case err != nil && err != unix.EINTR:
			return false
		}
		select {
		case <-stop:
			return false
		default:
		}
	}
}
