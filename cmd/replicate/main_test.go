package main

import (
	"errors"
	"maps"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/urfave/cli/v2"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"replicate": func() {
		w := newWorld()
		if text := os.Getenv("REPLICATE_TEST_NOW"); text != "" { // only test binaries read it
			now, err := time.Parse(time.RFC3339, text)
			if err != nil {
				panic(err)
			}
			w.now = func() time.Time { return now }
		}
		os.Exit(run(w, os.Args[1:]))
	}})
}

func TestScripts(t *testing.T) { runScripts(t, "testdata/script", nil) }

// runScripts runs the scripts of a folder, which may use more commands.
func runScripts(t *testing.T, dir string, more map[string]func(*testscript.TestScript, bool, []string)) {
	commands := map[string]func(*testscript.TestScript, bool, []string){"exits": exits, "fixture": fixture, "legacy": legacyFixture}
	maps.Copy(commands, more)
	testscript.Run(t, testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("REPLICATE_UPDATE_SCRIPTS") != "",
		Setup: func(env *testscript.Env) error {
			env.Setenv("TZ", "UTC")
			env.Setenv("HOME", env.WorkDir+"/home")
			env.Defer(func() { _ = exec.Command("fusermount3", "-uz", env.WorkDir+"/mnt").Run() }) // what a failed script left
			return os.MkdirAll(env.WorkDir+"/home", 0o755)
		},
		Cmds: commands,
	})
}

// exits CODE COMMAND ARG... runs a command that must end with an exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
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
