package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/repository"
)

const uploadHelp = `Sends what commits of this project have left on this machine to their storage, and shows how it gets on.
A commit is safe on this machine when commit() returns; a background process sends it, tries again for as long
as the storage cannot be reached, and goes on after a reboot with the next replicate command in the project.

Ctrl-C ends the display only. Exit code 1 means that something is left and cannot be sent now. With --status
it says once what waits, and where it goes.`

const (
	// uploadPatience is how long somebody who waits is left waiting for a storage that does not answer.
	uploadPatience = 5 * time.Minute
	// uploadLook is how often the outboxes are looked at.
	uploadLook = 100 * time.Millisecond
	// uploadStart is how long an uploader may take to begin before another one is started.
	uploadStart = 3 * time.Second
	// uploadStarts is how often an uploader that dies is started again.
	uploadStarts = 3
)

func uploadCommand(w *world) *cli.Command {
	return &cli.Command{
		Name:        "upload",
		Usage:       "send what waits on this machine",
		Description: uploadHelp,
		Flags: append([]cli.Flag{
			&cli.BoolFlag{Name: "status", Usage: "say what waits, and do nothing"},
			&cli.BoolFlag{Name: "json", Usage: "print JSON, with --status"},
			createFlag(),
		}, storageFlags()...),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0, 0, "no arguments"); err != nil {
				return err
			}
			p, err := w.project(c)
			if err != nil {
				return err
			}
			list, err := outboxes(c.Context, p)
			if err != nil {
				return err
			}
			if c.Bool("status") && c.Bool("json") {
				return w.uploadJSON(list)
			}
			if c.Bool("json") {
				return replicate.Errorf(replicate.Usage, "upload --json goes with --status")
			}
			defer w.sayUploadWarnings(list)
			if c.Bool("status") {
				w.uploadStatus(list)
				return nil
			}
			for _, o := range list {
				if err := w.ensureBucket(c, o.Storage); err != nil {
					return err
				}
			}
			return w.upload(c.Context, list)
		},
	}
}

// uploadStatus says what waits.
func (w *world) uploadStatus(list []outbox) {
	var waits []outbox
	for _, o := range list {
		if !o.Waiting().Done() {
			waits = append(waits, o)
		}
	}
	if len(waits) == 0 {
		w.say("nothing waits to be sent")
		return
	}
	t := new(table)
	column := func(name string, cell func(outbox) string) {
		cells := make([]string, len(waits))
		for i, o := range waits {
			cells[i] = cell(o)
		}
		t.add(name, cells)
	}
	column("storage", func(o outbox) string { return o.Storage })
	column("commits", func(o outbox) string { return strconv.Itoa(o.Waiting().Commits) })
	column("records", func(o outbox) string { return strconv.Itoa(o.Waiting().Records) })
	column("size", func(o outbox) string { return size(o.Waiting().Bytes) })
	column("state", uploadState)
	t.write(w.stdout, 0)
}

// sayUploadWarnings says what uploaders could do nothing about.
func (w *world) sayUploadWarnings(list []outbox) {
	for _, o := range list {
		if status, _ := o.Status(); status.Warning != "" {
			w.say("replicate: warning: %s", oneLine(status.Warning))
		}
	}
}

// uploadState says what is being done about an outbox.
func uploadState(o outbox) string {
	status, running := o.Status()
	switch {
	case !running:
		return "not being sent"
	case status.Obstacle != nil:
		return "tried again: " + oneLine(status.Obstacle.Text)
	}
	return "being sent"
}

func (w *world) uploadJSON(list []outbox) error {
	type uploader struct {
		repository.UploadStatus
		Running bool `json:"running"`
	}
	type entry struct {
		Storage string `json:"storage"`
		repository.Waiting
		Uploader uploader `json:"uploader"`
	}
	entries := []entry{}
	for _, o := range list {
		status, running := o.Status()
		entries = append(entries, entry{o.Storage, o.Waiting(), uploader{status, running}})
	}
	text, err := json.MarshalIndent(entries, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w.stdout, "%s\n", text)
	return err
}

// upload sees to it that outboxes are sent, and shows how far that is, until everything is there.
func (w *world) upload(ctx context.Context, list []outbox) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	sent := false
	for _, o := range list {
		if o.Waiting().Done() {
			continue
		}
		sent = true
		if err := w.uploadOne(ctx, o); err != nil {
			return &replicate.Error{Op: "send to", Path: o.Storage, Kind: replicate.KindOf(err), Err: err, Hint: replicate.HintOf(err)}
		}
	}
	if !sent {
		w.say("nothing waits to be sent")
	}
	return nil
}

func (w *world) uploadOne(ctx context.Context, o outbox) error {
	first := o.Waiting()
	asked := w.now()
	if status, running := o.Status(); running && status.Obstacle != nil && status.Obstacle.Kind == replicate.Permission {
		_ = syscall.Kill(status.PID, syscall.SIGTERM) // it has the credentials it began with; the next one has those of this command
	}
	o.Wake()
	progress := w.progress("sending to " + o.Storage)
	defer progress.done()
	tick := time.NewTicker(uploadLook)
	defer tick.Stop()
	total := first.Bytes
	for starts, idle := 0, time.Duration(0); ; {
		waiting := o.Waiting()
		if waiting.Done() {
			progress.done()
			w.say("replicate: sent %s (%s) to %s", plural(int64(first.Commits), "commit"), size(total), o.Storage)
			return nil
		}
		total = max(total, waiting.Bytes)
		progress.update(total-waiting.Bytes, total)
		if !o.Idle() {
			idle = 0
		} else if idle++; idle%(uploadStart/uploadLook) == 1 {
			if starts++; starts > uploadStarts {
				return replicate.Errorf(replicate.Internal, "the uploader dies").WithHint("%s/log may say why", o.Dir)
			}
			if err := startUploader(o.Dir); err != nil {
				return err
			}
		}
		if err := hopeless(o, asked, w.now()); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			progress.done()
			return replicate.Errorf(replicate.Unavailable, "%s (%s) are left", plural(int64(waiting.Commits), "commit"), size(waiting.Bytes)).
				WithHint("they are sent in the background")
		case <-tick.C:
		}
	}
}

// hopeless returns why somebody who waits should not wait any longer, or nil.
func hopeless(o outbox, asked, now time.Time) error {
	status, running := o.Status()
	obstacle := status.Obstacle
	if !running || obstacle == nil || status.Tried.Before(asked) {
		return nil
	}
	if obstacle.Kind == replicate.Unavailable && now.Sub(obstacle.Since) < uploadPatience {
		return nil
	}
	return &replicate.Error{Kind: obstacle.Kind, Err: obstacle, Hint: cmp.Or(obstacle.Hint, "it is tried again in the background for ever")}
}

// sayOnItsWay says on stderr what a project has recorded and its storages do not have yet.
func (w *world) sayOnItsWay(ctx context.Context, p *project.Project) {
	list, _ := outboxes(ctx, p) // replicate upload tells what is wrong
	for _, o := range list {
		waiting := o.Waiting()
		if waiting.Commits == 0 && waiting.Bytes == 0 {
			continue
		}
		text := plural(int64(waiting.Commits), "commit") + " (" + size(waiting.Bytes) + ") on the way to " + o.Storage
		if status, running := o.Status(); running && status.Obstacle != nil {
			text += ": " + strings.TrimSpace(oneLine(status.Obstacle.Text))
		}
		w.say("replicate: %s", text)
	}
}
