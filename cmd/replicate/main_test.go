package main

import (
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/urfave/cli/v2"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"replicate": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("REPLICATE_UPDATE_SCRIPTS") != "",
	})
}

func TestFlagsFirst(t *testing.T) {
	commands := []*cli.Command{{Name: "x", Flags: []cli.Flag{
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}},
		&cli.StringFlag{Name: "sort", Aliases: []string{"s"}},
	}}}
	for _, tt := range []struct{ name, in, want string }{
		{"value behind", "x ID -s a", "x -s a -- ID"},
		{"bool takes nothing", "x -q ID", "x -q -- ID"},
		{"joined", "x ID --sort=a b", "x --sort=a -- ID b"},
		{"several short", "x ID -qs a", "x -qs a -- ID"},
		{"separator kept", "x ID -q -- -s a", "x -q -- ID -- -s a"},
		{"negative number", "x lr=1 -1", "x -- lr=1 -1"},
		{"unknown command", "y ID -q", "y ID -q"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(flagsFirst(commands, strings.Fields(tt.in)), " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}
