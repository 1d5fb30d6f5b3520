package repository

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// On a disk of this machine alone there is a lock, tmp/lock, that whoever publishes shares from before the first pack is in its place until
// the records that need it are. A collector that has it for itself knows that nobody is in between, so that it need not wait for them.
// What is between a collector having the lock and giving it back takes milliseconds.
const landingLock = "lock"

// lockWait is the longest pause between two attempts to get a lock that somebody has.
const lockWait = 20 * time.Millisecond

// landing begins a time in which packs are put and records that need them: no collector takes the lock before release is called.
// Where locks cannot be trusted there is none, and collectors wait by the clock.
func (r *Repository) landing(ctx context.Context) (release func(), err error) {
	f, err := r.landingFile()
	if err != nil || f == nil {
		return func() {}, err
	}
	if err := lockFile(ctx, f, unix.LOCK_SH); err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}

// errBusy says that somebody publishes all the time.
var errBusy = errors.New("somebody is publishing")

// lockPatience is how long a collector waits for a moment in which nobody publishes.
const lockPatience = 10 * time.Second

// canLock reports whether there is a lock.
func (r *Repository) canLock() bool { return r.local != nil && onLocalDisk(r.local.Dir()) }

// nobodyLands begins a time in which nobody is between landing and its release, where there is a lock. The error is errBusy if there is no such
// moment for a while.
func (r *Repository) nobodyLands(ctx context.Context) (release func(), err error) {
	f, err := r.landingFile()
	if err != nil {
		return nil, err
	}
	patience, cancel := context.WithTimeout(ctx, lockPatience)
	defer cancel()
	if err := lockFile(patience, f, unix.LOCK_EX); err != nil {
		f.Close()
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = errBusy
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}

// landingFile opens the lock, nil where there is none.
func (r *Repository) landingFile() (*os.File, error) {
	if !r.canLock() {
		return nil, nil
	}
	path := filepath.Join(r.local.Dir(), "tmp", landingLock)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	}
	return f, err
}

// lockFile locks f in a mode, LOCK_SH or LOCK_EX, waiting for others until ctx ends.
func lockFile(ctx context.Context, f *os.File, mode int) error {
	for pause := time.Millisecond; ; pause = min(2*pause, lockWait) {
		err := unix.Flock(int(f.Fd()), mode|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
