// Command replicate records, lists, mounts and copies out machine-learning experiments.
//
// Each subcommand is one file, which begins with its help text. ui.go has the rules of output, world.go what a command knows
// of the process around it. The command knows no format and no protocol: it asks the packages below it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
)

func main() { os.Exit(run(newWorld(), os.Args[1:])) }

// commands lists every subcommand in the order of the help.
func commands(w *world) []*cli.Command {
	return []*cli.Command{
		lsCommand(w),
		psCommand(w),
		showCommand(w),
		diffCommand(w),
		checkoutCommand(w),
		catCommand(w),
		checkCommand(w),
		copyCommand(w),
		exportCommand(w),
		rmCommand(w),
		gcCommand(w),
		duCommand(w),
		tagCommand(w),
		noteCommand(w),
		mountCommand(w),
		umountCommand(w),
		initCommand(w),
		logCommand(w),
		commitCommand(w),
		stopCommand(w),
		runCommand(w),
		attachCommand(w),
		logsCommand(w),
		pullCommand(w),
		pruneCommand(w),
		uploadCommand(w),
		recordCommand(w),
		completionCommand(w),
		versionCommand(w),
		mountProcessCommand(w),
		uploaderCommand(w),
		mergerCommand(w),
		superviseCommand(w),
		completeCommand(w),
	}
}

// run carries out one command line and returns its exit code.
func run(w *world, args []string) int {
	app := newApp(w)
	args = flagsFirst(app.Commands, args)
	err := app.RunContext(context.Background(), append([]string{"replicate"}, args...))
	return w.exit(err)
}

func newApp(w *world) *cli.App {
	cli.FlagStringer = flagLine
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Usage: "print the version"}
	cli.VersionPrinter = func(*cli.Context) { printVersion(w) }
	app := &cli.App{
		Name:                      "replicate",
		Usage:                     "experiments as a file system",
		Commands:                  commands(w),
		Reader:                    w.stdin,
		Writer:                    w.stdout,
		ErrWriter:                 w.stderr,
		Version:                   replicate.Version,
		UseShortOptionHandling:    true, // -qs x
		DisableSliceFlagSeparator: true, // -f "x in (a, b)" is one filter
		OnUsageError:              usageError,
		ExitErrHandler:            func(*cli.Context, error) {}, // run decides
		Action: func(c *cli.Context) error {
			if c.NArg() == 0 {
				return cli.ShowAppHelp(c)
			}
			return unknownCommand(c.App.Commands, c.Args().First())
		},
	}
	for _, command := range app.Commands {
		command.OnUsageError = usageError
		command.UseShortOptionHandling = true
		command.HideHelpCommand = true
	}
	return app
}

// flagLine is how the help shows a flag: its names, short ones first, a word for its value, and what it does. The library's own
// line repeats the word for each name and tells the default of every switch.
func flagLine(f cli.Flag) string {
	documented, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return ""
	}
	return strings.TrimSpace(flagNames(documented)+" "+flagValue(documented)) + "\t" + strings.ReplaceAll(documented.GetUsage(), "`", "")
}

func flagNames(f cli.DocGenerationFlag) string {
	var short, long []string
	for _, name := range f.(cli.Flag).Names() {
		if len(name) == 1 {
			short = append(short, "-"+name)
		} else {
			long = append(long, "--"+name)
		}
	}
	return strings.Join(append(short, long...), ", ")
}

// flagValue is the word in backquotes of a flag's usage, which stands for its value.
func flagValue(f cli.DocGenerationFlag) string {
	_, rest, _ := strings.Cut(f.GetUsage(), "`")
	word, _, closed := strings.Cut(rest, "`")
	if !f.TakesValue() || !closed {
		return ""
	}
	return word
}

// usageError replaces the library's answer to a bad flag, which is the whole help on stdout.
func usageError(c *cli.Context, err error, _ bool) error {
	text := strings.TrimPrefix(err.Error(), "flag ")
	near := ""
	if name, ok := strings.CutPrefix(text, "provided but not defined: "); ok { // the library drops one dash of two
		name = strings.TrimLeft(name, "-")
		if len(name) > 1 {
			name = "-" + name
			near = nearestFlag(c, name)
		}
		text = "unknown flag -" + name
	}
	e := replicate.Errorf(replicate.Usage, "%s", text)
	if c.Command != nil && c.Command.Name != "" && c.Command.Name != "replicate" {
		e.Op = c.Command.Name
		if near != "" {
			return e.WithHint("did you mean -%s?", near)
		}
		return e.WithHint("replicate %s -h lists the flags", c.Command.Name)
	}
	return e.WithHint("replicate -h lists the commands")
}

// nearestFlag returns the long flag of a command that was probably meant, with one dash; "" if none is near.
func nearestFlag(c *cli.Context, name string) string {
	if c.Command == nil {
		return ""
	}
	var names []string
	for _, f := range c.Command.Flags {
		for _, n := range f.Names() {
			if len(n) > 1 {
				names = append(names, "-"+n)
			}
		}
	}
	return replicate.Nearest(name, names)
}

func unknownCommand(commands []*cli.Command, name string) error {
	var names []string
	for _, c := range commands {
		if !c.Hidden {
			names = append(names, c.Names()...)
		}
	}
	e := replicate.Errorf(replicate.Usage, "unknown command %q", name)
	if near := replicate.Nearest(name, names); near != "" {
		return e.WithHint("did you mean %q?", near)
	}
	return e.WithHint("replicate -h lists the commands")
}

// flagsFirst moves the flags of a subcommand before its arguments, because the library stops reading flags at the first
// argument. Everything behind "--" stays as it is, with the "--".
func flagsFirst(commands []*cli.Command, args []string) []string {
	if len(args) == 0 {
		return args
	}
	i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(args[0]) })
	if i < 0 || commands[i].SkipFlagParsing || len(commands[i].Subcommands) > 0 {
		return args
	}
	command := commands[i]
	flags := []string{args[0]}
	var rest []string
	for args = args[1:]; len(args) > 0; args = args[1:] {
		arg := args[0]
		switch {
		case arg == "--":
			rest = append(rest, args...)
			args = args[:1]
		case len(arg) > 1 && arg[0] == '-' && !isNumber(arg):
			flags = append(flags, arg)
			if !takesValue(command, arg) {
				break
			}
			if len(args) == 1 { // "--" must not become its value
				return flags
			}
			flags = append(flags, args[1])
			args = args[1:]
		case command.Name == runName: // the flags of the command that it runs are not ours
			return append(append(flags, "--"), args...)
		default:
			rest = append(rest, arg)
		}
	}
	return append(append(flags, "--"), rest...)
}

func isNumber(arg string) bool { return arg[1] >= '0' && arg[1] <= '9' }

// takesValue reports whether a flag as typed (-o, --output, -qs) expects the next argument as its value.
func takesValue(command *cli.Command, arg string) bool {
	name := strings.TrimLeft(arg, "-")
	if strings.Contains(name, "=") {
		return false
	}
	flag := findFlag(command, name)
	if flag == nil && !strings.HasPrefix(arg, "--") { // several short ones: the last decides
		flag = findFlag(command, name[len(name)-1:])
	}
	documented, ok := flag.(cli.DocGenerationFlag)
	return ok && documented.TakesValue()
}

func findFlag(command *cli.Command, name string) cli.Flag {
	for _, flag := range command.Flags {
		if slices.Contains(flag.Names(), name) {
			return flag
		}
	}
	return nil
}

// Exit codes of every command but run and attach, which return the job's own.
const (
	exitError     = 1
	exitUsage     = 2
	exitNotFound  = 3
	exitAmbiguous = 4
)

// An exitCode ends the command with a code and prints nothing more.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// exit prints an error as people see it and returns the code for it.
func (w *world) exit(err error) int {
	switch {
	case err == nil && w.warned:
		return exitError
	case err == nil:
		return 0
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	w.report("error", err)
	switch replicate.KindOf(err) {
	case replicate.Usage:
		return exitUsage
	case replicate.NotFound:
		return exitNotFound
	case replicate.Ambiguous:
		return exitAmbiguous
	}
	return exitError
}

func versionCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "version",
		Usage:       "print the version",
		Description: "Prints the version of the command.",
		Action:      func(*cli.Context) error { return printVersion(w) },
	}
}

func printVersion(w *world) error {
	_, err := io.WriteString(w.stdout, "replicate "+replicate.Version+"\n")
	return err
}
