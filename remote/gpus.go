package remote

import (
	"bytes"
	"context"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/job"
)

// A gpus is what a host says of its graphics processors.
type gpus struct {
	Driver string   // version of NVIDIA's driver, "" for none
	IDs    []string // UUIDs
	Names  []string
	AMD    bool // /dev/kfd is there
}

// seeGPUs asks the host, unless none are wanted.
func (h *Host) seeGPUs(ctx context.Context, wanted string) (gpus, error) {
	if wanted == noGPUs {
		return gpus{}, nil
	}
	const script = "if [ -r /proc/driver/nvidia/version ]; then head -n 1 /proc/driver/nvidia/version; fi; " + // one line: that is a round trip less
		"if command -v nvidia-smi >/dev/null; then " +
		`nvidia-smi --query-gpu=uuid,driver_version,name --format=csv,noheader 2>/dev/null | sed "s/^/gpu /"; fi; ` +
		"if [ -e /dev/kfd ]; then echo amd; fi"
	out, err := h.shell(ctx, script)
	if err != nil {
		return gpus{}, err
	}
	var g gpus
	for line := range bytes.Lines(out) {
		text := strings.TrimSpace(string(line))
		switch {
		case text == "amd":
			g.AMD = true
		case strings.HasPrefix(text, "gpu "):
			fields := strings.SplitN(text[len("gpu "):], ", ", 3)
			if len(fields) == 3 {
				g.IDs, g.Driver, g.Names = append(g.IDs, fields[0]), fields[1], append(g.Names, fields[2])
			}
		case g.Driver == "":
			g.Driver = versionIn(text)
		}
	}
	return g, nil
}

// versionIn returns the first word of a line that is a version of three numbers or two.
func versionIn(line string) string {
	for word := range strings.FieldsSeq(line) {
		if strings.Count(word, ".") >= 1 && strings.Trim(word, "0123456789.") == "" {
			return word
		}
	}
	return ""
}

// noGPUs is what --gpus says for none.
const noGPUs = "none"

// giveGPUs lets the container see the processors of the host; which of them the job gets its supervisor decides, by leases.
func (h *Host) giveGPUs(s survey, wanted string, c *docker.Container, spec *job.Spec) error {
	if wanted == noGPUs {
		return nil
	}
	seen := s.gpus
	switch {
	case seen.Driver == "" && !seen.AMD && wanted == "":
		h.client.Say("No CUDA driver found on %s", h.where())
		return nil
	case seen.AMD && seen.Driver == "":
		c.Devices = append(c.Devices, "/dev/kfd", "/dev/dri")
		return nil
	case seen.Driver == "":
		return noDriver(h.Name())
	}
	h.client.Say("Found CUDA driver on %s: %s", h.where(), seen.Driver)
	c.GPUs = docker.GPUs{All: true, CDI: !s.info.HasRuntime("nvidia") && len(s.info.CDIDirs) > 0}
	spec.Devices = seen.IDs
	return nil
}

func noDriver(host string) error {
	return &replicate.Error{Op: "find GPUs on", Path: host, Kind: replicate.NotFound, Err: replicate.Errorf(replicate.NotFound, "it has no NVIDIA driver"),
		Hint: "leave --gpus out to run on the CPU"}
}

// SharedLocks is where the leases of a machine's GPUs are: in a directory of the machine, so that jobs in Docker and without it respect each other. It is empty after a start of
// the machine, when nobody has a GPU.
const SharedLocks = "/run/lock/replicate"

// locks is the directory of a host for the leases of its GPUs, "" where a volume has to do: there are none, or the engine has a /run of its own.
func (s survey) locks(wanted string) string {
	if wanted == noGPUs || len(s.gpus.IDs) == 0 || s.info.Rootless {
		return ""
	}
	return SharedLocks
}

// gpusHere returns the GPUs that a job in place may choose from.
func (c *Client) gpusHere(ctx context.Context, wanted string) ([]string, error) {
	seen, err := (&Host{client: c, target: Target{Local: true}}).seeGPUs(ctx, wanted)
	if err == nil && seen.Driver == "" && !seen.AMD && wanted != "" && wanted != noGPUs {
		err = noDriver(here{}.Name())
	}
	return seen.IDs, err
}

func (h *Host) where() string {
	if h.conn == nil {
		return "this machine"
	}
	return "remote host"
}
