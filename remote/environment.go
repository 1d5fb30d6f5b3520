package remote

import (
	"cmp"
	"context"
	"strings"

	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/image"
)

// An environment is the image that a job runs in.
type environment struct {
	Reference string // for the container
	Name      string // for people
	Key       string // "" for an image that somebody else made
}

// prepare has the environment of a job on the host, building what is missing.
func (h *Host) prepare(ctx context.Context, j Job, plan *image.Plan) (environment, error) {
	if j.Environment.CUDA != "" {
		if err := h.checkDriver(ctx, plan); err != nil {
			return environment{}, err
		}
	}
	made, err := h.builder(j).Prepare(ctx, plan)
	if err != nil {
		return environment{}, err
	}
	env := environment{Reference: made.Image, Name: made.Image, Key: made.Key}
	if made.Key == "" && len(made.Base.Tags) > 0 {
		env.Name = made.Base.Tags[0]
	}
	if made.Fresh == 0 {
		age := ""
		if made.Key != "" && h.client.Ago != nil {
			age = ", built " + h.client.Ago(made.Built)
		}
		h.client.Say("Using Docker image %s%s", env.Name, age)
	}
	return env, nil
}

// checkDriver refuses a driver that is too old. One that was may have been replaced.
func (h *Host) checkDriver(ctx context.Context, plan *image.Plan) error {
	if seen, err := h.look.usual(ctx); err == nil && plan.CheckDriver(seen.Driver) == nil {
		return nil
	}
	seen, err := h.look.now(ctx)
	if err == nil {
		err = plan.CheckDriver(seen.Driver)
	}
	return err
}

func (h *Host) builder(j Job) *image.Builder {
	c := h.client
	started := false
	b := &image.Builder{
		Engine: h.engine, Program: h.deliver, User: h.user(), Client: c.Name, Project: projectLabel(j.Project.Root), Here: c.dockerHere(h),
		Progress: func(p image.Progress) {
			if !started {
				started = true
				c.Say("Building Docker image...")
			}
			if p.Done {
				c.Say("  %d/%d %s  %s", p.Step, p.Of, p.Name, c.Lasted(p.Elapsed))
			}
		},
	}
	if c.Progress != nil {
		b.Pulled = func(reference string, done, total int64) { c.Progress("fetching "+reference, done, total) }
	}
	return b
}

// dockerHere opens Docker on this machine, from which images come that a host cannot pull; nil if that is the host.
func (c *Client) dockerHere(h *Host) func(context.Context) (*docker.Engine, error) {
	if h.conn == nil {
		return nil
	}
	return func(ctx context.Context) (*docker.Engine, error) {
		local := &Host{client: c, target: Target{Local: true}}
		return docker.Open(ctx, local.dialSocket(local.firstSocket()))
	}
}

// withLocal returns a command that installs packages of the working directory before it runs another: they are in no image, as they change with the code.
func withLocal(local []image.Local, argv []string) []string {
	if len(local) == 0 {
		return argv
	}
	install := "PIP_BREAK_SYSTEM_PACKAGES=1 python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --root-user-action=ignore"
	for _, l := range local {
		flag := ""
		if l.Editable {
			flag = " -e"
		}
		install += flag + " " + quoteShell("./"+cmp.Or(strings.TrimPrefix(l.Path, "./"), ".")+l.Extras)
	}
	return append([]string{"/bin/sh", "-c", install + ` && exec "$@"`, "sh"}, argv...)
}
