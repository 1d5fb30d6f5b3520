package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// typed is a command in a document: in backticks, or on a line of a session.
var typed = regexp.MustCompile("(?m)(?:`|^ {4}(?:\\$ )?|&& )replicate ([a-z]+)((?: [^`\n|#&>;$]+)?)")

// TestDocumentsNameWhatExists fails for a command or a flag in a document that the program does not have.
func TestDocumentsNameWhatExists(t *testing.T) {
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	all := commands(newWorld())
	seen := 0
	for _, document := range append(documents, "../../README.md") {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range typed.FindAllStringSubmatch(string(text), -1) {
			seen++
			i := slices.IndexFunc(all, func(c *cli.Command) bool { return c.HasName(found[1]) })
			if i < 0 {
				t.Errorf("%s: there is no command %s", filepath.Base(document), found[1])
				continue
			}
			words, _, _ := strings.Cut(found[2], "   ") // behind it stands what it does
			if flag := unknownFlag(all[i], strings.Fields(words)); flag != "" {
				t.Errorf("%s: %s has no flag %s: %s", filepath.Base(document), found[1], flag, found[0])
			}
		}
	}
	if seen < 50 {
		t.Errorf("%d commands were found", seen)
	}
}

// unknownFlag returns the first flag that a command does not have. What stands behind the first other word of run is somebody else's.
func unknownFlag(c *cli.Command, words []string) string {
	value := false // the word belongs to the flag before
	for _, word := range words {
		switch {
		case value:
			value = false
		case word == "--":
			return ""
		case strings.HasPrefix(word, "-") && len(word) > 1:
			name, _, given := strings.Cut(strings.TrimLeft(word, "-"), "=")
			i := slices.IndexFunc(c.Flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
			if name == "h" || name == "help" {
				continue
			}
			if i < 0 {
				return word
			}
			_, isBool := c.Flags[i].(*cli.BoolFlag)
			value = !isBool && !given
		case c.Name == runName:
			return ""
		}
	}
	return ""
}
