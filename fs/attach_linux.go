package fs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

const (
	fuseDevice = "/dev/fuse"

	// maxRead is the largest READ: what the kernel sends at most, for direct reads and where root widened read-ahead.
	maxRead = 1 << 20

	// mountFlags: read-only, so that the kernel answers every write with EROFS before we are asked. The string "noatime"
	// is EINVAL for mount(2).
	mountFlags = unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOATIME
)

// attach mounts at dir and returns the descriptor that its requests come from.
func attach(dir, storage string) (*os.File, error) {
	source := sourceName(storage)
	if os.Geteuid() == 0 {
		return attachRoot(dir, source)
	}
	return attachUser(dir, source)
}

// sourceName is how the mount table shows a storage: without credentials.
func sourceName(storage string) string {
	if u, err := url.Parse(storage); err == nil {
		u.User = nil
		storage = u.String()
	}
	if storage == "" {
		return fsType
	}
	return storage
}

func attachRoot(dir, source string) (*os.File, error) {
	fd, err := unix.Open(fuseDevice, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &replicate.Error{Op: "open", Path: fuseDevice, Kind: replicate.Unavailable, Err: err, Hint: deviceHint}
	}
	data := fmt.Sprintf("fd=%d,rootmode=40000,user_id=%d,group_id=%d,max_read=%d", fd, os.Getuid(), os.Getgid(), maxRead)
	if err := unix.Mount(source, dir, "fuse."+fsType, mountFlags, data); err != nil {
		unix.Close(fd)
		return nil, &replicate.Error{Op: "mount", Path: dir, Kind: replicate.Unavailable, Err: err}
	}
	return os.NewFile(uintptr(fd), fuseDevice), nil
}

const (
	deviceHint = "modprobe fuse makes it, or the container must be started with --device /dev/fuse --cap-add SYS_ADMIN"
	helperHint = "apt install fuse3, or dnf install fuse3"
)

// attachUser lets the setuid helper mount. It hands the descriptor over through a socket.
func attachUser(dir, source string) (*os.File, error) {
	helper, err := findHelper()
	if err != nil {
		return nil, err
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "fusermount"), os.NewFile(uintptr(pair[1]), "fusermount")
	defer ours.Close()
	escaped := strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(source)
	options := fmt.Sprintf("ro,nosuid,nodev,noatime,fsname=%s,subtype=%s,max_read=%d", escaped, fsType, maxRead)
	cmd := exec.Command(helper, "-o", options, "--", dir)
	cmd.Env = []string{"_FUSE_COMMFD=3"}
	cmd.ExtraFiles = []*os.File{theirs}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err = cmd.Run()
	theirs.Close()
	if err != nil {
		return nil, helperError(dir, err, stderr.String())
	}
	return receiveFile(ours)
}

func findHelper() (string, error) {
	for _, name := range []string{"fusermount3", "fusermount"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
		if path, err := exec.LookPath("/usr/bin/" + name); err == nil {
			return path, nil
		}
	}
	return "", replicate.Errorf(replicate.Unavailable, "fusermount3 is not installed").WithHint(helperHint)
}

// helperError hands on what the helper said: AppArmor and others limit where it may mount.
func helperError(dir string, err error, text string) error {
	text = strings.TrimPrefix(strings.TrimSpace(text), "fusermount3: ")
	if text == "" {
		text = err.Error()
	}
	e := &replicate.Error{Op: "mount", Path: dir, Kind: replicate.Unavailable, Err: errors.New(text)}
	if strings.Contains(text, "failed to open /dev/fuse") {
		e.Kind, e.Hint = replicate.Permission, "let users open it: chmod 0666 /dev/fuse"
	}
	return e
}

// receiveFile reads the one descriptor that was sent over a socket.
func receiveFile(socket *os.File) (*os.File, error) {
	conn, err := net.FileConn(socket)
	if err != nil {
		return nil, fmt.Errorf("read from fusermount3: %w", err)
	}
	defer conn.Close()
	data, control := make([]byte, 4), make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.(*net.UnixConn).ReadMsgUnix(data, control)
	if err != nil {
		return nil, fmt.Errorf("read from fusermount3: %w", err)
	}
	messages, err := unix.ParseSocketControlMessage(control[:n])
	if err != nil || len(messages) != 1 {
		return nil, fmt.Errorf("fusermount3 sent %d messages: %w", len(messages), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("fusermount3 sent %d descriptors: %w", len(fds), err)
	}
	unix.CloseOnExec(fds[0])
	return os.NewFile(uintptr(fds[0]), fuseDevice), nil
}

// checkDir checks that a mount may be made at dir: an empty directory of ours that neither holds nor lies in what the server
// reads, since reading ourselves would block for ever.
func checkDir(dir string, avoid []string) error {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return replicate.Errorf(replicate.Usage, "no such directory").WithHint("mkdir %s", dir)
	case err != nil:
		return &replicate.Error{Kind: replicate.Usage, Err: unwrapPath(err)}
	case !info.IsDir():
		return replicate.Errorf(replicate.Usage, "not a directory")
	}
	if uid := os.Geteuid(); uid != 0 && info.Sys().(*syscall.Stat_t).Uid != uint32(uid) {
		return replicate.Errorf(replicate.Permission, "the directory belongs to somebody else").WithHint("mount on a directory of your own")
	}
	for _, a := range avoid {
		if a != "" && overlap(dir, resolve(a)) {
			return replicate.Errorf(replicate.Usage, "the mount would read itself: %s belongs to the repository", a).
				WithHint("choose a directory outside of it")
		}
	}
	names, err := readNames(dir)
	if err != nil {
		return &replicate.Error{Kind: replicate.KindOf(err), Err: unwrapPath(err)}
	}
	if len(names) > 0 {
		return replicate.Errorf(replicate.Usage, "the directory is not empty").WithHint("choose an empty one")
	}
	return nil
}

func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	names, err := f.Readdirnames(1)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return names, err
}

// overlap reports whether one of two directories lies in the other.
func overlap(a, b string) bool { return within(a, b) || within(b, a) }

func within(dir, path string) bool {
	return dir == path || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}

// resolve returns an absolute path without symlinks, as far as it exists. A mount point is recognised by its name: looking at
// it could fail, or hang.
func resolve(path string) string {
	path, err := filepath.Abs(path)
	if err != nil || path == "/" {
		return path
	}
	if parent, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(parent, filepath.Base(path))
	}
	if _, mounted, _ := mountAt(path); mounted {
		return path
	}
	if full, err := filepath.EvalSymlinks(path); err == nil {
		return full
	}
	return path
}

// unwrapPath takes the path off an error that will be wrapped with it.
func unwrapPath(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
