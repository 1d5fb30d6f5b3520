package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/remote"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/repository"
)

const attachHelp = `Takes up a run that goes on, as if replicate run had never been left: shows what it prints from where this
machine stopped, and brings its commits here. The exit code is that of the job.

If the command that started it was killed before the job began, attach on the same machine goes on with that:
the environment is built on, the working directory is sent, the job starts, in the same experiment. The
working directory must be as it was. Values that were given as --env NAME=VALUE are kept nowhere: set NAME
in the environment of attach.`

func attachCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "attach",
		Usage:       "follow a run again",
		ArgsUsage:   "EXPERIMENT",
		Description: attachHelp,
		Flags:       append([]cli.Flag{identityFlag()}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1, "an experiment"); err != nil {
				return err
			}
			return w.attach(c)
		},
	}
}

func identityFlag() cli.Flag {
	return &cli.StringFlag{Name: "identity-file", Aliases: []string{"i"}, Usage: "try the private key in `FILE` first"}
}

func (w *world) attach(c *cli.Context) error {
	e, t, p, err := w.runOf(c, c.Args().First())
	if err != nil {
		return err
	}
	if err := startedByRun(e); err != nil {
		return err
	}
	client, err := w.remote(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	r, err := client.Attach(ctx, p, t, e.Experiment, remote.Again{
		Secrets: func(ctx context.Context) (job.Secrets, error) { return w.secrets(ctx, p) },
		Complete: func(j *remote.Job, variables []string) error {
			j.Environment.Around = w.around(p)
			return w.variables(j, variables)
		},
		Code: func(context.Context) (*repository.Tree, error) { return w.codeOf(c, e.ID) },
	})
	if err != nil {
		return w.notStarted(ctx, err)
	}
	stop()
	return w.follow(c.Context, r)
}

// codeOf returns the working directory that was recorded when an experiment began.
func (w *world) codeOf(c *cli.Context, id replicate.ID) (tree *repository.Tree, err error) {
	err = w.with(c, func(s *session) error {
		row, err := s.index.CodeTree(s.ctx, id)
		if err == nil {
			tree, err = s.tree(row)
		}
		return err
	})
	return tree, err
}

// runOf finds an experiment that somebody started by run, and the machine it runs on.
func (w *world) runOf(c *cli.Context, ref string) (e *index.Experiment, t remote.Target, p *project.Project, err error) {
	err = w.with(c, func(s *session) error {
		found, err := s.resolve(ref)
		if err != nil {
			return err
		}
		e, p = found.Experiment, s.project
		return nil
	})
	if err != nil {
		return nil, t, nil, err
	}
	t, err = w.targetOf(c, p, &e.Experiment)
	return e, t, p, err
}

// targetOf returns the machine that an experiment was started on.
func (w *world) targetOf(c *cli.Context, p *project.Project, e *replicate.Experiment) (remote.Target, error) {
	if e.Run == nil || e.Run.Target == "" {
		return remote.Target{Local: true}, nil
	}
	return w.target(c, p, e.Run.Target)
}

// target reads the name of a machine, which -i may give a key.
func (w *world) target(c *cli.Context, p *project.Project, text string) (remote.Target, error) {
	t, err := remote.ParseTarget(text, p.Config.Hosts)
	if key := c.String("identity-file"); key != "" {
		t.Identity = w.abs(key)
	}
	return t, err
}

func startedByRun(e *index.Experiment) error {
	if e.Run == nil {
		return replicate.Errorf(replicate.Usage, "%s was not started by replicate run", e.ID.Short())
	}
	return nil
}

// secrets are those that a job of the project may need again.
func (w *world) secrets(ctx context.Context, p *project.Project) (job.Secrets, error) {
	j := remote.Job{Env: map[string]string{}}
	if err := w.variables(&j, p.Config.Env); err != nil || remote.Pulls(p) {
		return job.Secrets{Env: j.Env}, err
	}
	storage, err := w.credentials(ctx, p.StorageURL)
	return job.Secrets{Env: j.Env, Storage: storage}, err
}

const logsHelp = `Prints what a run printed: its stdout to stdout, its stderr to stderr, byte by byte. When it has ended that
comes from the storage, else from the machine it runs on.`

func logsCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "logs",
		Usage:       "print what a run prints",
		ArgsUsage:   "EXPERIMENT",
		Description: logsHelp,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on until the job ends; Ctrl-C only ends the following"},
			identityFlag(),
		}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1, "an experiment"); err != nil {
				return err
			}
			return w.logs(c)
		},
	}
}

func (w *world) logs(c *cli.Context) error {
	e, t, p, err := w.runOf(c, c.Args().First())
	if err != nil {
		return err
	}
	if e.Status.Final() || e.Run == nil {
		return w.storedOutput(c, e)
	}
	client, err := w.remote(c)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	defer stop()
	switch err := client.Show(ctx, p, t, e.Experiment, c.Bool("follow")); {
	case ctx.Err() != nil:
		return nil
	case replicate.KindOf(err) == replicate.NotFound: // it was pruned
		return w.storedOutput(c, e)
	default:
		return err
	}
}

// storedOutput prints the output that the storage has.
func (w *world) storedOutput(c *cli.Context, e *index.Experiment) error {
	return w.with(c, func(s *session) error {
		rows, err := s.index.Streams(s.ctx, e.ID, outputStream)
		if err != nil {
			return err
		}
		return s.repo.Stream(rows).WriteTo(s.ctx, w.stdout)
	})
}
