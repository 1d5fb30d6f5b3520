package fs

import (
	"os"
	"os/exec"
	"runtime/debug"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// freshPages returns how many pages of a new buffer are not in memory, in a process with an aged heap that gave all of it back.
func freshPages() (missing int) {
	ageHeap()
	debug.FreeOSMemory()
	const page = 4096
	buf := make([]byte, maxRead+page)
	there := make([]byte, maxRead/page)
	start := (uintptr(unsafe.Pointer(&buf[0])) + page - 1) &^ (page - 1)
	if _, _, errno := unix.Syscall(unix.SYS_MINCORE, start, maxRead, uintptr(unsafe.Pointer(&there[0]))); errno != 0 {
		panic(errno)
	}
	for _, t := range there {
		missing += int(1 - t&1)
	}
	return missing
}

// TestNewBuffersAreInMemory: a server that is killed while the kernel fills one of its buffers must not need a page for that.
func TestNewBuffersAreInMemory(t *testing.T) {
	exe, err := os.Executable()
	check(t, err)
	cmd := exec.Command(exe, "aged")
	cmd.Env = withDebug(cmd.Environ(), clearFreed)
	out, err := cmd.Output()
	check(t, err)
	if string(out) != "0" {
		t.Errorf("%s pages of a new buffer are not in memory", out)
	}
}
