package disk

import (
	"io/fs"
	"os"
	"syscall"
	"time"
)

// ctime returns when a file's inode last changed, which renaming counts as.
func ctime(info fs.FileInfo) time.Time {
	return time.Unix(info.Sys().(*syscall.Stat_t).Ctim.Unix())
}

// fdatasync makes the bytes of a file durable, and its length.
func fdatasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}
