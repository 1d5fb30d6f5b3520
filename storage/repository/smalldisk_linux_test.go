package repository

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// smallDisk mounts a file system of some size.
func smallDisk(t *testing.T, size string) string {
	t.Helper()
	require.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		require.Missing(t, "the right to mount")
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	return dir
}
