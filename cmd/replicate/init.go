package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
	"github.com/replicate/replicate/storage/repository"
)

const initHelp = `Begins an experiment for programs that are not Python. The recommended way wraps a command:

    replicate init --name trial lr=0.1 optimizer.name=adam -- ./train.sh --lr 0.1

The command runs as it would without; what it changed in the project is committed when it ends, and the
exit code is its own. In it, replicate log and replicate commit record into the experiment, and so does a
Python program that calls replicate.init().

Without a command, init prints the id of the experiment, which ends as crashed with the calling shell unless
replicate stop came first:

    export REPLICATE_EXPERIMENT_ID=$(replicate init lr=0.1)
    replicate log step=1 loss=0.31
    replicate commit step=1 loss=0.31 -m "after warm-up"
    replicate stop

A value is a number, true, false, null, nan, inf or -inf if it reads as one, else text.`

func initCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "init",
		Usage:       "begin an experiment, around a command or step by step",
		ArgsUsage:   "[NAME=VALUE...] [-- COMMAND [ARG...]]",
		Description: initHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "call the experiment `NAME`"},
			&cli.StringSliceFlag{Name: "tag", Usage: "give it the tag `NAME` (repeatable)"},
			&cli.StringSliceFlag{Name: "path", Usage: "commits save `PATH`, not all of the project (repeatable)"},
			&cli.StringFlag{Name: "metric", Usage: "the primary metric and its goal: `NAME=minimize` or NAME=maximize"},
			&cli.StringFlag{Name: "resume", Usage: "go on with the experiment `ID`"},
			&cli.StringFlag{Name: "parent", Usage: "it starts from the commit `ID`, not from the one checked out last"},
			&cli.IntFlag{Name: "pid", Usage: "it ends with the process `PID`, not with the calling one"},
			createFlag(),
		}, storageFlags()...),
		Action: func(c *cli.Context) error { return w.init(c) },
	}
}

func (w *world) init(c *cli.Context) error {
	args := c.Args().Slice()
	var command []string
	if i := slices.Index(args, "--"); i >= 0 {
		args, command = args[:i], args[i+1:]
		if len(command) == 0 {
			return replicate.Errorf(replicate.Usage, `no command behind "--"`)
		}
	}
	request, err := w.initRequest(c, args, command)
	if err != nil {
		return err
	}
	p, err := w.project(c)
	if err != nil {
		return err
	}
	if err := w.ensureBucket(c, p.StorageURL); err != nil {
		return err
	}
	r, err := w.startRecorder(c)
	if err != nil {
		return err
	}
	if command != nil {
		return w.wrap(r, request, command)
	}
	pid := c.Int("pid")
	if pid == 0 {
		pid = callingShell()
	}
	id, err := w.begin(r, request, pid, true)
	if err != nil {
		return err
	}
	_, err = w.stdout.Write([]byte(string(id) + "\n"))
	return err
}

// initRequest makes the request of the line protocol from flags and arguments.
func (w *world) initRequest(c *cli.Context, args, command []string) (map[string]any, error) {
	params, err := assignments(args)
	if err != nil {
		return nil, err
	}
	request := map[string]any{
		"params": nested(params), "name": c.String("name"), "tags": c.StringSlice("tag"), "parent": c.String("parent"),
		"cwd": w.dir, "argv": command,
	}
	if dir := c.String("source-directory"); dir != "" {
		request["cwd"] = w.abs(dir)
	}
	if id := c.String("resume"); id != "" {
		request["resume"] = id
	}
	if c.IsSet("path") {
		paths := []string{}
		for _, path := range c.StringSlice("path") {
			if path != "" {
				paths = append(paths, w.abs(path))
			}
		}
		request["path"] = paths
	}
	if metric := c.String("metric"); metric != "" {
		name, goal, ok := strings.Cut(metric, "=")
		if !ok || name == "" {
			return nil, replicate.Errorf(replicate.Usage, "metric %q has no goal", metric).WithHint("--metric %s=minimize", metric)
		}
		request["metric"] = []string{name, goal}
	}
	return request, nil
}

// A recorderProcess is a recorder that this command started.
type recorderProcess struct {
	*recorder.Client
	env []string // what its storage is called in the environment of a wrapped command
}

// startRecorder starts a recorder that outlives this command.
func (w *world) startRecorder(c *cli.Context) (*recorderProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r := &recorderProcess{}
	args := []string{"record"}
	if flag := c.String("storage-url"); flag != "" {
		url, err := project.URL(flag, w.dir)
		if err != nil {
			return nil, err
		}
		args = append(args, "-S", url)
		r.env = []string{"REPLICATE_STORAGE=" + url}
	}
	process := exec.Command(self, args...)
	process.Args[0] = "replicate"
	process.Env = slices.DeleteFunc(w.environ(), func(pair string) bool { // who asks for a new experiment takes part in no other
		return strings.HasPrefix(pair, joinVariable+"=")
	})
	in, err := process.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := process.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := process.Start(); err != nil {
		return nil, err
	}
	r.Client = recorder.NewClient(in, out, w.tell)
	return r, nil
}

// begin starts the experiment. It ends with the process pid; detached means that the recorder goes on without this command.
func (w *world) begin(r *recorderProcess, request map[string]any, pid int, detached bool) (replicate.ID, error) {
	hello := map[string]any{"protocol": recorder.Protocol, "client": "replicate " + replicate.Version, "pid": pid, "detached": detached}
	if err := r.Call("hello", hello, nil); err != nil {
		return "", err
	}
	var begun struct {
		Experiment replicate.ID         `json:"experiment"`
		Resumed    bool                 `json:"resumed"`
		Files      int64                `json:"files"`
		Bytes      int64                `json:"bytes"`
		LeftOut    []repository.LeftOut `json:"left_out"`
	}
	if err := r.Call("init", request, &begun); err != nil {
		return "", err
	}
	text := "experiment " + begun.Experiment.Short() + ", " + plural(begun.Files, "file") + " (" + size(begun.Bytes) + ") saved"
	if begun.Resumed {
		text = "experiment " + begun.Experiment.Short() + " goes on"
	}
	w.tell(recorder.Remark{Note: text + leftOut(begun.LeftOut)})
	return begun.Experiment, nil
}

// shownLeftOut is how many of the paths that were not saved the first line names.
const shownLeftOut = 3

// leftOut says what was not saved: "; left out data/ (3.1 GB, .gitignore) and .env (secret)".
func leftOut(left []repository.LeftOut) string {
	var parts []string
	for _, l := range left[:min(len(left), shownLeftOut)] {
		why, _, _ := strings.Cut(l.Why, ":")
		if l.Bytes >= 1000 {
			more := ""
			if l.More {
				more = "more than "
			}
			why = more + size(l.Bytes) + ", " + why
		}
		parts = append(parts, l.Path+" ("+why+")")
	}
	if more := len(left) - len(parts); more > 0 {
		parts = append(parts, plural(int64(more), "other"))
	}
	switch n := len(parts); n {
	case 0:
		return ""
	case 1:
		return "; left out " + parts[0]
	default:
		return "; left out " + strings.Join(parts[:n-1], ", ") + " and " + parts[n-1]
	}
}

// wrap runs a command inside an experiment and returns its exit code as an error.
func (w *world) wrap(r *recorderProcess, request map[string]any, command []string) error {
	start := w.now()
	id, err := w.begin(r, request, os.Getpid(), false)
	if err != nil {
		return err
	}
	process := exec.Command(command[0], command[1:]...)
	process.Stdin, process.Stdout, process.Stderr = os.Stdin, os.Stdout, os.Stderr
	process.Env = append(append(w.environ(), r.env...), joinVariable+"="+string(id))
	e := runWrapped(context.Background(), process)
	if e.err != nil {
		w.report("error", e.err)
	}
	if err := r.Call("commit", map[string]any{"if_changed": true}, nil); err != nil {
		w.report("warning", &replicate.Error{Op: "commit what the command changed", Err: err})
	}
	if err := r.Call("end", map[string]any{"status": e.status, "exit_code": e.code, "wait": w.exitWait().Seconds()}, nil); err != nil {
		w.report("warning", &replicate.Error{Op: "end experiment", Path: id.Short(), Err: err})
	}
	w.tell(recorder.Remark{Note: id.Short() + " " + string(e.status) + " after " + lasted(w.now().Sub(start).Round(time.Second))})
	if e.code == 0 {
		return nil
	}
	return exitCode(e.code)
}

// callingShell returns the process that called this command. A subshell, as $(…) makes, is a copy of its shell and gone in a moment:
// the shell itself is meant.
func callingShell() int {
	pid := os.Getppid()
	for {
		parent, exe, args := processInfo(pid)
		_, parentExe, parentArgs := processInfo(parent)
		if parent <= 1 || exe == "" || exe != parentExe || args != parentArgs {
			return pid
		}
		pid = parent
	}
}

// processInfo returns the parent of a process, its program and its arguments, as far as /proc tells.
func processInfo(pid int) (parent int, exe, args string) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	exe, _ = os.Readlink(filepath.Join(dir, "exe"))
	line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
	status, _ := os.ReadFile(filepath.Join(dir, "status"))
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "PPid:"); ok {
			parent, _ = strconv.Atoi(strings.TrimSpace(value))
		}
	}
	return parent, exe, string(line)
}
