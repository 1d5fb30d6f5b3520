package repository

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

// An outbox must not fill the disk that the training writes to: it grows as long as the storage is out of reach.
const (
	// leastRoom and leastShare are how much of the disk an outbox leaves free: the larger of both.
	leastRoom  = 1 << 30
	leastShare = 0.02
	// WarnShare is the part of what was free at the start from which what waits is worth a warning.
	WarnShare = 0.2
)

// Free returns the bytes that are free on the disk of the spool, 0 if that cannot be told.
func (s *Spool) Free() int64 {
	free, _ := diskOf(s.dir)
	return free
}

// diskOf returns the free and all bytes of the disk that holds a path, for whoever is not root.
func diskOf(path string) (free, all int64) {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return 0, 0
	}
	return int64(st.Bavail) * int64(st.Bsize), int64(st.Blocks) * int64(st.Bsize)
}

// hasRoom returns an error of kind Full if an outbox with one more pack would not leave enough of its disk free.
func (s *Spool) hasRoom() error {
	if s.outbox == nil {
		return nil
	}
	free, all := diskOf(s.dir)
	least := max(leastRoom, int64(leastShare*float64(all)))
	if all == 0 || free-MaxPack >= least {
		return nil
	}
	return &replicate.Error{Op: "keep commits for", Path: s.outbox.url, Kind: replicate.Full,
		Err:  fmt.Errorf("less than %d MB would be free on the disk of %s", least>>20, s.dir),
		Hint: "free some space, or let replicate upload send what waits"}
}
