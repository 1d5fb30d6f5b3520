package fs

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// blind are file systems on which other machines write without an event here.
var blind = map[int64]bool{
	unix.NFS_SUPER_MAGIC: true, unix.SMB_SUPER_MAGIC: true, unix.SMB2_SUPER_MAGIC: true, unix.CIFS_SUPER_MAGIC: true,
	unix.FUSE_SUPER_MAGIC: true, unix.V9FS_MAGIC: true,
}

// watchFolder returns a channel that says, some time after, that names came to a folder. It is an error where that cannot be told.
func watchFolder(ctx context.Context, dir string) (<-chan struct{}, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, err
	}
	if blind[int64(st.Type)] {
		return nil, fmt.Errorf("%s is shared with other machines", dir)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_DELETE|unix.IN_ONLYDIR); err != nil {
		f.Close()
		return nil, err
	}
	context.AfterFunc(ctx, func() { f.Close() })
	events := make(chan struct{}, 1)
	go func() {
		buffer := make([]byte, 64<<10)
		for {
			if _, err := f.Read(buffer); err != nil {
				return
			}
			select {
			case events <- struct{}{}:
			default: // one is waiting
			}
		}
	}()
	return events, nil
}
