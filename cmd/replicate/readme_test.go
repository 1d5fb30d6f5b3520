package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// TestReadme carries out the README's session in a copy of examples/iris and compares what is printed, but for ids, ages and
// the width of columns.
func TestReadme(t *testing.T) {
	require.Fuse(t)
	require.Program(t, "python3")
	require.Program(t, "jq")
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "iris")
	if out, err := exec.Command("cp", "-r", filepath.Join(root, "examples", "iris"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command(bin+"/replicate", "umount", dir+"/mnt").Run() })
	best := filepath.Join(t.TempDir(), "best")
	for _, step := range consoleSteps(t, filepath.Join(root, "README.md")) {
		cmd := exec.Command("sh", "-c", strings.ReplaceAll(step.command, "/tmp/best", best))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "PYTHONPATH="+root+"/python", "PYTHONDONTWRITEBYTECODE=1",
			"REPLICATE_BINARY="+bin+"/replicate", "XDG_CACHE_HOME="+bin+"/cache")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Fatalf("$ %s\n%s%v", step.command, out.String(), err)
		}
		if got, want := plain(out.String()), plain(step.output); got != want {
			t.Errorf("$ %s\n%s\nREADME.md says:\n%s", step.command, out.String(), step.output)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#]+)\)|` + "`((?:fs|index|storage|cmd|python|docs)/[a-z_/]+[.](?:go|md))`")

// TestLinks fails for a document that names a file of the source that is not there.
func TestLinks(t *testing.T) {
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range append(documents, "../../README.md") {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			target := filepath.Join(filepath.Dir(document), m[1])
			if m[1] == "" {
				target = filepath.Join("../..", m[2])
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: %v", document, err)
			}
		}
	}
}

type consoleStep struct{ command, output string }

// consoleSteps reads the console block of a Markdown file: "$ " begins a command, what follows is its output.
func consoleSteps(t *testing.T, file string) []consoleStep {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "```console\n")
	block, _, ok := strings.Cut(block, "```")
	if !ok {
		t.Fatalf("%s has no console block", file)
	}
	var steps []consoleStep
	for line := range strings.Lines(block) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			steps = append(steps, consoleStep{command: strings.TrimSpace(command)})
		} else {
			steps[len(steps)-1].output += line
		}
	}
	return steps
}

var (
	anyID  = regexp.MustCompile(`\b[0-9a-f]{7}\b`)
	anyAge = regexp.MustCompile(`\b(\d+ (second|minute)s? ago|now)\b`)
	lasts  = regexp.MustCompile(`after \d+ s`)
	spaces = regexp.MustCompile(` +`)
)

// plain leaves out what differs from run to run.
func plain(text string) string {
	text = anyID.ReplaceAllString(text, "ID")
	text = anyAge.ReplaceAllString(text, "AGO")
	text = lasts.ReplaceAllString(text, "after N s")
	return strings.TrimSpace(spaces.ReplaceAllString(text, " "))
}
