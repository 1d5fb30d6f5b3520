package fs

import (
	"bufio"
	"os"
	"strconv"
	"strings"

	"github.com/replicate/replicate"
)

// fsType is the subtype: mounts show as fuse.replicate, and snapshots do not descend into those.
const fsType = "replicate"

// A mountEntry is one line of the kernel's table of mounts.
type mountEntry struct {
	id     int // mnt_id
	device string
	minor  uint32 // also the number of a FUSE connection
	dir    string
	fs     string // type with subtype
	source string
}

// mountTable returns the mounts that this process sees. It touches none of them.
func mountTable() ([]mountEntry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, &replicate.Error{Op: "read the mount table", Kind: replicate.Internal, Err: err}
	}
	defer f.Close()
	var table []mountEntry
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if m, ok := parseMount(lines.Text()); ok {
			table = append(table, m)
		}
	}
	return table, lines.Err()
}

// parseMount reads `36 35 0:57 / /mnt/x ro,noatime - fuse.replicate file:///data ro,user_id=0`.
func parseMount(line string) (mountEntry, bool) {
	before, after, ok := strings.Cut(line, " - ")
	head, tail := strings.Fields(before), strings.Fields(after)
	if !ok || len(head) < 5 || len(tail) < 2 {
		return mountEntry{}, false
	}
	id, err := strconv.Atoi(head[0])
	_, minorText, _ := strings.Cut(head[2], ":")
	minor, err2 := strconv.ParseUint(minorText, 10, 32)
	if err != nil || err2 != nil {
		return mountEntry{}, false
	}
	return mountEntry{
		id: id, device: head[2], minor: uint32(minor),
		dir: unescapeOctal(head[4]), fs: tail[0], source: unescapeOctal(tail[1]),
	}, true
}

// unescapeOctal undoes \040 and its kin.
func unescapeOctal(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// mountAt returns the topmost mount at a directory, whatever its type.
func mountAt(dir string) (m mountEntry, ok bool, err error) {
	table, err := mountTable()
	for _, e := range table {
		if e.dir == dir {
			m, ok = e, true // later lines lie on top
		}
	}
	return m, ok, err
}

// ours reports whether a mount is one of this program.
func (m mountEntry) ours() bool { return m.fs == "fuse."+fsType }
