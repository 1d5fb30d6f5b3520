package job

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// become makes this process the job's user, for good, and the job's directory his: what the supervisor records the job's own library must be able
// to add to. Only a supervisor that runs as root can; any other stays who it is.
func become(dir string, spec Spec) error {
	if spec.UID == 0 || os.Geteuid() != 0 {
		return nil
	}
	if err := os.MkdirAll(homeDir(dir), 0o755); err != nil {
		return err
	}
	if err := give(dir, spec.UID, spec.GID); err != nil {
		return err
	}
	groups, err := os.Getgroups() // those that the container was given for its devices
	if err != nil {
		return err
	}
	groups = append(slices.DeleteFunc(groups, func(g int) bool { return g == 0 }), spec.GID)
	if err := errors.Join(syscall.Setgroups(groups), syscall.Setgid(spec.GID), syscall.Setuid(spec.UID)); err != nil {
		return fmt.Errorf("become user %d: %w", spec.UID, err)
	}
	return nil
}

// give makes everything below a directory a user's. Other file systems that are mounted there keep their owners: they are directories
// of the machine.
func give(dir string, uid, gid int) error {
	mounts := mountPoints()
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return gone(err)
		}
		if path != dir && mounts[path] {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return gone(err)
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) == uid && int(stat.Gid) == gid {
			return nil
		}
		return gone(os.Lchown(path, uid, gid))
	})
}

// gone makes nothing of the error that a file is not there any more, as the log is being tidied.
func gone(err error) error {
	if isMissing(err) {
		return nil
	}
	return err
}

// mountPoints returns where something is mounted.
func mountPoints() map[string]bool {
	points := map[string]bool{}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return points
	}
	defer f.Close()
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 4 {
			points[unescape.Replace(fields[4])] = true
		}
	}
	return points
}
