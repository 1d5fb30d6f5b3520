package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/job"
)

const (
	// commitPatience is how long after the end of a step its commit is left to the client that began it: a GB takes eight seconds. Of two commits
	// one leaves an image without a name, which is all that happens.
	commitPatience = 10 * time.Second
	// maxTries is how often a container may vanish: others that build the same and fail, or are stopped, take it away.
	maxTries = 20
	// lookAgain is how often it looks whether the image is there.
	lookAgain = 200 * time.Millisecond
	// maxFound bounds a list of what is installed.
	maxFound = 4 << 20
)

// A layer is one that is being made.
type layer struct {
	*Builder
	Layer
	program   docker.Program
	step      *step
	parent    docker.Image
	site      site
	number    int
	secrets   map[string]string
	installed replicate.Installed

	redelivered bool
}

// make returns the layer's image when there is one, built by whomever.
func (l *layer) make(ctx context.Context) (docker.Image, error) {
	start := time.Now()
	l.show(start, false)
	for tries := 0; ; tries++ {
		err := l.try(ctx, start, tries > 0)
		if err == nil {
			l.show(start, true)
			return l.image(ctx)
		}
		if !errors.Is(err, errVanished) || tries == maxTries {
			return docker.Image{}, err
		}
		if i, err := l.image(ctx); replicate.KindOf(err) != replicate.NotFound { // another client was faster
			return i, err
		}
	}
}

// try makes the container, or goes on with the one that is there, until there is an image.
func (l *layer) try(ctx context.Context, start time.Time, again bool) error {
	created, err := l.Engine.Create(ctx, l.container())
	if err != nil {
		return err
	}
	state, err := l.Engine.Inspect(ctx, l.name())
	switch {
	case err != nil:
		return l.vanished(err)
	case state.Phase != docker.Exited:
		if err := l.run(ctx, start, state.Phase == docker.Created); err != nil {
			return err
		}
	case state.ExitCode == 0:
		// its client may be lost, or about to commit
	case again:
		return l.failed(ctx, state.ExitCode)
	default: // an earlier failure, which was told to whoever waited for it
		if err := l.remove(ctx); err != nil {
			return err
		}
		return errVanished
	}
	if !created {
		if done, err := l.awaitImage(ctx); done || err != nil {
			return err
		}
	}
	return l.finish(ctx)
}

// errVanished says that the container is gone without an image: whoever had it gave up, or removed it for another try.
var errVanished = errors.New("the container of the build is gone")

func (l *layer) name() string { return docker.BuildName(l.Key) }

// image returns the image of the layer, NotFound if there is none yet.
func (l *layer) image(ctx context.Context) (docker.Image, error) {
	return l.Engine.Image(ctx, docker.EnvImage(l.Key))
}

func (l *layer) labels(kind string) map[string]string {
	return map[string]string{
		docker.LabelKind: kind, docker.LabelEnv: l.Key, docker.LabelParent: l.Parent, docker.LabelProject: l.Project, docker.LabelUser: l.User,
		docker.LabelClient: l.Client, docker.LabelCreated: l.Engine.Now().UTC().Format(time.RFC3339),
	}
}

func (l *layer) container() docker.Container {
	cache := map[string]string{docker.LabelKind: docker.KindCache, docker.LabelUser: l.User}
	return docker.Container{
		Name: l.name(), Image: l.parent.ID, Argv: []string{docker.ProgramPath, "supervise"}, Labels: l.labels(docker.KindBuild),
		Volumes: []docker.Mount{
			l.program.Mount(),
			{Volume: l.name(), Target: docker.RunDir, Labels: l.labels(docker.KindBuild)},
			{Volume: docker.CacheVolume(l.User), Target: cacheDir, Labels: cache},
		},
		Tmpfs: []string{secretDir}, Network: l.Network, Usual: true,
	}
}

// run has the step run to its end. Whatever of that was done before is found: a container that runs has its job or takes this one.
func (l *layer) run(ctx context.Context, start time.Time, fresh bool) error {
	if fresh {
		if err := l.Engine.PutFiles(ctx, l.name(), docker.RunDir, l.files()...); err != nil {
			return l.vanished(err)
		}
	}
	stream, err := l.start(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	go stream.Output(io.Discard, io.Discard) // PID 1 must not wait for a reader
	line, err := l.line().Encode()
	if err == nil {
		_, err = stream.Write(line)
	}
	if err != nil {
		return l.vanished(&replicate.Error{Op: "send a step to", Path: l.name(), Kind: replicate.Unavailable, Err: err})
	}
	return l.wait(ctx, start)
}

// vanished adds to an error that the container is gone, or that somebody removes it just now.
func (l *layer) vanished(err error) error {
	switch replicate.KindOf(err) {
	case replicate.NotFound, replicate.Conflict:
		return fmt.Errorf("%w: %w", errVanished, err)
	}
	return err
}

func (l *layer) files() []docker.File {
	var files []docker.File
	for _, f := range l.step.files {
		files = append(files, docker.File{Name: strings.TrimPrefix(stepDir, docker.RunDir+"/") + "/" + f.name, Mode: 0o755, Data: f.data})
	}
	return files
}

// start attaches to the container and starts it.
func (l *layer) start(ctx context.Context) (*docker.Stream, error) {
	stream, err := l.Engine.Attach(ctx, l.name())
	if err != nil {
		return nil, l.vanished(err)
	}
	_, err = l.Engine.Start(ctx, l.container())
	if err == nil {
		return stream, nil
	}
	stream.Close()
	if errors.Is(err, docker.ErrNoProgram) && !l.redelivered {
		l.redelivered = true
		if err = errors.Join(l.remove(ctx), l.Engine.Redeliver(ctx, l.program)); err == nil {
			err = errVanished
		}
	}
	return nil, l.vanished(err)
}

// line is the step as a job that no experiment hears of.
func (l *layer) line() job.Line {
	spec := &job.Spec{Argv: l.step.command(), Cwd: "/", GPUs: "none"}
	secrets := &job.Secrets{Env: l.secrets}
	for name := range l.secrets {
		spec.Env = append(spec.Env, name)
	}
	spec.Secrets = len(l.secrets) > 0
	return job.Line{Job: spec, Secrets: secrets}
}

// wait returns when the step has ended, nil if it ended well.
func (l *layer) wait(ctx context.Context, start time.Time) error {
	ended := make(chan error, 1)
	var code int
	go func() {
		var err error
		code, err = l.Engine.Wait(ctx, l.name())
		ended <- err
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			switch {
			case err != nil:
				return l.vanished(err)
			case code != 0:
				return l.failed(context.WithoutCancel(ctx), code)
			}
			return nil
		case <-tick.C:
			l.show(start, false)
		}
	}
}

func (l *layer) show(start time.Time, done bool) {
	if l.Progress != nil {
		l.Progress(Progress{Step: l.number, Of: len(l.site.layers), Name: l.Name, Elapsed: time.Since(start), Done: done})
	}
}

// finish makes the image of a step that ended well, and clears up.
func (l *layer) finish(ctx context.Context) error {
	if _, err := l.image(ctx); replicate.KindOf(err) == replicate.NotFound {
		if err := l.commit(ctx); err != nil {
			return l.vanished(err)
		}
	} else if err != nil {
		return err
	}
	return l.remove(ctx)
}

// awaitImage leaves the commit to the client that began the step, for a while after its end. The error is errVanished if the container goes without an
// image.
func (l *layer) awaitImage(ctx context.Context) (done bool, err error) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		state, gone := l.Engine.Inspect(ctx, l.name())
		_, err := l.image(ctx) // behind the look at the container: it is removed last
		switch {
		case err == nil:
			return true, nil
		case replicate.KindOf(err) != replicate.NotFound:
			return false, err
		case replicate.KindOf(gone) == replicate.NotFound:
			return false, errVanished
		case gone != nil:
			return false, gone
		case l.Engine.Now().Sub(state.Finished) > commitPatience:
			return false, nil // it is lost
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// commit writes down what is installed, and makes the image.
func (l *layer) commit(ctx context.Context) error {
	if err := l.note(ctx); err != nil {
		return err
	}
	base := l.parent
	if l.step.path != "" {
		base.Env = withPath(base.Env, l.step.path)
	}
	_, err := l.Engine.Commit(ctx, l.name(), docker.Commit{Reference: docker.EnvImage(l.Key), Labels: l.labels(docker.KindEnv), Base: base})
	return err
}

// withPath puts a directory in front of PATH.
func withPath(env []string, dir string) []string {
	var list []string
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, v := range env {
		if value, ok := strings.CutPrefix(v, "PATH="); ok {
			path = value
		} else {
			list = append(list, v)
		}
	}
	return append(list, "PATH="+dir+":"+path)
}

// InstalledPath is where an image that was built here has its replicate.Installed, as JSON.
const InstalledPath = "/etc/replicate/env.json"

// note writes env.json into the container.
func (l *layer) note(ctx context.Context) error {
	i := replicate.Installed{Base: l.site.base.ID, Platform: l.site.base.Platform}
	if tags := l.site.base.Tags; len(tags) > 0 {
		i.Image = tags[0]
	}
	for _, below := range l.site.layers[:l.number] {
		i.Chain, i.Steps = append(i.Chain, below.Key), append(i.Steps, below.Name)
	}
	for name, to := range map[string]*[]string{"pip": &i.Pip, "apt": &i.Apt} {
		var text bytes.Buffer
		_, err := l.Engine.GetFile(ctx, l.name(), foundDir+"/"+name, maxFound, &text)
		switch replicate.KindOf(err) {
		case "":
			*to = strings.Split(strings.TrimSpace(text.String()), "\n")
		case replicate.NotFound, replicate.Corrupt: // there is none in this image
		default:
			return err
		}
	}
	l.installed = i
	text, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return err
	}
	return l.Engine.PutFiles(ctx, l.name(), "/", docker.File{Name: strings.TrimPrefix(InstalledPath, "/"), Mode: 0o644, Data: append(text, '\n')})
}

// remove clears up what the step needed.
func (l *layer) remove(ctx context.Context) error {
	if err := l.Engine.Remove(ctx, l.name()); err != nil {
		return err
	}
	err := l.Engine.RemoveVolume(ctx, l.name())
	if replicate.KindOf(err) == replicate.Conflict { // another client has made the container again
		return nil
	}
	return err
}
