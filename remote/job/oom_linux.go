package job

import (
	"io/fs"
	"os"
	"path"
	"strconv"
	"strings"
)

// oomKills returns how many processes of this cgroup the kernel has killed for want of memory. Where that is not known it is 0.
func oomKills() int64 { return oomKillsBelow(os.DirFS("/")) }

// oomKillsBelow is oomKills of the files below root. A container may see its own cgroup as the root of the hierarchy, under a path that
// is not there.
func oomKillsBelow(root fs.FS) int64 {
	text, _ := fs.ReadFile(root, "proc/self/cgroup")
	for line := range strings.Lines(string(text)) { // hierarchy:controllers:path
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		mount, file := "sys/fs/cgroup", "memory.events" // version 2
		if parts[1] != "" {
			mount, file = "sys/fs/cgroup/memory", "memory.oom_control"
		}
		if parts[1] != "" && !strings.Contains(","+parts[1]+",", ",memory,") {
			continue
		}
		for _, dir := range []string{parts[2], "/"} {
			if n, ok := oomCount(root, path.Join(mount, dir, file)); ok {
				return n
			}
		}
	}
	return 0
}

func oomCount(root fs.FS, file string) (int64, bool) {
	text, err := fs.ReadFile(root, file)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == "oom_kill" {
			n, err := strconv.ParseInt(value, 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
