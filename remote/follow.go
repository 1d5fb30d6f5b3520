package remote

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/remote/ssh"
	"github.com/replicate/replicate/storage/project"
)

// A log shows what a job prints, each byte once, from wherever it comes: the echo of the beginning, and the log itself.
type log struct {
	client *Client
	over   chan struct{} // closed when somebody has told of the end

	mu   sync.Mutex // guards the rest
	next int64
	end  *job.State
}

func newLog(c *Client, from int64) *log {
	return &log{client: c, over: make(chan struct{}), next: from}
}

func (l *log) offset() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// ended returns the end of the job, nil if nobody has told of it.
func (l *log) ended() *job.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// take shows a frame, or what of it was not shown. An echo may not leave a gap: what is missing comes with the log.
func (l *log) take(f job.Frame, echo bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if f.End() < l.next || f.End() == l.next && len(f.Data) > 0 || echo && f.Offset > l.next {
		return nil
	}
	if skip := l.next - f.Offset; skip > 0 {
		f.Offset, f.Data = l.next, f.Data[skip:]
	}
	l.next = f.End()
	switch f.Stream {
	case job.Stdout:
		_, err := l.client.Stdout.Write(f.Data)
		return err
	case job.Stderr:
		_, err := l.client.Stderr.Write(f.Data)
		return err
	}
	l.note(f)
	return nil
}

func (l *log) note(f job.Frame) {
	n, err := job.ParseNote(f.Data)
	if err != nil {
		return // of a later version
	}
	if n.Say != "" {
		l.client.Say("%s", n.Say)
	}
	if n.End != nil {
		if l.end == nil {
			close(l.over)
		}
		l.end = n.End
	}
}

// takeEcho shows the beginning of what the supervisor prints.
func (l *log) takeEcho(from *io.PipeReader) {
	frames := job.NewFrameReader(from, l.offset())
	for {
		f, err := frames.Next()
		if err == nil {
			err = l.take(f, true)
		}
		if err != nil {
			from.CloseWithError(err)
			return
		}
	}
}

// takeAll shows the frames of r.
func (l *log) takeAll(r io.Reader) error {
	frames := job.NewFrameReader(r, l.offset())
	for {
		f, err := frames.Next()
		if err == nil {
			err = l.take(f, false)
		}
		switch {
		case err == io.EOF, err == nil && l.ended() != nil:
			return nil
		case err != nil:
			return err
		}
	}
}

// Follow shows what the job prints until it has ended, and returns how. A lost line is made again, for as long as it takes; ctx ends that. Commits are pulled meanwhile if
// their storage is on a disk of this machine.
func (r *Run) Follow(ctx context.Context) (job.State, error) {
	defer r.renew(ctx)()
	p := r.startPulling(ctx)
	defer p.close()
	var pause ssh.Backoff // between looks that show nothing
	for {
		before := r.log.offset()
		err := r.followOnce(ctx)
		if end := r.log.ended(); end != nil {
			p.stop()
			return *end, r.finish(ctx, p, *end, false)
		}
		switch {
		case ctx.Err() != nil:
			return job.State{}, ctx.Err()
		case r.at.lost(err):
			if err := r.reconnect(ctx); err != nil {
				return job.State{}, err
			}
			continue
		}
		state, stopped, err := r.at.state(ctx, r.ID)
		switch {
		case err != nil && !r.at.lost(err):
			return job.State{}, err
		case err == nil && stopped:
			p.stop()
			err = r.readRest(ctx)
			return state, errors.Join(err, r.finish(ctx, p, state, true))
		}
		if r.log.offset() > before {
			pause.Reset()
		} else if err := pause.Wait(ctx); err != nil {
			return job.State{}, err
		}
	}
}

// followOnce shows what is in the log and what comes, over one connection. It ends as soon as the end is known: of a short job the echo has all.
func (r *Run) followOnce(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-r.log.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	log, err := r.at.Logs(ctx, r.ID, r.log.offset(), true)
	if err != nil {
		return err
	}
	defer log.Close()
	return r.log.takeAll(log)
}

// reconnect makes the lost line again.
func (r *Run) reconnect(ctx context.Context) error {
	r.client.Say("connection to %s lost; the job goes on. Reconnecting (Ctrl-C: detach)", r.host.Name())
	var pause ssh.Backoff
	for {
		r.host.Close()
		if err := pause.Wait(ctx); err != nil {
			return err
		}
		host, err := r.client.Open(ctx, r.target)
		if err == nil {
			r.client.Say("connected again")
			r.setHost(host)
			return nil
		}
		switch kind := replicate.KindOf(err); {
		case ctx.Err() != nil:
			return ctx.Err()
		case kind == replicate.Permission || kind == replicate.Conflict || kind == replicate.Usage:
			return err // a key that changed does not change back
		}
	}
}

// readRest shows what is left of the log of a container that has stopped.
func (r *Run) readRest(ctx context.Context) error {
	log, err := r.at.Logs(ctx, r.ID, r.log.offset(), false)
	if err != nil {
		return err
	}
	defer log.Close()
	return r.log.takeAll(log)
}

// Logs returns the frames of a run from an offset on, all that are there; with follow, until the job has ended.
func (h *Host) Logs(ctx context.Context, id replicate.ID, from int64, follow bool) (io.ReadCloser, error) {
	state, err := h.engine.Inspect(ctx, docker.RunName(id))
	if err != nil {
		return nil, err
	}
	if state.Phase != docker.Running {
		return h.storedLog(ctx, id, from)
	}
	argv := []string{docker.ProgramPath, "supervise", "logs", "--from", itoa(from)}
	if follow {
		argv = append(argv, "--follow")
	}
	return h.execute(ctx, docker.RunName(id), argv), nil
}

// storedLog copies the segments of a stopped container and reads them here.
func (h *Host) storedLog(ctx context.Context, id replicate.ID, from int64) (io.ReadCloser, error) {
	dir, err := os.MkdirTemp("", "replicate-log-")
	if err != nil {
		return nil, err
	}
	err = h.fetchLog(ctx, id, dir)
	var log io.ReadCloser
	if err == nil {
		log, err = job.OpenLog(os.DirFS(dir), from)
	}
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return &copiedLog{log, dir}, nil
}

// copiedLog removes the copy when it was read.
type copiedLog struct {
	io.ReadCloser
	dir string
}

func (l *copiedLog) Close() error { return errors.Join(l.ReadCloser.Close(), os.RemoveAll(l.dir)) }

func (h *Host) fetchLog(ctx context.Context, id replicate.ID, dir string) error {
	archive, err := h.engine.GetArchive(ctx, docker.RunName(id), docker.RunDir+"/log")
	if err != nil {
		return err
	}
	defer archive.Close()
	for t := tar.NewReader(archive); ; {
		head, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(filepath.Clean(head.Name), "/")
		if head.Typeflag != tar.TypeReg || !filepath.IsLocal(name) || filepath.Dir(name) != "log" {
			continue // the job could have put anything there
		}
		if err := writeFile(filepath.Join(dir, name), t); err != nil {
			return err
		}
	}
}

func writeFile(path string, content io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, content)
	return errors.Join(err, f.Close())
}

// Show prints the log of a run from its beginning, with follow until the job has ended.
func (c *Client) Show(ctx context.Context, p *project.Project, t Target, e replicate.Experiment, follow bool) error {
	at, err := c.placeOf(ctx, p, t, e)
	if err != nil {
		return err
	}
	defer at.Close()
	frames, err := at.Logs(ctx, e.ID, 0, follow)
	if err != nil {
		return err
	}
	defer frames.Close()
	return newLog(c, 0).takeAll(frames)
}

// Stop asks the job of a run to end, or whoever is about to start it to give up. A start that was cut off has come to an end when it returns: then ended is true.
func (c *Client) Stop(ctx context.Context, p *project.Project, t Target, e replicate.Experiment) (ended bool, err error) {
	if stopStart(p, e.ID) {
		return false, nil
	}
	at, err := c.placeOf(ctx, p, t, e)
	if err != nil {
		return false, err
	}
	defer at.Close()
	if host, ok := at.(*Host); ok {
		if ended, err := host.stopCutOff(ctx, p, e.ID); ended || err != nil {
			return ended, err
		}
	}
	return false, at.Signal(ctx, e.ID, job.Stop)
}

// placeOf opens where a run is.
func (c *Client) placeOf(ctx context.Context, p *project.Project, t Target, e replicate.Experiment) (place, error) {
	if e.Run == nil || e.Run.Target == "" {
		return c.here(p), nil
	}
	return c.Open(ctx, t)
}
