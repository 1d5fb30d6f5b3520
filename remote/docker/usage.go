package docker

import (
	"context"
	"strings"
	"time"

	"github.com/moby/moby/client"
)

// A Usage is everything of ours that is on an engine, with sizes. The engine counts them: seconds where volumes hold much.
type Usage struct {
	Containers []Used
	Images     []Used
	Volumes    []Used
}

// A Used is an object of ours.
type Used struct {
	Name   string // of an image its first reference, or its ID
	Kind   string // KindRun, …
	Labels map[string]string
	Size   int64 // bytes that go with it: of a container those it wrote, of an image those it shares with no other
	Users  int64 // containers that have it, running or not; 0 for a container
	State  State // of a container

	Created time.Time // of an image or a volume, zero if the engine does not say
}

// Abandoned reports whether an image is a program that was sent by a client which died then.
func (u Used) Abandoned(now time.Time) bool {
	whole := strings.HasPrefix(u.Name, binImages+":") && !strings.Contains(strings.TrimPrefix(u.Name, binImages), "-")
	return u.Kind == KindBin && !u.Created.IsZero() && !whole && now.Sub(u.Created) > sendTime
}

// Usage lists what has our labels.
func (e *Engine) Usage(ctx context.Context) (Usage, error) {
	var usage Usage
	err := e.call(ctx, "count what Docker holds", "", func(ctx context.Context) error {
		answer, err := e.api.DiskUsage(ctx, client.DiskUsageOptions{Containers: true, Images: true, Volumes: true, Verbose: true})
		if err != nil {
			return err
		}
		for _, c := range answer.Containers.Items {
			state := summarized(c)
			usage.Containers = add(usage.Containers, Used{Name: state.Name, Labels: state.Labels, Size: c.SizeRw, State: state})
		}
		for _, i := range answer.Images.Items {
			image := listed(i)
			name := image.ID
			if len(image.Tags) > 0 {
				name = image.Tags[0]
			}
			usage.Images = add(usage.Images, Used{
				Name: name, Labels: image.Labels, Size: i.Size - max(0, i.SharedSize), Users: max(0, i.Containers), Created: image.Created,
			})
		}
		for _, v := range volumes(answer.Volumes.Items) {
			usage.Volumes = add(usage.Volumes, Used{Name: v.Name, Labels: v.Labels, Size: max(0, v.Size), Users: max(0, v.Users), Created: v.Created})
		}
		return nil
	})
	return usage, err
}

// add appends what is ours.
func add(list []Used, u Used) []Used {
	if u.Kind = u.Labels[LabelKind]; u.Kind == "" {
		return list
	}
	return append(list, u)
}
