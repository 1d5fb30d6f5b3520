package remote

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/code"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/image"
	"github.com/replicate/replicate/remote/job"
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/recorder"
)

// A Run is one run as this machine sees it. It is used by one goroutine, but for Signal.
type Run struct {
	ID replicate.ID

	client  *Client
	target  Target
	project *project.Project
	facts   replicate.Run
	mu      sync.Mutex // guards at, which Follow replaces
	at      place
	host    *Host             // at, nil in place
	started func()            // to be called when the job is in the hands of its supervisor, or never will be
	session *recorder.Session // nil where the supervisor says how the experiment is
	stream  *docker.Stream    // to the supervisor's stdin, nil if nobody needs it
	output  *attached         // stream, with the supervisor's stdout
	log     *log
	ports   forwards
	secrets func(context.Context) (job.Secrets, error) // those of now
	sent    job.Secrets                                // those of last time; of whoever renews them
}

// isLocal reports whether a storage is a disk, which only this machine reaches.
func isLocal(storageURL string) bool {
	u, err := url.Parse(storageURL)
	return err == nil && u.Scheme == "file"
}

// Pulls reports whether commits that are made elsewhere are to be fetched: the storage of the project is a disk of this machine.
func Pulls(p *project.Project) bool { return isLocal(p.StorageURL) }

// pulls reports whether the commits of the run are to be fetched: their storage is a disk, and they are made elsewhere.
func (r *Run) pulls() bool { return r.host != nil && isLocal(r.project.StorageURL) }

// commandText is a command for people.
func commandText(command []string) string { return strings.Join(recorder.Masked(command), " ") }

// Start begins a run. It is recorded before anything else; when Start returns without an error the job is in the hands of its supervisor. After an
// error nothing of it is left on the host, as far as that can be reached. Of a start that was cut off Attach can go on with what is left.
func (c *Client) Start(ctx context.Context, j Job) (*Run, error) {
	r := &Run{client: c, target: j.Target, project: j.Project, facts: replicate.Run{Target: j.Target.text()}}
	plan, err := c.plan(ctx, j)
	if err != nil {
		return nil, err
	}
	open := func(ctx context.Context) (*Host, survey, error) { return c.openFor(ctx, j, plan) }
	return r, r.bringUp(ctx, j, plan, open, func(ctx context.Context) error { return r.begin(ctx, j) })
}

// plan says what the environment of a job is to be.
func (c *Client) plan(ctx context.Context, j Job) (*image.Plan, error) {
	plan, err := image.New(ctx, j.Environment)
	if err != nil {
		return nil, err
	}
	for _, warning := range plan.Warnings {
		c.Warn(errors.New(warning))
	}
	return plan, nil
}

// bringUp gets the job of a run into the hands of its supervisor. open has the environment on the host, and record makes the session that says how the experiment
// gets on. After an error the experiment has ended, if it was recorded.
func (r *Run) bringUp(ctx context.Context, j Job, plan *image.Plan, open func(context.Context) (*Host, survey, error), record func(context.Context) error) error {
	looking, stop := context.WithCancel(ctx)
	defer stop()
	opened := make(chan error, 1)
	var found survey
	go func() { // what takes a moment goes on beside what takes a round trip
		host, said, err := open(looking)
		if host != nil {
			r.setHost(host)
		}
		found = said
		opened <- err
	}()
	tree, err := r.client.scan(ctx, j)
	if err == nil {
		err = record(ctx)
	}
	if err != nil {
		stop()
	}
	if openErr := <-opened; err == nil {
		err = openErr
	}
	if err == nil {
		j.Argv = withLocal(plan.Local, j.Argv)
		err = r.launch(ctx, j, tree, found)
	}
	if err != nil {
		err = r.abandon(ctx, err)
	}
	if r.started != nil {
		r.started()
	}
	return err
}

// begin records the experiment.
func (r *Run) begin(ctx context.Context, j Job) (err error) {
	options := r.client.Recorder
	options.StorageFlag = j.Project.StorageURL
	run := recorder.Run{Dir: j.Project.Root, Command: j.Command, User: r.client.User, Host: r.client.Name, Facts: r.facts, Git: true}
	if r.facts.Target != "" {
		run.Host, run.Status = j.Target.Host(r.client.Name), replicate.Building
	}
	if run.ID, err = replicate.NewID(options.Random); err != nil {
		return err
	}
	if r.started, err = holdStart(j.Project, run.ID); err != nil {
		return err
	}
	if err := writeNote(j.Project, run.ID, Note{Target: r.facts.Target}); err != nil {
		return err
	}
	r.ID = run.ID
	r.log = newLog(r.client, 0)
	if r.session, _, err = recorder.BeginRun(ctx, run, options); err != nil {
		return err
	}
	return r.noteStart(j)
}

// launch takes everything to the host and hands the job over. If that fails with GPUs that were only remembered, it is done again with those that are there.
func (r *Run) launch(ctx context.Context, j Job, tree *code.Tree, found survey) error {
	err := r.launchWith(ctx, j, tree, found)
	if err == nil || !found.gpus.there() {
		return err
	}
	now, changed := r.host.look.changed(ctx, found.gpus)
	if !changed {
		return err
	}
	found.gpus = now
	if err := r.host.Remove(ctx, r.ID); err != nil {
		return err
	}
	return r.launchWith(ctx, j, tree, found)
}

func (r *Run) launchWith(ctx context.Context, j Job, tree *code.Tree, found survey) error {
	r.facts.Image = found.env.Name
	container, spec, err := r.describe(j, found)
	if err != nil {
		return err
	}
	container.Argv = append(container.Argv, "--code", codeDir, "--chunks", chunksDir, "--owner", fmt.Sprintf("%d:%d", spec.UID, spec.GID))
	if r.host.conn != nil && r.host.socket != "" {
		r.host.conn.Prepare(r.host.socket, streams)
	}
	if err := r.changeNote(func(n *Note) { n.Engine = r.host.identity() }); err != nil {
		return err
	}
	if _, err := r.host.engine.Create(ctx, container); err != nil {
		return err
	}
	for again := true; again && err == nil; {
		again, err = r.start(ctx, j, container, tree, spec)
	}
	if err != nil {
		return err
	}
	r.client.Say("Running '%s' as %s...", commandText(j.Command), r.ID.Short())
	if !j.Detach {
		go r.log.takeEcho(r.output.out) // what the supervisor prints first comes that way
	}
	return r.handedOver(ctx)
}

// streams are opened beside the calls of a start: to the supervisor, from its log, and from what it has to be fetched.
const streams = 3

// start starts the container, and tells its supervisor meanwhile what that has to know. After again nobody was told: the container was made anew.
func (r *Run) start(ctx context.Context, j Job, c docker.Container, tree *code.Tree, spec job.Spec) (again bool, err error) {
	telling, stop := context.WithCancel(ctx)
	defer stop()
	told := make(chan error, 1)
	tell := func() { told <- r.tell(telling, j, tree, spec) }
	again, err = r.host.engine.StartAttached(ctx, c, func(s *docker.Stream) {
		r.stream, r.output = s, newAttached(s)
		if len(c.Ports) == 0 {
			go tell()
		}
	})
	if again {
		r.host.rememberLimits()
	}
	if err == nil && !again && len(c.Ports) > 0 { // a job begins when its ports can be reached
		if err = r.ports.open(ctx, r); err == nil {
			go tell()
		}
	}
	if err == nil && !again {
		return false, <-told
	}
	stop()
	if r.output != nil {
		r.output.Close()
	}
	return again, err
}

// tell sends the supervisor its job, and what the host lacks of the working directory.
func (r *Run) tell(ctx context.Context, j Job, tree *code.Tree, spec job.Spec) error {
	err := r.hand(ctx, j, spec)
	if err == nil {
		err = r.sendCode(ctx, tree, r.output)
	}
	return err
}

// hand sends the job with its secrets.
func (r *Run) hand(ctx context.Context, j Job, spec job.Spec) error {
	r.secrets = func(ctx context.Context) (job.Secrets, error) {
		found := job.Secrets{Env: j.Env}
		if isLocal(j.Project.StorageURL) || j.Target.Credentials == "host" {
			return found, nil
		}
		var err error
		found.Storage, err = r.client.Credentials(ctx, j.Project.StorageURL)
		return found, err
	}
	secrets, err := r.secrets(ctx)
	if err == nil {
		err = r.host.look.confirm(ctx, &spec)
	}
	if err != nil {
		return err
	}
	spec.Secrets = len(secrets.Env)+len(secrets.Storage) > 0
	line, err := job.Line{Job: &spec, Secrets: &secrets}.Encode()
	if err == nil {
		_, err = r.stream.Write(line)
	}
	r.sent = secrets
	return err
}

// handedOver leaves the experiment to the supervisor, if what that says gets to the storage without us.
func (r *Run) handedOver(ctx context.Context) error {
	if err := r.changeNote(func(n *Note) { n.Start = nil }); err != nil {
		return err
	}
	if r.pulls() {
		return r.session.SetStatus(ctx, replicate.Running, r.facts)
	}
	session := r.session
	r.session = nil
	return session.Leave(ctx)
}

// abandonTime bounds how long the host may take to remove what was begun there.
const abandonTime = 20 * time.Second

// abandon ends an experiment whose job never ran, and returns why. Of one whose host is out of reach in the middle of its start something may be there: Attach goes on.
func (r *Run) abandon(ctx context.Context, why error) error {
	if r.host != nil && r.host.diedOf(ctx, why) && ctx.Err() == nil && r.session != nil && Notes(r.project)[r.ID].Start != nil {
		r.Close()
		return &replicate.Error{Kind: replicate.Unavailable, Err: errors.Join(why, r.session.Leave(ctx)), Hint: GoesOn(r.ID)}
	}
	status := replicate.Failed
	if ctx.Err() != nil {
		status = replicate.Interrupted
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
	defer cancel()
	if r.host != nil {
		if r.ID != "" && !r.host.isDead() {
			if err := r.host.Remove(ctx, r.ID); err != nil {
				r.client.Warn(err)
			}
		}
	}
	if r.at != nil {
		r.Close()
	}
	if r.session != nil {
		err := r.session.Fail(ctx, status, ExitBroken, replicate.Failure{Type: "run", Message: why.Error()})
		if err = errors.Join(err, removeNote(r.project, r.ID)); err != nil {
			r.client.Warn(err)
		}
	}
	return why
}

// Close lets go of the host.
func (r *Run) Close() {
	r.ports.close()
	if r.stream != nil {
		r.stream.Close()
	}
	r.at.Close()
}

// lookPatience is how long who leaves a job waits to be told who else uses its GPUs.
const lookPatience = 2 * time.Second

// Leave lets go of a job that goes on. With local storage nobody here hears of it then.
func (r *Run) Leave(ctx context.Context) error {
	defer r.Close()
	if r.host != nil && r.host.look != nil {
		r.host.look.await(lookPatience)
	}
	err := r.note(r.pulls())
	if r.session == nil {
		return err
	}
	return errors.Join(err, r.session.SetStatus(ctx, replicate.Detached, r.facts), r.session.Leave(ctx))
}

// Signal asks something of the job. It may be called while the run is followed.
func (r *Run) Signal(ctx context.Context, s job.Signal) error {
	r.mu.Lock()
	at := r.at
	r.mu.Unlock()
	return at.Signal(ctx, r.ID, s)
}

func (r *Run) currentHost() *Host {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.host
}

func (r *Run) setHost(h *Host) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.host, r.at = h, h
}
