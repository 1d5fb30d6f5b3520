package docker

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
)

// A Volume is a volume of the engine.
type Volume struct {
	Name    string
	Labels  map[string]string
	Created time.Time
	Size    int64 // -1 if nobody counted
	Users   int64 // containers that have it, running or not; -1 if nobody counted
}

// CreateVolume makes a volume; one of this name that is there is left as it is, with the labels it has.
func (e *Engine) CreateVolume(ctx context.Context, name string, labels map[string]string) error {
	return e.call(ctx, "create volume", name, func(ctx context.Context) error {
		_, err := e.api.VolumeCreate(ctx, client.VolumeCreateOptions{Name: name, Labels: labels})
		return err
	})
}

// Volumes returns the volumes that have all these labels, by name. Nobody counts their sizes: Usage does. A label with an empty
// value matches every value.
func (e *Engine) Volumes(ctx context.Context, labels map[string]string) ([]Volume, error) {
	var list []Volume
	err := e.call(ctx, "list volumes", "", func(ctx context.Context) error {
		filters := client.Filters{}.Add("label", conditions(labels)...)
		answer, err := e.api.VolumeList(ctx, client.VolumeListOptions{Filters: filters})
		list = volumes(answer.Items)
		return err
	})
	return list, err
}

// Volume returns the volume of a name. The kind of the error is NotFound if there is none.
func (e *Engine) Volume(ctx context.Context, name string) (Volume, error) {
	var found Volume
	err := e.call(ctx, "inspect volume", name, func(ctx context.Context) error {
		answer, err := e.api.VolumeInspect(ctx, name, client.VolumeInspectOptions{})
		found = volumeOf(answer.Volume)
		return err
	})
	return found, err
}

// RemoveVolume removes a volume; one that is not there is gone. The kind of the error is Conflict while a container has it.
func (e *Engine) RemoveVolume(ctx context.Context, name string) error {
	return gone(e.call(ctx, "remove volume", name, func(ctx context.Context) error {
		_, err := e.api.VolumeRemove(ctx, name, client.VolumeRemoveOptions{})
		return err
	}))
}

func volumes(found []volume.Volume) []Volume {
	var list []Volume
	for _, v := range found {
		list = append(list, volumeOf(v))
	}
	slices.SortFunc(list, func(a, b Volume) int { return cmp.Compare(a.Name, b.Name) })
	return list
}

func volumeOf(v volume.Volume) Volume {
	found := Volume{Name: v.Name, Labels: v.Labels, Created: moment(v.CreatedAt), Size: -1, Users: -1}
	if v.UsageData != nil {
		found.Size, found.Users = v.UsageData.Size, v.UsageData.RefCount
	}
	return found
}
