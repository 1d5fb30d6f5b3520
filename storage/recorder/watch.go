package recorder

import (
	"syscall"
	"time"
)

// pollEvery is how often a process is looked for where the system does not tell. It must find a death within a second.
const pollEvery = 200 * time.Millisecond

// pollProcess is watchProcess by looking again and again.
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
