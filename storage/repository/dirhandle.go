package repository

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

// A dirHandle is an open folder in which files are made by their last names, so that no name of a tree leads anywhere else. It does
// what package os has no call for: times of links, and names that are not looked up again from the root for each step.
type dirHandle struct{ file *os.File }

func (d dirHandle) fd() int { return int(d.file.Fd()) }

func (d dirHandle) close() { d.file.Close() }

// retry repeats a call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}

// openAt opens a file of the folder that is no link.
func (d dirHandle) openAt(name string, flags int) (fd int, err error) {
	err = retry(func() error {
		fd, err = unix.Openat(d.fd(), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		return err
	})
	return fd, err
}

// create makes a new file of size bytes, all of them a hole.
func (d dirHandle) create(name string, size int64) error {
	fd, err := d.openAt(name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY)
	if err != nil {
		return err
	}
	if size > 0 {
		err = retry(func() error { return unix.Ftruncate(fd, size) })
	}
	return errors.Join(err, unix.Close(fd))
}

// write writes p at off, into a new file if flags say so.
func (d dirHandle) write(name string, flags int, p []byte, off int64) error {
	fd, err := d.openAt(name, flags|unix.O_WRONLY)
	if err != nil {
		return err
	}
	for len(p) > 0 && err == nil {
		var n int
		err = retry(func() error {
			n, err = unix.Pwrite(fd, p, off)
			return err
		})
		p, off = p[max(n, 0):], off+int64(max(n, 0))
	}
	return errors.Join(err, unix.Close(fd))
}

// dress gives what is at name the mode and the mtime of e. The mode of a link means nothing.
func (d dirHandle) dress(name string, e *Entry) error {
	if e.Kind != Link {
		if err := retry(func() error { return unix.Fchmodat(d.fd(), name, e.Mode, 0) }); err != nil {
			return fmt.Errorf("set its mode: %w", err)
		}
	}
	mtime := unix.NsecToTimespec(e.Mtime)
	if mtime.Nsec < 0 { // before 1970
		mtime.Sec, mtime.Nsec = mtime.Sec-1, mtime.Nsec+1e9
	}
	times := []unix.Timespec{mtime, mtime}
	if err := retry(func() error { return unix.UtimesNanoAt(d.fd(), name, times, unix.AT_SYMLINK_NOFOLLOW) }); err != nil {
		return fmt.Errorf("set its time: %w", err)
	}
	return nil
}

func (d dirHandle) symlink(target, name string) error {
	return retry(func() error { return unix.Symlinkat(target, d.fd(), name) })
}

func (d dirHandle) rename(from, to string) error {
	return retry(func() error { return unix.Renameat(d.fd(), from, d.fd(), to) })
}

func (d dirHandle) remove(name string) error {
	return retry(func() error { return unix.Unlinkat(d.fd(), name, 0) })
}

// removeDir removes an empty folder.
func (d dirHandle) removeDir(name string) error {
	return retry(func() error { return unix.Unlinkat(d.fd(), name, unix.AT_REMOVEDIR) })
}

// moveOut moves a folder to the path to.
func (d dirHandle) moveOut(name, to string) error {
	err := retry(func() error { return unix.Renameat(d.fd(), name, unix.AT_FDCWD, to) })
	if errors.Is(err, unix.EXDEV) {
		return replicate.Errorf(replicate.Conflict, "a directory is in the way, and %s is on another disk", to).
			WithHint("move it away, or check out into another directory")
	}
	return err
}

// copyOut gives a file or a link the name to as well, or copies it there if the file system cannot do that.
func (d dirHandle) copyOut(name, to string) error {
	err := retry(func() error { return unix.Linkat(d.fd(), name, unix.AT_FDCWD, to, 0) })
	if err == nil || errors.Is(err, fs.ErrExist) {
		return err
	}
	buf := make([]byte, unix.PathMax)
	if n, linkErr := unix.Readlinkat(d.fd(), name, buf); linkErr == nil {
		return os.Symlink(string(buf[:n]), to)
	}
	fd, err := d.openAt(name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(fd), name)
	defer from.Close()
	return copyFile(from, to)
}

// copyFile copies an open regular file with mode and mtime.
func copyFile(from *os.File, to string) error {
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return replicate.Errorf(replicate.Conflict, "a %s is in the way", info.Mode().Type())
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	err = errors.Join(err, f.Chmod(info.Mode()), f.Close())
	if err != nil {
		return err
	}
	return os.Chtimes(to, info.ModTime(), info.ModTime())
}

// kindOfFile tells apart what callers treat differently.
func kindOfFile(err error) replicate.Kind {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return replicate.Full
	case errors.Is(err, syscall.EROFS):
		return replicate.Permission
	}
	return replicate.KindOf(err)
}
