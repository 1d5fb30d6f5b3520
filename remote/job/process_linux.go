package job

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// pipeSize is what a job can write before it waits for us: a second of a busy log.
const pipeSize = 1 << 20

func dieWithParent(a *syscall.SysProcAttr) { a.Pdeathsig = unix.SIGKILL }

// enlarge makes a pipe hold more. Where that is refused it holds less.
func enlarge(pipe *os.File) {
	if conn, err := pipe.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, pipeSize) })
	}
}

// standBack gives the calling goroutine a thread of its own that runs when nothing else wants to. The thread ends with the goroutine.
func standBack() {
	const last = 19
	runtime.LockOSThread()
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, last) // of the thread
}

// adopt makes this process the parent of orphans below it. Process 1 is that anyway.
func adopt() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }
