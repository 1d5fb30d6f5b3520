//go:build !linux

package recorder

// watchProcess waits until a process is gone, or until stop is closed. It reports whether the process is gone.
func watchProcess(pid int, stop <-chan struct{}) bool { return pollProcess(pid, stop) }
