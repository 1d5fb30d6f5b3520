package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// TestTutorial follows docs/tutorial.md with the script of 2020, which runs as it was.
func TestTutorial(t *testing.T) {
	l := newLab(t)
	if _, _, code := l.try(python(t), "-c", "import torch, sklearn, pandas"); code != 0 {
		require.Missing(t, "torch, sklearn and pandas for "+python(t))
	}
	example := filepath.Join(source, "examples", "2020")
	l.must(os.CopyFS(l.dir, os.DirFS(example)))
	for _, args := range []string{"--learning_rate=0.01", "--learning_rate=0.2"} {
		out := l.run(python(t), "train.py", args)
		if !strings.Contains(out, "Epoch 99, train loss: ") {
			t.Fatal(out)
		}
	}
	list := l.list()
	if len(list) != 2 || list[0].NumCommits != 100 || list[1].NumCommits != 100 {
		t.Fatalf("%+v", list)
	}
	a, b := list[0].ID, list[1].ID

	commit, metric := `[0-9a-f]{7} \(step \d+\) +`, `\d\.\d+(e-\d+)?`
	l.prints(`^EXPERIMENT +STARTED +STATUS +LEARNING_RATE +LATEST COMMIT +LOSS +BEST COMMIT +LOSS\n`+
		a[:7]+` +(now|\d+ (second|minute)s? ago) +finished +0\.01 +`+commit+metric+` +`+commit+metric+`\n`+
		b[:7]+` +(now|\d+ (second|minute)s? ago) +finished +0\.2 +`+commit+metric+` +`+commit+metric+`\n$`, "ls")
	l.prints(`^`+a+`\n$`, "ls", "-q", "-f", "learning_rate < 0.1", "-s", "loss.best")
	l.prints(`(?s)^Experiment: `+a+`\n.*\nStatus: +finished after .*\nCommand: +\S*python3 train.py --learning_rate=0.01\n.*`+
		`\nParams\nlearning_rate: +0\.01\nnum_epochs: +100\n\nCommits\nID +STEP +CREATED +ACCURACY +LOSS\n.* \(best\)`, "show", a[:7])
	l.prints(`(?s)^Commit: .*\nExperiment: +`+a[:7]+` +`+b[:7]+`\n\nParams\nlearning_rate: +0\.01 +0\.2\n\nMetrics\n.*loss: +`+metric+` +`+metric+
		`\n.*\nPackages\n\(no difference\)\n\nFiles\nmodel.pth: `, "diff", a[:7], b[:7])
	l.prints(`^binary a/model.pth b/model.pth differ `, "diff", a+"@0", b+"@0", "--", "model.pth")

	l.run("rm", "model.pth")
	l.replicate("checkout", a[:7])
	l.run(python(t), "-c", `import torch; torch.load("model.pth")`)
	if _, stderr, code := l.try(binary, "checkout", b[:7]); code != 1 || !strings.Contains(stderr, "model.pth") {
		t.Errorf("a checkout that replaces something: exit code %d\n%s", code, stderr)
	}
	l.replicate("checkout", "-o", filepath.Join(l.home, "out"), "--path", "model.pth", b[:7])
	l.run("cmp", "--", filepath.Join(l.home, "out", "model.pth"), filepath.Join(l.mount(), "experiments", b[:7], "best", "model.pth"))

	mnt := l.mount()
	l.run("sh", "-ec", fmt.Sprintf(`cd %s
		test "$(ls experiments | wc -l)" = 2
		! diff -r experiments/%[2]s/commits/00000000-* experiments/%[2]s/best/
		cp -r experiments/%[2]s/best/ %[3]s/best
		test "$(grep -l 'learning_rate=0.2' experiments/*/experiment.json)" = experiments/%[4]s/experiment.json
		test "$(wc -l <latest/metrics.csv)" = 101`, mnt, a[:7], l.home, b[:7]))
	l.run(python(t), "-c", `
import sys, pandas, replicate, torch
table = pandas.read_csv(sys.argv[1] + "/experiments.csv")
assert list(table["learning_rate"]) == [0.01, 0.2], table
best = replicate.experiments.list(filter="learning_rate < 0.1", sort="loss.best")[0].best
assert torch.load(best.open("model.pth"))(torch.zeros(1, 4)).shape == (1, 3)
assert len(replicate.experiments.list().to_dataframe()) == 2
`, mnt)
}

// prints checks what a command prints.
func (l *lab) prints(pattern string, args ...string) {
	l.t.Helper()
	if out := l.replicate(args...); !regexp.MustCompile(pattern).MatchString(out) {
		l.t.Errorf("replicate %s printed\n%s\nwhich is not %s", strings.Join(args, " "), out, pattern)
	}
}
