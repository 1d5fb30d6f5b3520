package storagetest

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// Syncs runs a test of the calling binary by itself, with arguments, and returns what it did to names and durability below the folder top, in order: "sync PATH",
// "mkdir PATH", "name PATH", with paths relative to top.
func Syncs(t *testing.T, top, test string, args ...string) []string {
	t.Helper()
	strace := require.Program(t, "strace")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.Command(strace, append([]string{"-f", "-y", "-qq", "-s", "500", "-o", trace, "-e", "trace=fsync,fdatasync,/rename,/link,/mkdir",
		self, "-test.run", "^" + test + "$"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		require.Missing(t, "the right to trace: "+string(out))
	}
	data, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	return syncs(string(data), top)
}

// syncs returns the successful calls of a trace that have to do with paths below top.
func syncs(trace, top string) []string {
	call := regexp.MustCompile(`(f\w*sync|mkdir|rename|link)\w*\((.*)\) += 0`)
	path := regexp.MustCompile(regexp.QuoteMeta(top) + `(?:/([\w./-]*))?[">]`)
	var list []string
	for _, m := range call.FindAllStringSubmatch(joined(trace), -1) {
		paths := path.FindAllStringSubmatch(m[2], -1)
		if len(paths) == 0 || m[1] == "link" && len(paths) == 1 { // unlink
			continue
		}
		verb := map[string]string{"mkdir": "mkdir", "rename": "name", "link": "name"}[m[1]]
		list = append(list, cmp.Or(verb, "sync")+" "+cmp.Or(paths[len(paths)-1][1], "."))
	}
	return list
}

// joined puts calls that strace wrote in two lines, as another thread was heard in between, into one, where they ended.
func joined(trace string) string {
	var lines []string
	begun := map[string]string{}
	for line := range strings.Lines(trace) {
		pid, _, _ := strings.Cut(line, " ")
		if head, ok := strings.CutSuffix(line, " <unfinished ...>\n"); ok {
			begun[pid] = head
			continue
		}
		if _, tail, ok := strings.Cut(line, " resumed>"); ok && strings.Contains(line, "<... ") {
			line = begun[pid] + tail
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "")
}
