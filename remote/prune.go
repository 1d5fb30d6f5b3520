package remote

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/job"
)

const (
	// keptFor and keptRuns are how long an ended run stays on its host, and how many of a project do, the newest ones: what they printed can be read again,
	// and their volumes looked into.
	keptFor  = 14 * 24 * time.Hour
	keptRuns = 20
	// builtFor is how long the container of a step that failed stays for people to look into, and envFor how long the image of an environment stays
	// that no container has.
	builtFor = 24 * time.Hour
	envFor   = 30 * 24 * time.Hour
	// startedFor is how long a start that was cut off waits for somebody to go on with it, and a supervisor for its job: sending the code takes long on a slow line.
	startedFor = 24 * time.Hour
	servedFor  = time.Hour // of a container that serves a stopped run, or drops chunks
	maxCaches  = 20 << 30  // bytes of a volume of caches or chunks
)

// A Pruned is something that was removed, or would be.
type Pruned struct {
	What string // "run", "build", "pull", "prune", "environment", "program", "cache", "unused chunks of"
	Name string
	Size int64
	Kept bool // it was not: it is due, and has commits that are nowhere else
}

// PruneOptions say what to remove from a host.
type PruneOptions struct {
	DryRun bool
	Force  bool // also runs whose commits are nowhere else
	// Gone reports whether an experiment was deleted: its run goes at once. nil: none was.
	Gone func(replicate.ID) bool
	Now  time.Time // zero for the clock of the engine
}

// Prune removes what is not needed any more of what has our labels. Whatever holds commits that are nowhere else stays. report is told each thing; what
// could not be removed is an error behind the others.
func (h *Host) Prune(ctx context.Context, o PruneOptions, report func(Pruned)) error {
	usage, err := h.engine.Usage(ctx)
	if err != nil {
		return err
	}
	p := &pruning{host: h, options: o, report: report, now: o.Now}
	if p.now.IsZero() {
		p.now = h.engine.Now()
	}
	if err := p.containers(ctx, usage); err != nil {
		return err
	}
	if err := p.images(ctx, usage); err != nil {
		return err
	}
	if err := p.volumes(ctx, usage); err != nil {
		return err
	}
	return p.chunks(ctx, usage)
}

// tidyTime is how long the end of a run may be spent on earlier ones.
const tidyTime = 200 * time.Millisecond

// tidy does what Prune does to containers, beside the end of a run, for a moment and without counting bytes. What it returns waits for it.
func (h *Host) tidy(ctx context.Context) (wait func()) {
	ctx, cancel := context.WithTimeout(ctx, tidyTime)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		list, err := h.engine.List(ctx, map[string]string{docker.LabelKind: ""})
		if err != nil {
			return
		}
		var usage docker.Usage
		for _, s := range list {
			usage.Containers = append(usage.Containers, docker.Used{Name: s.Name, Kind: s.Labels[docker.LabelKind], Labels: s.Labels, State: s})
		}
		p := &pruning{host: h, now: h.engine.Now(), report: func(r Pruned) {
			if !r.Kept {
				h.client.Say("removed %s %s from %s, which is older", r.What, r.Name, h.Name())
			}
		}}
		_ = p.containers(ctx, usage) // another run goes on
	}()
	return func() { <-done }
}

type pruning struct {
	host    *Host
	options PruneOptions
	report  func(Pruned)
	now     time.Time
	removed []string // names of runs and volumes that are gone, or would be
}

// remove removes something, unless nothing is to be removed.
func (p *pruning) remove(ctx context.Context, what Pruned, remove func(context.Context) error) error {
	if !p.options.DryRun {
		if err := remove(ctx); err != nil {
			return err
		}
	}
	p.report(what)
	return nil
}

// removeRun removes a run, with its volume.
func (p *pruning) removeRun(ctx context.Context, id replicate.ID, size int64) error {
	p.removed = append(p.removed, docker.RunName(id))
	return p.remove(ctx, Pruned{What: docker.KindRun, Name: id.Short(), Size: size}, func(ctx context.Context) error { return p.host.Remove(ctx, id) })
}

func (p *pruning) containers(ctx context.Context, usage docker.Usage) error {
	sizes := map[string]int64{}
	for _, v := range usage.Volumes {
		sizes[v.Name] = v.Size
	}
	list := slices.Clone(usage.Containers)
	slices.SortFunc(list, func(a, b docker.Used) int { return b.State.Created.Compare(a.State.Created) })
	ended := map[string]int{} // runs by project
	for _, c := range list {
		c.Size += sizes[c.Name] // its volume has the same name
		var err error
		switch age := p.now.Sub(c.State.Created); {
		case c.Kind == docker.KindRun && hasStopped(c.State):
			project := c.Labels[docker.LabelProject]
			ended[project]++
			err = p.run(ctx, c, age > keptFor || ended[project] > keptRuns)
		case c.Kind == docker.KindRun:
			err = p.unbegun(ctx, c, age > startedFor)
		case c.Kind == docker.KindBuild && age > builtFor && hasStopped(c.State), (c.Kind == docker.KindPull || c.Kind == docker.KindPrune) && age > servedFor:
			err = p.remove(ctx, Pruned{What: c.Kind, Name: c.Name, Size: c.Size}, func(ctx context.Context) error { return p.host.drop(ctx, c.Name) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// run removes a run that has ended, if it is due.
func (p *pruning) run(ctx context.Context, c docker.Used, old bool) error {
	id, err := replicate.ParseID(c.Labels[docker.LabelExperiment])
	if err != nil {
		return nil
	}
	due, err := p.isDue(ctx, id, old)
	if err == nil && !due && old {
		p.report(Pruned{What: c.Kind, Name: id.Short(), Size: c.Size, Kept: true})
	}
	if err != nil || !due {
		return err
	}
	return p.removeRun(ctx, id, c.Size)
}

// unbegun removes a run that has no job, if the client that began it did not come back for long, or its experiment was deleted.
func (p *pruning) unbegun(ctx context.Context, c docker.Used, old bool) error {
	id, err := replicate.ParseID(c.Labels[docker.LabelExperiment])
	if err != nil || !old && !p.isGone(id) {
		return nil
	}
	if err := p.host.hasJob(ctx, id); replicate.KindOf(err) != replicate.NotFound {
		return err
	}
	return p.removeRun(ctx, id, c.Size)
}

// isGone reports whether the experiment of a run was deleted.
func (p *pruning) isGone(id replicate.ID) bool { return p.options.Gone != nil && p.options.Gone(id) }

// isDue reports whether a run that has ended can go: nothing of it is needed, and its commits are elsewhere.
func (p *pruning) isDue(ctx context.Context, id replicate.ID, old bool) (bool, error) {
	switch {
	case p.isGone(id):
		return true, nil
	case !old:
		return false, nil
	case p.options.Force:
		return true, nil
	}
	return p.host.isFetched(ctx, id)
}

// isFetched reports whether everything that a stopped run recorded is elsewhere.
func (h *Host) isFetched(ctx context.Context, id replicate.ID) (bool, error) {
	err := h.isAcknowledged(ctx, id)
	if err == nil || replicate.KindOf(err) != replicate.NotFound {
		return err == nil, err
	}
	_, err = h.engine.GetFile(ctx, docker.RunName(id), storageDir+"/replicate.json", maxStatus, io.Discard)
	if replicate.KindOf(err) != replicate.NotFound {
		return false, err // it has a repository, which nobody fetched
	}
	if err := h.hasJob(ctx, id); replicate.KindOf(err) == replicate.NotFound {
		return true, nil // it never had anything to record
	}
	s, err := h.State(ctx, id)
	return err == nil && s.Phase == job.Exited && isSent(s), err
}

// images removes environments that no container has had for long, but for the newest of each project.
func (p *pruning) images(ctx context.Context, usage docker.Usage) error {
	list := slices.Clone(usage.Images)
	slices.SortFunc(list, func(a, b docker.Used) int {
		return cmp.Compare(b.Labels[docker.LabelCreated], a.Labels[docker.LabelCreated])
	})
	newest := map[string]bool{}
	for _, i := range list {
		if i.Abandoned(p.now) {
			if err := p.remove(ctx, Pruned{What: "program", Name: i.Name, Size: i.Size}, func(ctx context.Context) error { return p.host.engine.RemoveImage(ctx, i.Name) }); err != nil {
				return err
			}
		}
		if i.Kind != docker.KindEnv {
			continue
		}
		project := i.Labels[docker.LabelProject]
		created, err := time.Parse(time.RFC3339, i.Labels[docker.LabelCreated])
		nameless := strings.HasPrefix(i.Name, "sha256:") && i.Users == 0 && p.now.Sub(created) > builtFor // another one has its name
		if nameless {
			newest[project] = true
		}
		if err != nil || !nameless && p.now.Sub(created) < envFor || !newest[project] || i.Users > 0 {
			newest[project] = true
			continue
		}
		if err := p.remove(ctx, Pruned{What: "environment", Name: i.Name, Size: i.Size}, func(ctx context.Context) error { return p.host.engine.RemoveImage(ctx, i.Name) }); err != nil {
			return err
		}
	}
	return nil
}

// volumes removes programs of other versions, caches that have grown large, and what was left of runs without a container.
func (p *pruning) volumes(ctx context.Context, usage docker.Usage) error {
	info, err := p.host.info(ctx)
	if err != nil {
		return err
	}
	program, err := p.host.client.program(info.Arch)
	if err != nil {
		return err
	}
	for _, v := range usage.Volumes {
		what, remove := Pruned{Name: v.Name, Size: v.Size}, p.host.engine.RemoveVolume
		switch {
		case v.Users > 0:
			continue
		case v.Kind == docker.KindBin && v.Name != program.Volume():
			what.What, remove = "program", p.host.engine.RemoveProgram
		case v.Kind == docker.KindRun && p.options.Force: // whether it was fetched is not known without its container
			what.What = "run"
		case (v.Kind == docker.KindCache || v.Kind == docker.KindChunks) && v.Size > maxCaches:
			what.What = "cache"
		default:
			continue
		}
		p.removed = append(p.removed, v.Name)
		if err := p.remove(ctx, what, func(ctx context.Context) error { return remove(ctx, v.Name) }); err != nil {
			return err
		}
	}
	return nil
}
