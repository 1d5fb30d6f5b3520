package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/code"
	"github.com/replicate/replicate/remote/docker"
)

// chunksFor is how long a chunk of code stays that is in no run of the host: as long as an environment that no container has. Who comes back to a project
// within a month builds and sends what has changed since, and who comes later begins anew with both.
const chunksFor = envFor

// chunks drops what of working directories no run of the host has and nobody used for long. What transfers under way use stays: code.Prune says how.
func (p *pruning) chunks(ctx context.Context, usage docker.Usage) error {
	var volumes []string
	for _, v := range usage.Volumes {
		young := p.now.Sub(v.Created) < chunksFor // and so is everything in it
		if v.Kind == docker.KindChunks && v.Size > 0 && !young && !slices.Contains(p.removed, v.Name) {
			volumes = append(volumes, v.Name)
		}
	}
	if len(volumes) == 0 {
		return nil
	}
	argv := []string{docker.ProgramPath, "supervise", "prune", "--now", p.now.UTC().Format(time.RFC3339), "--unused", chunksFor.String()}
	if p.options.DryRun {
		argv = append(argv, "--dry-run")
	}
	for _, u := range slices.Concat(usage.Containers, usage.Volumes) {
		if id := u.Labels[docker.LabelExperiment]; u.Kind == docker.KindRun && id != "" && !slices.Contains(p.removed, u.Name) {
			argv = append(argv, "--keep", id)
		}
	}
	dropped, err := p.host.dropChunks(ctx, argv, volumes)
	for i, d := range dropped {
		if d.Chunks > 0 {
			p.report(Pruned{What: "unused chunks of", Name: volumes[i], Size: d.Bytes})
		}
	}
	return err
}

// dropChunks runs the program beside volumes of chunks: the engine cannot look into them. It returns what was dropped from each, as far as it came.
func (h *Host) dropChunks(ctx context.Context, argv, volumes []string) (dropped []code.Pruned, err error) {
	info, err := h.info(ctx)
	if err != nil {
		return nil, err
	}
	program, err := h.client.program(info.Arch)
	if err == nil {
		err = h.engine.Deliver(ctx, program)
	}
	if err != nil {
		return nil, err
	}
	c := docker.Container{
		Name: fmt.Sprintf("replicate-prune-%x", h.client.Now().UnixNano()), Image: program.Image(), Argv: argv, Network: "none",
		Labels: map[string]string{docker.LabelKind: docker.KindPrune},
	}
	for _, v := range volumes {
		m := docker.Mount{Volume: v, Target: path.Join(chunksDir, v), Labels: map[string]string{docker.LabelKind: docker.KindChunks}}
		c.Volumes, c.Argv = append(c.Volumes, m), append(c.Argv, m.Target)
	}
	out, err := h.output(ctx, c)
	for lines := json.NewDecoder(bytes.NewReader(out)); ; {
		var d code.Pruned
		if lines.Decode(&d) != nil {
			return dropped[:min(len(dropped), len(volumes))], err
		}
		dropped = append(dropped, d)
	}
}

// output runs a container to its end, removes it, and returns what it printed.
func (h *Host) output(ctx context.Context, c docker.Container) (_ []byte, err error) {
	if _, err := h.engine.Create(ctx, c); err != nil {
		return nil, err
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), abandonTime)
		defer cancel()
		err = errors.Join(err, h.engine.Remove(ctx, c.Name))
	}()
	stream, err := h.attachAndStart(ctx, c)
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var out, words bytes.Buffer
	if err := stream.Output(&out, &words); err != nil {
		return out.Bytes(), err
	}
	code, err := h.engine.Wait(ctx, c.Name)
	if err == nil && code != 0 {
		err = &replicate.Error{Op: "prune", Path: h.Name(), Kind: replicate.Internal, Err: complaint(code, words.String())}
	}
	return out.Bytes(), err
}
