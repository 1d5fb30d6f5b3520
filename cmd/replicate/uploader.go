package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/repository"
)

const (
	// uploaderNice is how much an uploader stands back for the training.
	uploaderNice = 10
	// uploaderPatience is how long one call is tried again. The uploader goes on for ever; after each call that it gives up it says
	// what stands in its way.
	uploaderPatience = 10 * time.Second
)

// uploaderCommand is what sends an outbox: a process that belongs to nobody, and ends when nothing is left.
func uploaderCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:   "uploader",
		Hidden: true,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1, 1, "the folder of an outbox"); err != nil {
				return err
			}
			stay()
			useGoogleCredentials(w.getenv)
			spool, err := openOutbox(c.Context, c.Args().First())
			if err != nil {
				return err
			}
			_, err = spool.Upload(context.Background())
			return err
		},
	}
}

// stay makes this process outlive its terminal, let go of what it inherited and stand back. It leads a process group of its own.
func stay() {
	signal.Ignore(unix.SIGHUP, unix.SIGPIPE)
	_ = closeInherited()                                  // it would only be a descriptor too many
	_ = unix.Setpriority(unix.PRIO_PGRP, 0, uploaderNice) // of the group, as that is all threads
	_ = os.Chdir("/")                                     // what it was started in may be unmounted
}

// openOutbox opens the outbox in a folder.
func openOutbox(ctx context.Context, dir string) (*repository.Spool, error) {
	info, err := repository.ReadOutbox(dir)
	if err != nil {
		return nil, &replicate.Error{Op: "open", Path: dir, Kind: replicate.KindOf(err), Err: err}
	}
	store, err := storage.Open(ctx, info.Storage)
	if err != nil {
		return nil, err
	}
	store = storage.WithPolicy(store, storage.Policy{Patience: uploaderPatience})
	return repository.OpenOutbox(store, filepath.Dir(dir)), nil
}

// An outbox is a spool whose content is on its way to a storage.
type outbox struct {
	*repository.Spool
	repository.OutboxInfo
}

// outboxes opens the outboxes of a project. Those that cannot be opened are told as one error beside the others.
func outboxes(ctx context.Context, p *project.Project) ([]outbox, error) {
	infos, err := repository.Outboxes(p.Spool())
	errs := []error{err}
	var list []outbox
	for _, info := range infos {
		spool, err := openOutbox(ctx, info.Dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, outbox{spool, info})
	}
	return list, errors.Join(errs...)
}

// startUploaders starts an uploader for every outbox of a project that has something to send and no uploader. They outlive this process.
func startUploaders(p *project.Project) {
	list, _ := outboxes(context.Background(), p) // what cannot be opened is told by replicate upload
	for _, o := range list {
		if o.Idle() {
			_ = startUploader(o.Dir) // the next command tries again
		}
	}
}

func startUploader(dir string) error {
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err == nil {
		defer log.Close()
	}
	return startAlone(log, "uploader", dir)
}

// startAlone starts a command of this program that outlives this process. log, which may be nil, is for what the runtime prints when it dies.
func startAlone(log *os.File, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	process := exec.Command(self, args...)
	process.Args[0] = "replicate"
	process.Env = os.Environ()
	process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if log != nil {
		process.Stderr = log
	}
	if err := process.Start(); err != nil {
		return err
	}
	go func() { _ = process.Wait() }() // no zombie, should this process live longer
	return nil
}
