package code

import (
	"net"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/storagetest/require"
)

func TestFullDiskIsSaidAsSuch(t *testing.T) {
	require.Root(t)
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=4m"); err != nil {
		require.Missing(t, "the right to mount")
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	root := t.TempDir()
	write(t, filepath.Join(root, "big"), random(1, 20<<20))
	here, there := net.Pipe()
	_, sent, received := ends(t.Context(), scan(t, Options{Root: root}), here, there, ReceiveOptions{Chunks: disk + "/chunks", Target: disk + "/code"})
	if replicate.KindOf(sent) != replicate.Full || replicate.KindOf(received) != replicate.Full {
		t.Errorf("sent: %v, received: %v", sent, received)
	}
}
