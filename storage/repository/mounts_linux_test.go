package repository

import "testing"

func FuzzMounts(f *testing.F) {
	f.Add("36 35 98:0 / /mnt/my\\040exp rw - fuse.replicate replicate rw\n")
	f.Fuzz(func(t *testing.T, text string) { parseMounts(text) })
}

func TestMounts(t *testing.T) {
	got := parseMounts("22 1 8:1 / / rw - ext4 /dev/sda rw\n" +
		"36 35 98:0 / /mnt/my\\040exp rw,nosuid shared:1 - fuse.replicate replicate rw\n37 35 0:1 / /mnt/sshfs rw - fuse.sshfs x rw\n")
	if len(got) != 1 || !got["/mnt/my exp"] {
		t.Errorf("%v", got)
	}
}
