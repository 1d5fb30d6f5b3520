package fs

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// holders finds the processes that use a mount, as far as they may be seen. It reads only /proc: a stat of anything in the mount
// could hang.
func holders(m mountEntry) []Holder {
	var found []Holder
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, proc := range procs {
		if what := use(proc, m); what != "" {
			pid, _ := strconv.Atoi(filepath.Base(proc))
			comm, _ := os.ReadFile(proc + "/comm")
			found = append(found, Holder{PID: pid, Command: string(bytes.TrimSpace(comm)), What: what})
		}
	}
	return found
}

// use says how a process uses a mount, "" if it does not.
func use(proc string, m mountEntry) string {
	for link, what := range map[string]string{"cwd": "working directory", "root": "root directory"} {
		target, err := os.Readlink(proc + "/" + link)
		if err == nil && (target == m.dir || strings.HasPrefix(target, m.dir+"/")) {
			return what
		}
	}
	id := []byte(fmt.Sprintf("mnt_id:\t%d\n", m.id))
	fds, _ := filepath.Glob(proc + "/fdinfo/*")
	for _, fd := range fds {
		if info, err := os.ReadFile(fd); err == nil && bytes.Contains(info, id) {
			return "open file"
		}
	}
	device := fmt.Appendf(nil, " 00:%02x ", m.minor)
	if maps, err := os.ReadFile(proc + "/maps"); err == nil && bytes.Contains(maps, device) {
		return "mapping"
	}
	return ""
}
