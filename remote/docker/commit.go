package docker

import (
	"context"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// A Commit says what image is made of a container.
type Commit struct {
	Reference string
	Labels    map[string]string // these and the container's
	Base      Image             // whose environment, user, directory, entry point and command the image has, in place of the container's
}

// Commit makes an image of the files of a container, volumes and tmpfs left out, and returns its ID. A reference that another image has is
// taken from it. The container should have ended: one that runs is paused meanwhile.
func (e *Engine) Commit(ctx context.Context, name string, c Commit) (id string, err error) {
	config := &container.Config{
		Labels: c.Labels, Env: c.Base.Env, User: c.Base.User, WorkingDir: c.Base.Dir, Entrypoint: present(c.Base.Entry), Cmd: present(c.Base.Command),
	}
	err = e.call(ctx, "commit container", name, func(ctx context.Context) error {
		answer, err := e.api.ContainerCommit(ctx, name, client.ContainerCommitOptions{Reference: c.Reference, Config: config})
		id = answer.ID
		return err
	})
	return id, err
}

// present is a list that is empty rather than not there: in place of one that is not there the engine takes the container's.
func present(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
