package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/fs"
	"github.com/replicate/replicate/storage"
)

const mountHelp = `Shows the repository as a file system at DIR, an empty directory: ls, cp, diff -r, grep and
everything else that reads files work on experiments and commits. README.txt in it describes
the tree. New commits and the output of running experiments appear within a second.

    mkdir mnt && replicate mount mnt
    cp -r mnt/latest/best/ ~/model
    replicate umount mnt

With --commit, DIR is that commit alone, which opens files faster. Nothing can be written. Only
you can enter the mount, not even root can if you are not root.`

func mountCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "mount",
		Usage:       "show experiments as a file system",
		ArgsUsage:   "DIR",
		Description: mountHelp,
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "commit", Usage: "mount the files of the commit `ID` alone"},
			&cli.BoolFlag{Name: "foreground", Usage: "stay until the mount is gone; Ctrl-C unmounts"},
			&cli.BoolFlag{Name: "status", Usage: "list the mounts of this machine"},
		}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if c.Bool("status") {
				return w.mountStatus(c)
			}
			if err := wantArgs(c, 1, 1, "a directory"); err != nil {
				return err
			}
			return w.mount(c)
		},
	}
}

func (w *world) mount(c *cli.Context) error {
	dir := w.abs(c.Args().First())
	s, err := w.open(c)
	if err != nil {
		return err
	}
	o, avoid, err := w.mountOptions(c, s, dir)
	s.close() // the server opens its own
	if err != nil {
		return err
	}
	return fs.Mount(c.Context, o, avoid, func(dir string) { fmt.Fprintln(w.stdout, dir) })
}

func (w *world) mountOptions(c *cli.Context, s *session, dir string) (o fs.Options, avoid []string, err error) {
	if s.repo == nil {
		return o, nil, &replicate.Error{Op: "mount", Path: s.project.StorageURL, Kind: replicate.NotFound,
			Err: fmt.Errorf("there are no experiments"), Hint: "a script makes one with replicate.init(), or name another storage with -S"}
	}
	exe, err := os.Executable()
	if err != nil {
		return o, nil, fmt.Errorf("find this program: %w", err)
	}
	size, err := w.cacheSize()
	if err != nil {
		return o, nil, err
	}
	goals := indexOptions(s.project.Config, w.now)
	cache := s.project.Cache(s.repo.ID())
	o = fs.Options{
		Dir: dir, Storage: s.project.StorageURL,
		IndexDir: cache, CacheDir: cache, StateDir: w.stateDir(), CacheSize: size,
		Metrics: goals.Metrics, Primary: goals.Primary,
		Self: []string{exe, "mount-process"}, Foreground: c.Bool("foreground"), NotifySocket: w.getenv("NOTIFY_SOCKET"),
	}
	avoid = []string{s.project.Spool()}
	if local, ok := s.repo.Store().(storage.Local); ok {
		avoid = append(avoid, local.Dir())
	}
	if ref := c.String("commit"); ref != "" {
		t, err := s.resolve(ref)
		if err != nil {
			return o, nil, err
		}
		_, commit, err := s.rowAndCommit(t)
		if err != nil {
			return o, nil, err
		}
		if commit == nil {
			return o, nil, replicate.Errorf(replicate.NotFound, "experiment %s has no commits", t.Experiment.ID.Short())
		}
		o.Commit = string(commit.ID)
	}
	return o, avoid, nil
}

// stateDir is where mounts are known by.
func (w *world) stateDir() string {
	if dir := w.getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "replicate")
	}
	return filepath.Join(w.cacheDir(), "replicate")
}

func (w *world) mountStatus(c *cli.Context) error {
	if c.NArg() > 0 {
		return replicate.Errorf(replicate.Usage, "mount --status takes no arguments, got %q", c.Args().First())
	}
	mounts, err := fs.Status(w.stateDir())
	if err != nil {
		return err
	}
	if len(mounts) == 0 {
		w.say("nothing is mounted")
		return nil
	}
	t := new(table)
	column := func(name string, cell func(fs.Mounted) string) {
		cells := make([]string, len(mounts))
		for i, m := range mounts {
			cells[i] = cell(m)
		}
		t.add(name, cells)
	}
	column("directory", func(m fs.Mounted) string { return m.Dir })
	column("storage", func(m fs.Mounted) string { return m.Storage })
	column("commit", func(m fs.Mounted) string { return replicate.ID(m.Commit).Short() })
	column("state", func(m fs.Mounted) string { return m.State })
	column("pid", func(m fs.Mounted) string {
		if m.PID == 0 {
			return ""
		}
		return strconv.Itoa(m.PID)
	})
	t.write(w.stdout, 0)
	return nil
}

// mountPatience is how long a storage may be away before whoever reads a file in a mount gets an error: programs that wait longer seem to hang.
const mountPatience = time.Minute

// mountProcessCommand is what mount runs behind the scenes: the supervisor of a mount, or its server.
func mountProcessCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:   "mount-process",
		Hidden: true,
		Action: func(c *cli.Context) error {
			return fs.Process(context.Background(), c.Args().First(), func(ctx context.Context, o fs.Options) (fs.View, error) {
				r, _, err := w.openRepository(ctx, o.Storage, mountPatience, func(string) string { return o.IndexDir }, nil)
				if err != nil {
					return nil, err
				}
				return fs.Open(ctx, r, o)
			})
		},
	}
}
