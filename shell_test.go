package replicate

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	if got := CommandLine([]string{"train.py", "--lr=0.1", "train/acc", "ß"}); got != "train.py --lr=0.1 train/acc ß" {
		t.Errorf("quotes what needs none: %s", got)
	}
	args := []string{"", "two words", "a'b", `"`, `\`, "$HOME", "`id`", "a!b", "*", "?[x]", "{1,2}", "(", "<a>", "x|y&z;", "~", "#", "line\nline", "\x01"}
	out, err := exec.Command("/bin/sh", "-c", `printf '%s\0' `+CommandLine(args)).Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00"); !slices.Equal(got, args) {
		t.Errorf("a shell takes %q for %q", args, got)
	}
}
