package main

import (
	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/recorder"
)

const stopHelp = `Stops the job of an experiment that replicate run started: its processes are asked to end, and killed after
30 s or when stop is called again. If the command that started it was killed before the job began, nothing of
it is left then.

Without an ID it ends the experiment that REPLICATE_EXPERIMENT_ID names, and that replicate init began without a
command.`

func stopCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "stop",
		Usage:       "stop a run, or end an experiment",
		ArgsUsage:   "[EXPERIMENT]",
		Description: stopHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "status", Usage: "how it ended: `STATUS` is finished (the default), failed, interrupted or terminated"},
			&cli.IntFlag{Name: "exit-code", Usage: "the exit code of the training was `N`; not 0 means failed"},
			identityFlag(),
		}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 1, "at most one experiment"); err != nil {
				return err
			}
			if c.NArg() == 1 {
				return w.stopRun(c)
			}
			status := replicate.Status(c.String("status"))
			if status == "" {
				status = replicate.Finished
				if c.Int("exit-code") != 0 {
					status = replicate.Failed
				}
			}
			if !status.Final() {
				return replicate.Errorf(replicate.Usage, "stop: %q is no end of an experiment", status).
					WithHint("it is finished, failed, interrupted, terminated or crashed")
			}
			var code *int
			if c.IsSet("exit-code") {
				n := c.Int("exit-code")
				code = &n
			}
			s, err := w.join(c, recorder.Join)
			if err != nil {
				return err
			}
			if err := s.Stop(c.Context, status, code); err != nil {
				return err
			}
			s.Wait(c.Context, w.exitWait(), nil)
			return nil
		},
	}
}

// stopRun stops the job of a run.
func (w *world) stopRun(c *cli.Context) error {
	e, t, p, err := w.runOf(c, c.Args().First())
	if err == nil {
		err = startedByRun(e)
	}
	if err != nil {
		return err
	}
	if e.Status.Final() {
		w.say("%s has ended: %s", e.ID.Short(), e.Status)
		return nil
	}
	client, err := w.remote(c)
	if err != nil {
		return err
	}
	ended, err := client.Stop(c.Context, p, t, e.Experiment)
	if err != nil {
		return err
	}
	if ended {
		w.say("%s had no job yet, and has ended: nothing of it is left on %s", e.ID.Short(), e.Run.Target)
		return nil
	}
	w.say("asked %s to stop; again: kill it", e.ID.Short())
	return nil
}
