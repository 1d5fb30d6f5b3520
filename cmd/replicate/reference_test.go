package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

var update = flag.Bool("update", false, "rewrite docs/cli.md")

const reference = "../../docs/cli.md"

// TestReference keeps docs/cli.md equal to the help texts. `go test ./cmd/replicate -run TestReference -update` rewrites it.
func TestReference(t *testing.T) {
	want := referenceText(commands(newWorld()))
	if *update {
		if err := os.WriteFile(reference, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(reference)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Errorf("docs/cli.md is not what the commands say; run go test ./cmd/replicate -run TestReference -update")
	}
}

// TestHelpIsComplete fails for a command that a reader of the help could not use.
func TestHelpIsComplete(t *testing.T) {
	for _, c := range commands(newWorld()) {
		if c.Hidden {
			continue
		}
		if c.Usage == "" || c.Description == "" {
			t.Errorf("%s: no usage or no description", c.Name)
		}
		for _, f := range c.Flags {
			if d, ok := f.(cli.DocGenerationFlag); !ok || d.GetUsage() == "" {
				t.Errorf("%s: flag %s has no usage", c.Name, f.Names()[0])
			}
		}
	}
}

func referenceText(commands []*cli.Command) string {
	var b strings.Builder
	b.WriteString(`# Command line

Made from the help texts of the commands. Flags may stand anywhere before "--".

An ID is a unique prefix of an experiment or a commit, or an exact name; ` + "`EXP@best`, `EXP@latest`, `EXP@12`" + ` (its commit of
step 12) and ` + "`@latest`" + ` (the newest experiment) work too. Where a commit is needed, an experiment stands for its best commit, else its latest.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | error, or something damaged was left out |
| 2 | wrong usage |
| 3 | not found |
| 4 | ambiguous id |
`)
	for _, c := range commands {
		if c.Hidden {
			continue
		}
		fmt.Fprintf(&b, "\n## replicate %s\n\n", strings.TrimSpace(c.Name+" "+c.ArgsUsage))
		if len(c.Aliases) > 0 {
			fmt.Fprintf(&b, "Also `%s`. ", strings.Join(c.Aliases, "`, `"))
		}
		fmt.Fprintf(&b, "%s\n", strings.TrimSpace(c.Description))
		if len(c.Flags) > 0 {
			b.WriteString("\n| flag | meaning |\n|---|---|\n")
		}
		for _, f := range c.Flags {
			names, usage, _ := strings.Cut(flagLine(f), "\t")
			fmt.Fprintf(&b, "| `%s` | %s |\n", names, strings.ReplaceAll(usage, "|", "\\|"))
		}
	}
	b.WriteString("\n## Environment variables\n\n| variable | meaning |\n|---|---|\n")
	for _, v := range variables {
		fmt.Fprintf(&b, "| `%s` | %s |\n", v.name, v.meaning)
	}
	b.WriteString("\nThose of ssh (`SSH_AUTH_SOCK`), of Amazon and Google (`AWS_PROFILE`, `GOOGLE_APPLICATION_CREDENTIALS`, …), of pip (`PIP_INDEX_URL`, `PIP_EXTRA_INDEX_URL`),\n" +
		"`EDITOR` and `XDG_CACHE_HOME` mean here what they mean elsewhere. What goes to another machine is what `env:` and `--env` name, the credentials of a bucket, and those of pip's index.\n")
	return b.String()
}

// TestVariablesAreDocumented fails for a variable that the sources know and people are not told of, and for one that nothing knows.
func TestVariablesAreDocumented(t *testing.T) {
	inside := map[string]bool{"REPLICATE_GOOGLE_CREDENTIALS": true, "REPLICATE_NETRC": true, "REPLICATE_UPLOADER": true}
	known := map[string]bool{}
	name := regexp.MustCompile(`\bREPLICATE_[A-Z_]*[A-Z]\b`)
	for _, dir := range []string{"cmd/replicate", "fs", "index", "python/replicate", "remote", "storage"} {
		err := filepath.WalkDir(filepath.Join("../..", dir), func(path string, d os.DirEntry, err error) error {
			source := strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") || strings.HasSuffix(path, ".py")
			if err != nil || !source {
				return err
			}
			text, err := os.ReadFile(path)
			for _, found := range name.FindAllString(string(text), -1) {
				known[found] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range variables {
		if !known[v.name] {
			t.Errorf("%s is documented, and nothing reads or sets it", v.name)
		}
		delete(known, v.name)
	}
	forTests := regexp.MustCompile("^REPLICATE_(TEST|SIM|TORTURE|UPDATE)")
	for found := range known {
		if !inside[found] && !forTests.MatchString(found) {
			t.Errorf("%s is not documented", found)
		}
	}
}
