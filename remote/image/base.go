package image

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
)

// base returns the base image, which is brought to the host if it is not there: from its registry, else from this machine's Docker.
func (b *Builder) base(ctx context.Context, p *Plan) (docker.Image, error) {
	for _, reference := range p.Bases {
		found, err := b.Engine.Image(ctx, reference)
		if replicate.KindOf(err) != replicate.NotFound {
			return found, err
		}
	}
	var why []error
	for _, bring := range []func(context.Context, string) error{b.pull, b.carry} {
		for _, reference := range p.Bases {
			err := bring(ctx, reference)
			if err == nil {
				return b.Engine.Image(ctx, reference)
			}
			if ctx.Err() != nil || replicate.KindOf(err) == replicate.Full {
				return docker.Image{}, err
			}
			why = append(why, err)
		}
	}
	return docker.Image{}, b.noBase(ctx, p.Bases[0], why)
}

func (b *Builder) pull(ctx context.Context, reference string) error {
	return b.Engine.Pull(ctx, reference, func(d docker.Pulled) {
		if b.Pulled != nil {
			b.Pulled(reference, d.Done, d.Total)
		}
	})
}

// errNotHere says that this machine's Docker does not have an image either. It explains nothing that a pull has not.
var errNotHere = errors.New("not in Docker on this machine")

// carry streams an image from this machine's Docker to the host's.
func (b *Builder) carry(ctx context.Context, reference string) error {
	if b.Here == nil {
		return errNotHere
	}
	here, err := b.Here(ctx)
	if err != nil {
		return errNotHere
	}
	found, err := here.Image(ctx, reference)
	if err != nil {
		return errNotHere
	}
	if err := b.suits(ctx, found); err != nil {
		return err
	}
	saved, err := here.Save(ctx, reference)
	if err != nil {
		return err
	}
	defer saved.Close()
	return b.Engine.Load(ctx, &counted{from: saved, each: func(n int64) {
		if b.Pulled != nil {
			b.Pulled(reference, n, found.Size)
		}
	}})
}

// suits refuses an image of this machine that the host cannot run.
func (b *Builder) suits(ctx context.Context, found docker.Image) error {
	info, err := b.Engine.Info(ctx)
	if err != nil {
		return err
	}
	if arch := strings.Split(found.Platform, "/"); len(arch) > 1 && arch[1] != info.Arch {
		return fmt.Errorf("the one in Docker on this machine is for %s, and the host is %s", arch[1], info.Arch)
	}
	return nil
}

// maxNamed is how many images of the host an error names.
const maxNamed = 5

// noBase says that there is no base image, and the ways out.
func (b *Builder) noBase(ctx context.Context, reference string, why []error) error {
	why = slices.DeleteFunc(why, func(err error) bool { return errors.Is(err, errNotHere) })
	e := &replicate.Error{Op: "get base image", Path: reference, Kind: replicate.NotFound, Err: errors.Join(why...)}
	if len(why) > 0 {
		e.Err, e.Kind = why[0], replicate.KindOf(why[0])
		if inner, ok := errors.AsType[*replicate.Error](why[0]); ok {
			e.Err = inner.Err // which image, and what was done, is said already
		}
	}
	load := fmt.Sprintf("docker save %s | ssh HOST docker load", reference)
	if b.Here == nil { // the host is this machine
		load = "docker load"
	}
	e.Hint = fmt.Sprintf("name an image that the host has, with image: or --image%s; or load one, with %s; or give the host's Docker a mirror or a proxy",
		b.candidates(ctx), load)
	return e
}

// candidates names images of the host that have Python, as far as their names tell.
func (b *Builder) candidates(ctx context.Context) string {
	all, err := b.Engine.ImagesNamed(ctx, "*")
	if err != nil {
		return ""
	}
	var names []string
	for _, i := range all {
		for _, tag := range i.Tags {
			if len(names) < maxNamed && speaksPython(tag) {
				names = append(names, tag)
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

func speaksPython(tag string) bool {
	if strings.HasPrefix(tag, "replicate-") {
		return false
	}
	for _, word := range []string{"python", "torch", "tensorflow", "jax", "conda", "jupyter"} {
		if strings.Contains(tag, word) {
			return true
		}
	}
	return false
}
