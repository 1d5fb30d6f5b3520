package job

import (
	"context"
	"encoding/binary"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// run reaps until ctx ends.
func (r *reaper) run(ctx context.Context) {
	deaths := make(chan os.Signal, 1)
	signal.Notify(deaths, unix.SIGCHLD)
	defer signal.Stop(deaths)
	const soon = 10 * time.Millisecond // until somebody has waited for his child, behind which an orphan may be hidden
	again := time.NewTimer(soon)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-deaths:
		case <-again.C:
		}
		if r.reap() {
			again.Reset(soon)
		}
	}
}

// reap waits for all orphans that have ended, up to a child that is not ours to wait for: then it returns true.
func (r *reaper) reap() bool {
	for {
		pid := endedChild()
		if pid <= 0 {
			return false
		}
		if !r.orphan(pid) {
			return true
		}
		_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
	}
}

func (r *reaper) orphan(pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	own, err1 := unix.Getsid(0)
	its, err2 := unix.Getsid(pid)
	return !r.mine[pid] && err1 == nil && err2 == nil && own != its
}

// orphanPatience is for what a job leaves behind and what ends with process 1: the recorder of a script that was killed writes that down.
const orphanPatience = 5 * time.Second

// letOrphansEnd waits a while until no orphan lives.
func (r *reaper) letOrphansEnd(ctx context.Context) {
	const every = 20 * time.Millisecond
	for deadline := time.Now().Add(orphanPatience); r.orphans() && ctx.Err() == nil && time.Now().Before(deadline); {
		time.Sleep(every)
	}
}

// orphans reports whether this process has adopted children.
func (r *reaper) orphans() bool {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return false
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:])) // pid (name) state parent
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil && len(fields) > 1 && fields[1] == strconv.Itoa(os.Getpid()) && r.orphan(pid) {
			return true
		}
	}
	return false
}

// endedChild returns a child that has ended, and leaves it to be waited for; 0 if there is none.
func endedChild() int {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err != nil {
		return 0
	}
	const pidAt = 16 // behind signo, errno, code and four bytes of padding, on all 64-bit systems
	text := (*[unsafe.Sizeof(info)]byte)(unsafe.Pointer(&info))
	return int(int32(binary.NativeEndian.Uint32(text[pidAt:])))
}
