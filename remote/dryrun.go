package remote

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/replicate/replicate/remote/image"
)

// DryRun tells what Start would do, and does none of it.
func (c *Client) DryRun(ctx context.Context, j Job) error {
	plan, err := image.New(ctx, j.Environment)
	if err != nil {
		return err
	}
	tree, err := c.scan(ctx, j)
	if err != nil {
		return err
	}
	h, err := c.Open(ctx, j.Target)
	if err != nil {
		return err
	}
	defer h.Close()
	info, err := h.info(ctx)
	if err != nil {
		return err
	}
	h.look = h.lookAtGPUs(ctx, j.GPUs)
	seen, err := h.look.now(ctx)
	if err != nil {
		return err
	}
	if _, err := c.program(info.Arch); err != nil {
		return err
	}
	layers, there, base, err := h.builder(j).Look(ctx, plan)
	if err != nil {
		return err
	}
	c.Say("host:      %s, linux/%s, %d cores, %s of memory, Docker %s at %s", h.Name(), info.Arch, info.CPUs, c.Size(info.Memory), info.Version, h.socket)
	c.Say("base:      %s%s", plan.Bases[0], missing(base, ", not on the host"))
	for i, layer := range layers {
		c.Say("layer:     %s%s", layer.Name, missing(i < there, ", to be built"))
	}
	for _, local := range plan.Local {
		c.Say("installed: %s, where the job runs", local.Path)
	}
	c.Say("code:      %s (%s)%s", plural(tree.Files, "file"), c.Size(tree.Bytes), c.LeftOut(tree.LeftOut))
	for _, m := range slices.Concat(j.Target.Mounts, j.Mounts) {
		c.Say("mount:     %s at %s%s", m.Source, m.Target, missing(m.Writable, ", read-only"))
	}
	c.Say("gpus:      %s", seen.text(j.GPUs))
	if len(j.Env) > 0 {
		c.Say("variables: %s", strings.Join(slices.Sorted(maps.Keys(j.Env)), " "))
	}
	c.Say("storage:   %s", j.Project.StorageURL)
	c.Say("command:   %s", commandText(j.Argv))
	return nil
}

// missing is a remark, unless something is as it should be.
func missing(ok bool, remark string) string {
	if ok {
		return ""
	}
	return remark
}

// text says which processors a job would get.
func (g gpus) text(wanted string) string {
	switch {
	case wanted == noGPUs:
		return "none"
	case g.Driver == "" && g.AMD:
		return "AMD"
	case g.Driver == "":
		return "none there"
	case wanted == "":
		return fmt.Sprintf("those that nobody has leased of %d, driver %s", len(g.IDs), g.Driver)
	}
	return fmt.Sprintf("%s of %d, driver %s", wanted, len(g.IDs), g.Driver)
}
