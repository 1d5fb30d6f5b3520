package fs

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestPOSIX are the checks of go-fuse's posixtest that only read.
func TestPOSIX(t *testing.T) {
	needsMount(t, "python3")
	tree := hostile(t)
	for i := range 500 {
		check(t, os.MkdirAll(filepath.Join(tree, "many"), 0o755))
		check(t, os.WriteFile(filepath.Join(tree, "many", fmt.Sprintf("f%03d", i)), nil, 0o644))
	}
	mnt := mount(t, testOptions(t, tree))
	out := must(t, mnt, "python3", "-c", `
import os, errno, threading
names = sorted(os.listdir("many"))
assert names == ["f%03d" % i for i in range(500)], names
assert sorted(os.listdir("many")) == names
d = os.open(".", os.O_RDONLY)
ino = {e.name: e.inode() for e in os.scandir("many")}
assert all(os.lstat("many/" + n).st_ino == i for n, i in ino.items())
f = os.open("sub/deeper/x", os.O_RDONLY)
size = os.fstat(f).st_size
assert os.lseek(f, 0, os.SEEK_HOLE) == size and os.lseek(f, 5, os.SEEK_DATA) == 5
for whence in (os.SEEK_DATA, os.SEEK_HOLE):
    try: os.lseek(f, size, whence); assert False
    except OSError as e: assert e.errno == errno.ENXIO, e
assert os.readlink("dangling") == "no/where"
g = os.open("plain.txt", os.O_RDONLY, dir_fd=d)
assert os.read(g, 100) == b"hello\n" and os.pread(g, 3, 2) == b"llo" and os.pread(g, 3, 100) == b""
def opens():
    for _ in range(200): os.close(os.open("plain.txt", os.O_RDONLY))
before = len(os.listdir("/proc/self/fd"))
threads = [threading.Thread(target=opens) for _ in range(8)]
for t in threads: t.start()
for t in threads: t.join()
assert len(os.listdir("/proc/self/fd")) == before
s = os.statvfs(".")
assert s.f_bfree == 0 and s.f_namemax == 255 and s.f_flag & os.ST_RDONLY
try: os.stat("plain.txt/x"); assert False
except NotADirectoryError: pass
try: os.listdir("plain.txt"); assert False
except NotADirectoryError: pass
try: os.stat("n" * 256); assert False
except OSError as e: assert e.errno == errno.ENAMETOOLONG, e
import mmap
m = mmap.mmap(f, size, prot=mmap.PROT_READ)
assert m[:] == b"0123456789" * 20000
out = os.open("/dev/null", os.O_WRONLY)
assert os.sendfile(out, f, 0, size) == size
`)
	if out != "" {
		t.Error(out)
	}
	// Directories are read on at every position.
	must(t, mnt, "python3", "-c", `
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.telldir.argtypes = [ctypes.c_void_p]; libc.telldir.restype = ctypes.c_long
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
libc.readdir.argtypes = [ctypes.c_void_p]; libc.readdir.restype = ctypes.c_void_p
def name(p): return ctypes.string_at(p + 19)
d = libc.opendir(b"many")
seen = []
while True:
    at = libc.telldir(d)
    e = libc.readdir(d)
    if not e: break
    seen.append((at, name(e)))
assert len(seen) == 502, len(seen)
for at, n in seen[::-7]:
    libc.seekdir(d, at)
    assert name(libc.readdir(d)) == n, (at, n)
`)
}
