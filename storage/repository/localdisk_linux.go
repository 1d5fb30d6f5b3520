package repository

import "golang.org/x/sys/unix"

// networkDisks are file systems that other machines may write to as well.
var networkDisks = map[int64]bool{
	0x6969: true, 0x517b: true, 0xff534d42: true, 0xfe534d42: true, // nfs, smb, cifs, smb2
	0x01021997: true, 0x65735546: true, 0x00c36400: true, 0x5346414f: true, // 9p, fuse, ceph, afs
	0x0bd00bd0: true, 0x47504653: true, 0x19830326: true, // lustre, gpfs, beegfs
}

// onLocalDisk reports whether a path is on a file system of this machine alone, where locks can be trusted.
func onLocalDisk(path string) bool {
	var st unix.Statfs_t
	if unix.Statfs(path, &st) != nil {
		return false
	}
	return !networkDisks[int64(uint32(st.Type))]
}
