package disk

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"time"
)

// ctime returns when a file's inode last changed, which renaming counts as.
func ctime(info fs.FileInfo) time.Time {
	return time.Unix(info.Sys().(*syscall.Stat_t).Ctimespec.Unix())
}

// fdatasync makes the bytes of a file durable. Sync is F_FULLFSYNC here: fsync leaves them in the drive's cache.
func fdatasync(f *os.File) error { return f.Sync() }

// renameExclusive renames a file unless the new name is taken.
func renameExclusive(from, to string) error { return errors.ErrUnsupported }
