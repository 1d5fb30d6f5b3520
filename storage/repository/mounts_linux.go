package repository

import (
	"os"
	"strings"
)

// mountType is the file system type of what `replicate mount` makes.
const mountType = "fuse.replicate"

// replicateMounts returns the mount points of replicate itself, which no snapshot enters: a repository must not hold itself.
func replicateMounts() map[string]bool {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	return parseMounts(string(text))
}

// parseMounts reads mountinfo: the fifth field is the mount point, and the first behind a lone "-" the type.
func parseMounts(text string) map[string]bool {
	mounts := map[string]bool{}
	for line := range strings.Lines(text) {
		left, right, ok := strings.Cut(line, " - ")
		if fields := strings.Fields(left); ok && len(fields) > 4 && strings.HasPrefix(right, mountType+" ") {
			mounts[unescapeMount(fields[4])] = true
		}
	}
	return mounts
}

// unescapeMount undoes the \ooo that stands for space, tab, line end and backslash.
func unescapeMount(s string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}
