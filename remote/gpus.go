package remote

import (
	"bytes"
	"context"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/remote/job"
)

// A gpus is what a host says of its graphics processors that stays as it is for long.
type gpus struct {
	Driver string   `json:"driver,omitempty"` // version of NVIDIA's driver, "" for none
	IDs    []string `json:"ids,omitempty"`    // UUIDs
	Names  []string `json:"names,omitempty"`
	AMD    bool     `json:"amd,omitempty"` // /dev/kfd is there
}

// there reports whether a host has any.
func (g gpus) there() bool { return g.Driver != "" || g.AMD }

func (g gpus) equal(o gpus) bool {
	return g.Driver == o.Driver && g.AMD == o.AMD && slices.Equal(g.IDs, o.IDs) && slices.Equal(g.Names, o.Names)
}

// A busyGPU is one whose memory is used while no run has leased it.
type busyGPU struct {
	index, id string
	used      int64 // bytes
}

// strangersFrom is how many bytes of memory somebody uses: less is what a driver and a desktop take.
const strangersFrom = 1 << 30

// askGPUs is a script for one line: that is a round trip less. Leases are looked at before and after, as a run may begin or end meanwhile. They are looked at from outside: who
// tries a lock is in the way of others that do.
const askGPUs = `leases() { ls -i /run/lock/replicate/gpu-* /tmp/replicate-locks/gpu-* "$HOME"/.local/share/docker/volumes/replicate-locks/_data/gpu-* 2>/dev/null | sed "s/^/lease /"; ` +
	`sed -n "/FLOCK/s/^/lock /p" /proc/locks 2>/dev/null; }; ` +
	`if [ -r /proc/driver/nvidia/version ]; then head -n 1 /proc/driver/nvidia/version; fi; ` +
	`if command -v nvidia-smi >/dev/null; then leases; ` +
	`nvidia-smi --query-gpu=index,uuid,driver_version,memory.used,name --format=csv,noheader,nounits 2>/dev/null | sed "s/^/gpu /"; leases; fi; ` +
	`if [ -e /dev/kfd ]; then echo amd; fi`

// seeGPUs asks the host.
func (h *Host) seeGPUs(ctx context.Context) (g gpus, busy []busyGPU, err error) {
	out, err := h.shell(ctx, askGPUs)
	if err != nil {
		return gpus{}, nil, err
	}
	leases, locked := map[string]string{}, map[string]bool{} // UUIDs by inode; inodes
	for line := range bytes.Lines(out) {
		word, rest, _ := strings.Cut(strings.TrimSpace(string(line)), " ")
		fields := strings.Fields(rest)
		switch {
		case word == "amd" && rest == "":
			g.AMD = true
		case word == "lease" && len(fields) == 2:
			_, leases[fields[0]], _ = strings.Cut(path.Base(fields[1]), "-")
		case word == "lock" && len(fields) >= 6: // 1: FLOCK ADVISORY WRITE PID DEVICE:INODE FROM TO
			locked[fields[5][strings.LastIndexByte(fields[5], ':')+1:]] = true
		case word == "gpu":
			if fields := strings.SplitN(rest, ", ", 5); len(fields) == 5 {
				g.IDs, g.Driver, g.Names = append(g.IDs, fields[1]), fields[2], append(g.Names, fields[4])
				used, _ := strconv.ParseInt(fields[3], 10, 64) // some say that they do not know
				busy = append(busy, busyGPU{fields[0], fields[1], used << 20})
			}
		case g.Driver == "":
			g.Driver = versionIn(string(line))
		}
	}
	for inode := range locked {
		busy = slices.DeleteFunc(busy, func(b busyGPU) bool { return b.id == leases[inode] })
	}
	return g, slices.DeleteFunc(busy, func(b busyGPU) bool { return b.used < strangersFrom }), nil
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
	l := (&Host{client: c, target: Target{Local: true}}).lookAtGPUs(ctx, wanted)
	seen, err := l.usual(ctx)
	if err != nil {
		return nil, err
	}
	spec := job.Spec{GPUs: wanted, Devices: seen.IDs}
	if err = l.confirm(ctx, &spec); err == nil && !seen.there() && wanted != "" && wanted != noGPUs {
		err = noDriver(here{}.Name())
	}
	return spec.Devices, err
}

func (h *Host) where() string {
	if h.conn == nil {
		return "this machine"
	}
	return "remote host"
}
