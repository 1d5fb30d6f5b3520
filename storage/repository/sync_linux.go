package repository

import (
	"os"

	"golang.org/x/sys/unix"
)

// fdatasync makes the bytes of a file durable, and its length.
func fdatasync(f *os.File) error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); err != unix.EINTR {
			return os.NewSyscallError("fdatasync", err)
		}
	}
}

// startWriteBack tells the kernel to write a stretch of a file to the disk soon. It waits for nothing and promises nothing.
func startWriteBack(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
