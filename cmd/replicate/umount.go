package main

import (
	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate/fs"
)

const umountHelp = `Takes a mount away. If programs still use it, they are named, and keep what they have open
until they let go; the directory is free at once. A mount whose processes died is cleared.`

func umountCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "umount",
		Usage:       "take a mount away",
		ArgsUsage:   "DIR",
		Description: umountHelp,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "force", Usage: "break it: programs that use it get errors"},
		},
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1, "a directory"); err != nil {
				return err
			}
			dir := w.abs(c.Args().First())
			if c.Bool("force") {
				return fs.ForceUnmount(c.Context, w.stateDir(), dir)
			}
			busy, err := fs.Unmount(c.Context, w.stateDir(), dir)
			for _, h := range busy {
				w.say("still used by %s; it keeps what it has", h)
			}
			return err
		},
	}
}
