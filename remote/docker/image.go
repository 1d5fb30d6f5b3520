package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
)

// An Image is an image of the engine. Lists leave Platform and what follows empty.
type Image struct {
	ID       string // a digest of its content
	Tags     []string
	Created  time.Time
	Labels   map[string]string
	Size     int64
	Platform string // linux/amd64, linux/arm64/v8
	Env      []string
	User     string
	Dir      string
	Entry    []string
	Command  []string
}

// Images returns the images that have all these labels, the newest first. A label with an empty value matches every value.
func (e *Engine) Images(ctx context.Context, labels map[string]string) ([]Image, error) {
	return e.images(ctx, client.Filters{}.Add("label", conditions(labels)...))
}

// ImagesNamed returns the images whose references match a pattern like "python:*", the newest first.
func (e *Engine) ImagesNamed(ctx context.Context, pattern string) ([]Image, error) {
	return e.images(ctx, client.Filters{}.Add("reference", pattern))
}

func (e *Engine) images(ctx context.Context, filters client.Filters) ([]Image, error) {
	var list []Image
	err := e.call(ctx, "list images", "", func(ctx context.Context) error {
		answer, err := e.api.ImageList(ctx, client.ImageListOptions{Filters: filters})
		for _, found := range answer.Items {
			list = append(list, listed(found))
		}
		return err
	})
	slices.SortFunc(list, func(a, b Image) int { return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID)) })
	return list, err
}

func listed(s image.Summary) Image {
	tags := slices.DeleteFunc(s.RepoTags, func(tag string) bool { return tag == "<none>:<none>" })
	return Image{ID: s.ID, Tags: tags, Created: time.Unix(s.Created, 0).UTC(), Labels: s.Labels, Size: s.Size}
}

// Image returns the image of a reference or an ID. The kind of the error is NotFound if the host has no such image.
func (e *Engine) Image(ctx context.Context, reference string) (Image, error) {
	var found Image
	err := e.call(ctx, "inspect image", reference, func(ctx context.Context) error {
		answer, err := e.api.ImageInspect(ctx, reference)
		if err != nil {
			return err
		}
		found = Image{ID: answer.ID, Tags: answer.RepoTags, Size: answer.Size, Platform: answer.Os + "/" + answer.Architecture}
		if answer.Variant != "" {
			found.Platform += "/" + answer.Variant
		}
		found.Created, _ = time.Parse(time.RFC3339Nano, answer.Created)
		if c := answer.Config; c != nil {
			found.Labels, found.Env, found.User, found.Dir, found.Entry, found.Command = c.Labels, c.Env, c.User, c.WorkingDir, c.Entrypoint, c.Cmd
		}
		return nil
	})
	return found, err
}

// A Pulled is how far a pull is: the bytes fetched, of the bytes of all layers heard of so far.
type Pulled struct{ Done, Total int64 }

// Pull brings the image of a reference from its registry. progress may be nil; it is called between messages of the engine.
// The kind of the error is NotFound if the registry has no such image, Unavailable if the host cannot reach it.
func (e *Engine) Pull(ctx context.Context, reference string, progress func(Pulled)) error {
	return e.call(ctx, "pull", reference, func(ctx context.Context) error {
		answer, err := e.api.ImagePull(ctx, reference, client.ImagePullOptions{})
		if err != nil {
			return err
		}
		defer answer.Close()
		return follow(answer, progress)
	})
}

// Load brings the images of a stream of "docker save".
func (e *Engine) Load(ctx context.Context, saved io.Reader) error {
	return e.upload(ctx, "load image", "", saved, func(ctx context.Context, saved io.Reader) error {
		answer, err := e.api.ImageLoad(ctx, saved, client.ImageLoadWithQuiet(true))
		if err != nil {
			return err
		}
		defer answer.Close()
		return follow(answer, nil)
	})
}

// Save returns the image of a reference as a stream for Load. Whoever called closes it.
func (e *Engine) Save(ctx context.Context, reference string) (io.ReadCloser, error) {
	var saved io.ReadCloser
	err := e.call(ctx, "save image", reference, func(ctx context.Context) error {
		answer, err := e.api.ImageSave(ctx, []string{reference})
		saved = answer
		return err
	})
	return saved, err
}

// Import makes an image of the files of a tar, gzipped or not, with these labels.
func (e *Engine) Import(ctx context.Context, reference string, tar io.Reader, labels map[string]string) error {
	var changes []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		changes = append(changes, "LABEL "+quote(name)+"="+quote(labels[name]))
	}
	return e.upload(ctx, "import image", reference, tar, func(ctx context.Context, tar io.Reader) error {
		source := client.ImageImportSource{Source: tar, SourceName: "-"}
		answer, err := e.api.ImageImport(ctx, source, reference, client.ImageImportOptions{Changes: changes})
		if err != nil {
			return err
		}
		defer answer.Close()
		return follow(answer, nil)
	})
}

// Tag gives an image one more name, taking that from another image if need be.
func (e *Engine) Tag(ctx context.Context, image, reference string) error {
	return e.call(ctx, "tag image", reference, func(ctx context.Context) error {
		_, err := e.api.ImageTag(ctx, client.ImageTagOptions{Source: image, Target: reference})
		return err
	})
}

// RemoveImage removes a name of an image, and the image and those below it that have no name if it was the last. Missing ones are
// gone already. The kind of the error is Conflict while a container needs it.
func (e *Engine) RemoveImage(ctx context.Context, reference string) error {
	return gone(e.call(ctx, "remove image", reference, func(ctx context.Context) error {
		_, err := e.api.ImageRemove(ctx, reference, client.ImageRemoveOptions{PruneChildren: true})
		return err
	}))
}

// follow reads the messages of a long call to their end, and returns the error that is one of them.
func follow(stream io.Reader, progress func(Pulled)) error {
	layers := map[string]Pulled{}
	for messages := json.NewDecoder(stream); ; {
		var m struct {
			ID       string `json:"id"`
			Status   string `json:"status"`
			Progress struct {
				Current, Total int64
			} `json:"progressDetail"`
			Error string `json:"error"`
		}
		if err := messages.Decode(&m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if m.Error != "" {
			return said(m.Error)
		}
		if progress == nil || m.Status != "Downloading" {
			continue
		}
		layers[m.ID] = Pulled{m.Progress.Current, m.Progress.Total}
		var sum Pulled
		for _, layer := range layers {
			sum.Done += layer.Done
			sum.Total += layer.Total
		}
		progress(sum)
	}
}

// quote puts a word of a label into the quotes of a Dockerfile.
func quote(s string) string {
	quoted := []byte{'"'}
	for _, c := range []byte(s) {
		if c == '"' || c == '\\' || c == '$' {
			quoted = append(quoted, '\\')
		}
		quoted = append(quoted, c)
	}
	return string(append(quoted, '"'))
}

// conditions are labels as filters have them.
func conditions(labels map[string]string) []string {
	var list []string
	for name, value := range labels {
		if value != "" {
			name += "=" + value
		}
		list = append(list, name)
	}
	return list
}
