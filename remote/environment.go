package remote

import (
	"context"

	"github.com/replicate/replicate"
)

// An environment is the image that a job runs in.
type environment struct {
	Reference string
	Key       string // "" for an image that somebody else made
}

// prepare has the environment of a job on the host.
func (h *Host) prepare(ctx context.Context, j Job) (environment, error) {
	image := j.Image
	if image == "" {
		image = j.Project.Config.Image
	}
	if image == "" {
		image = "python:3.11-slim"
	}
	if _, err := h.engine.Image(ctx, image); err != nil {
		if replicate.KindOf(err) != replicate.NotFound {
			return environment{}, err
		}
		if err := h.engine.Pull(ctx, image, nil); err != nil {
			return environment{}, err
		}
	}
	h.client.Say("Using Docker image %s", image)
	return environment{Reference: image}, nil
}
