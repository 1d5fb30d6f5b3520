package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/job"
)

const superviseHelp = `Runs one job to its end: process 1 of a container, or a process beside a terminal. The job comes as a line on
stdin. replicate run starts it, and speaks with it by

  supervise logs [--from N] [-f]     frames of the log
  supervise ctl status               its state, as JSON
  supervise ctl stop|interrupt|kill
  supervise ctl secrets              newer ones, from stdin`

// Where a supervisor in a container finds what it needs.
const (
	jobDir      = "/replicate"
	lockDir     = "/replicate-locks"
	storageName = "storage" // of the job's repository, in its directory
)

func superviseCommand(w *world) *cli.Command {
	dir := &cli.StringFlag{Name: "dir", Usage: "`DIR` of the job", Value: jobDir}
	return &cli.Command{
		Name:        "supervise",
		Usage:       "run one job to its end",
		Description: superviseHelp,
		Hidden:      true,
		Flags: []cli.Flag{
			dir,
			&cli.StringFlag{Name: "locks", Usage: "`DIR` of the leases", Value: lockDir},
			&cli.StringFlag{Name: "code", Usage: "receive the working directory behind the job, and make it `DIR`"},
			&cli.StringFlag{Name: "chunks", Usage: "`DIR` of what of it is kept for the next time"},
			&cli.StringFlag{Name: "owner", Usage: "`UID:GID` whom it belongs to"},
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 0, "no arguments"); err != nil {
				return err
			}
			return w.supervise(c)
		},
		Subcommands: append(superviseEnds(w), []*cli.Command{
			{
				Name:  "logs",
				Usage: "frames of the log",
				Flags: []cli.Flag{
					dir,
					&cli.Int64Flag{Name: "from", Usage: "first byte, `N`"},
					&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "until the job ends"},
				},
				Action: func(c *cli.Context) error { return w.superviseLogs(c) },
			},
			{
				Name:   "ctl",
				Usage:  "ask the supervisor",
				Flags:  []cli.Flag{dir},
				Action: func(c *cli.Context) error { return w.superviseControl(c) },
			},
		}...),
	}
}

func (w *world) supervise(c *cli.Context) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP, syscall.SIGPIPE) // not ignored: the job would inherit that
	self, err := os.Executable()
	if err != nil {
		return err
	}
	receive, err := w.receiveCode(c)
	if err != nil {
		return err
	}
	code, err := job.Supervise(c.Context, job.Options{
		Dir: c.String("dir"), Locks: c.String("locks"), Self: self,
		Stdin: w.stdin, Stdout: w.stdout, Env: w.environ(), Now: w.now, Signals: signals, Receive: receive,
		Record: func(ctx context.Context, spec job.Spec, secrets job.Secrets, tell func(string)) (job.Recorder, error) {
			setStorage(secrets)
			return w.recordJob(ctx, spec, tell)
		},
		Outbox: func(ctx context.Context, spec job.Spec, secrets job.Secrets) (job.Outbox, error) {
			setStorage(secrets)
			return w.jobOutbox(ctx, spec)
		},
		Fetched: func() { _ = dropStorage(c.String("dir")) }, // what is left goes with the volume
	})
	if err != nil {
		w.report("error", err)
	}
	if code == 0 {
		return nil
	}
	return exitCode(code)
}

func (w *world) superviseLogs(c *cli.Context) error {
	dir := c.String("dir")
	open := func() (io.ReadCloser, error) { return job.OpenLog(os.DirFS(dir), c.Int64("from")) }
	if c.Bool("follow") {
		ctx, leave := context.WithCancel(c.Context)
		defer leave()
		go whenHungUp(w.stdin, leave)
		open = func() (io.ReadCloser, error) { return job.FollowLog(ctx, dir, c.Int64("from")) }
	}
	log, err := open()
	if err != nil {
		return err
	}
	return job.CopyWhileRead(w.stdout, log, job.WritePatience) // ends with the process
}

// whenHungUp calls f when the other end of a pipe is gone. Docker closes stdin when the line to whoever executes this is cut, and tells nothing on stdout.
func whenHungUp(stdin io.Reader, f func()) {
	file, ok := stdin.(*os.File)
	if !ok {
		return
	}
	if info, err := file.Stat(); err != nil || info.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return // nobody gave it one
	}
	_, _ = io.Copy(io.Discard, file)
	f()
}

func (w *world) superviseControl(c *cli.Context) error {
	if err := wantArgs(c, 1, 1, "a verb"); err != nil {
		return err
	}
	state, err := w.controlJob(c.Context, c.String("dir"), c.Args().First())
	if err != nil {
		return err
	}
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w.stdout, "%s\n", text)
	return err
}

// controlJob carries out a verb of the control socket.
func (w *world) controlJob(ctx context.Context, dir, verb string) (job.State, error) {
	switch verb {
	case string(job.OpStatus):
		return job.Asked(ctx, dir)
	case string(job.Stop), string(job.Interrupt), string(job.Kill):
		return job.Control(ctx, dir, job.Request{Op: job.OpSignal, Signal: job.Signal(verb)})
	case string(job.OpSecrets):
		var line job.Line
		if err := job.ReadLines(w.stdin, func(l job.Line) { line = l }); err != nil {
			return job.State{}, err
		}
		if line.Secrets == nil {
			return job.State{}, errors.New("no secrets on stdin")
		}
		return job.Control(ctx, dir, job.Request{Op: job.OpSecrets, Secrets: line.Secrets})
	}
	return job.State{}, replicate.Errorf(replicate.Usage, "unknown verb %q", verb)
}
