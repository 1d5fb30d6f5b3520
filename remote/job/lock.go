package job

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

// lockName is the file that the living supervisor of a directory has locked. The kernel frees it when that dies.
const lockName = "lock"

// A supervisor that finds its directory locked tries again for half a second.
const (
	holdTries = 50
	holdEvery = 10 * time.Millisecond
)

// hold makes this process the supervisor of a directory.
func hold(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for range holdTries { // alive has it for a moment
		if !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		time.Sleep(holdEvery)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = replicate.Errorf(replicate.Conflict, "another supervisor is at work")
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// alive reports whether a directory has a living supervisor.
func alive(dir string) bool {
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB), unix.EWOULDBLOCK)
}
