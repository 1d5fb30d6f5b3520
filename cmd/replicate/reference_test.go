package main

import (
	"flag"
	"fmt"
	"os"
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
	return b.String()
}
