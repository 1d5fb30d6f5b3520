package main

import (
	"github.com/urfave/cli/v2"
)

const psHelp = `Lists the experiments that are running, as ls does, and says what of this project is still on its way to its
storage.`

func psCommand(w *world) *cli.Command {
	return &cli.Command{
		Name: "ps", Aliases: []string{"processes"},
		Usage:       "list running experiments",
		Description: psHelp,
		Flags:       append(listFlags(), storageFlags()...),
		Action: func(c *cli.Context) error {
			return list(c, w, append(c.StringSlice("filter"), "status = running"))
		},
	}
}
