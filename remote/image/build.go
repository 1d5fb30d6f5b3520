package image

import (
	"context"
	"io"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
)

// A Builder makes environments on one host.
type Builder struct {
	Engine *docker.Engine
	// Program has our program on the host and says which it is. It is called when something is to be built.
	Program func(context.Context) (docker.Program, error)
	// Here opens Docker on this machine, from which a base image comes that the host cannot pull; nil for none.
	Here func(context.Context) (*docker.Engine, error)

	User    string // whose caches are used
	Client  string // this machine, as a label
	Project string // as a label
	Network string // of the steps: "host", or "" for the engine's bridge

	Progress func(Progress)                            // nil: nobody looks. Called by one goroutine at a time, at least once a second while a step runs
	Pulled   func(reference string, done, total int64) // how far the base image is; may be nil
}

// Progress says how far an environment is.
type Progress struct {
	Step, Of int // from 1, those that were there already included
	Name     string
	Elapsed  time.Duration
	Done     bool
}

// An Environment is what a job can run in.
type Environment struct {
	Image     string // reference or ID for a container
	Key       string // of the last layer; "" if the base is the environment
	Base      docker.Image
	Layers    []Layer
	Built     time.Time           // of the image
	Fresh     int                 // layers built by or while this call
	Installed replicate.Installed // what is known of it; of an environment that was there it is in /etc/replicate/env.json
}

// Look says what of an environment is on the host: its layers, of which the first there are images. base is false if not even the base image is there. It
// changes nothing.
func (b *Builder) Look(ctx context.Context, p *Plan) (layers []Layer, there int, base bool, err error) {
	state, err := b.look(ctx, p)
	if replicate.KindOf(err) == replicate.NotFound {
		return p.Keys(docker.Image{}), 0, false, nil
	}
	return state.layers, state.there, err == nil, err
}

// A site is what a host has of an environment.
type site struct {
	base   docker.Image
	layers []Layer
	there  int          // so many of them are images
	top    docker.Image // the last of these, or the base
}

// look asks for the base image and for the list of layers at once: that takes one round trip.
func (b *Builder) look(ctx context.Context, p *Plan) (site, error) {
	type listed struct {
		images []docker.Image
		err    error
	}
	listing := make(chan listed, 1)
	go func() {
		images, err := b.Engine.Images(ctx, map[string]string{docker.LabelKind: docker.KindEnv})
		listing <- listed{images, err}
	}()
	var base docker.Image
	var err error
	for _, reference := range p.Bases {
		if base, err = b.Engine.Image(ctx, reference); replicate.KindOf(err) != replicate.NotFound {
			break
		}
	}
	list := <-listing
	if err == nil {
		err = list.err
	}
	if err != nil {
		return site{}, err
	}
	return p.compare(base, list.images), nil
}

// compare finds the highest layer that is there. Those below it need not be.
func (p *Plan) compare(base docker.Image, images []docker.Image) site {
	s := site{base: base, layers: p.Keys(base), top: base}
	tags := map[string]docker.Image{}
	for _, i := range images {
		for _, tag := range i.Tags {
			tags[tag] = i
		}
	}
	for n := len(s.layers); n > 0; n-- {
		if i, ok := tags[docker.EnvImage(s.layers[n-1].Key)]; ok {
			s.there, s.top = n, i
			break
		}
	}
	return s
}

// Prepare has the environment on the host, building what is missing. It may be called again after any error, and by several clients at once: work that is
// being done is waited for, and what was done is kept.
func (b *Builder) Prepare(ctx context.Context, p *Plan) (Environment, error) {
	s, err := b.look(ctx, p)
	if replicate.KindOf(err) == replicate.NotFound {
		if _, err = b.base(ctx, p); err == nil {
			s, err = b.look(ctx, p)
		}
	}
	if err != nil {
		return Environment{}, err
	}
	env := Environment{Image: s.base.ID, Base: s.base, Layers: s.layers, Built: s.top.Created, Fresh: len(s.layers) - s.there}
	if len(s.layers) == 0 {
		return env, nil
	}
	env.Key = s.layers[len(s.layers)-1].Key
	env.Image = docker.EnvImage(env.Key)
	if env.Fresh == 0 {
		return env, nil
	}
	program, err := b.Program(ctx)
	if err != nil {
		return Environment{}, err
	}
	parent := s.base
	if s.there > 0 {
		if parent, err = b.Engine.Image(ctx, docker.EnvImage(s.layers[s.there-1].Key)); err != nil {
			return Environment{}, err
		}
	}
	for i := s.there; i < len(s.layers); i++ {
		l := &layer{Builder: b, Layer: s.layers[i], step: &p.steps[i], parent: parent, site: s, number: i + 1, program: program}
		if l.step.secrets {
			l.secrets = p.secrets
		}
		if parent, err = l.make(ctx); err != nil {
			return Environment{}, err
		}
		env.Installed = l.installed
	}
	env.Built = parent.Created
	return env, nil
}

// A counted reader tells how much was read.
type counted struct {
	from io.Reader
	n    int64
	each func(n int64)
}

// Read implements io.Reader.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	c.n += int64(n)
	c.each(c.n)
	return n, err
}
