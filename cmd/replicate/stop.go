package main

import (
	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/recorder"
)

const stopHelp = `Ends the experiment that REPLICATE_EXPERIMENT_ID names, and that replicate init began without a command.`

func stopCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "stop",
		Usage:       "end an experiment",
		Description: stopHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "status", Usage: "how it ended: `STATUS` is finished (the default), failed, interrupted or terminated"},
			&cli.IntFlag{Name: "exit-code", Usage: "the exit code of the training was `N`; not 0 means failed"},
		}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 0, "no arguments"); err != nil {
				return err
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
