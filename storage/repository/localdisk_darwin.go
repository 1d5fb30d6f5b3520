package repository

import "golang.org/x/sys/unix"

// onLocalDisk reports whether a path is on a file system of this machine alone, where locks can be trusted.
func onLocalDisk(path string) bool {
	var st unix.Statfs_t
	return unix.Statfs(path, &st) == nil && st.Flags&unix.MNT_LOCAL != 0
}
