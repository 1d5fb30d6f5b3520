package remote

import (
	"cmp"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/replicate/replicate/remote/docker"
	"github.com/replicate/replicate/storage/repository"
)

// A memory is what Client.Memory holds. Of two commands that write it at once one is forgotten, which costs the time to find it out again.
type memory struct {
	Programs map[string]summed    `json:"programs,omitempty"` // by path
	Limits   map[string]time.Time `json:"limits,omitempty"`   // engines that refused the limits of a container, by identity
	APIs     map[string]string    `json:"apis,omitempty"`     // what engines spoke the last time, by identity
	Sockets  map[string]string    `json:"sockets,omitempty"`  // where engines were found that had to be looked for, by machine
	GPUs     map[string]gpusSeen  `json:"gpus,omitempty"`     // of machines that have some
}

// summed is what a binary was when it was read.
type summed struct {
	Stamp repository.Stamp `json:"stamp"`
	Sum   string           `json:"sum"`
}

// gpusSeen are the GPUs of a machine, when it was asked.
type gpusSeen struct {
	At time.Time `json:"at"`
	gpus
}

const (
	// settled is how old the last change of a file must be for its stamp to tell the next one apart, whatever the clock of its file system.
	settled = 10 * time.Second
	// refusedFor is how long a host that refused limits is not asked again: being refused makes a start twice as long.
	refusedFor = 24 * time.Hour
)

// remembered is what is known. A file that cannot be read is none.
func (c *Client) remembered() (m memory) {
	text, err := os.ReadFile(c.Memory)
	if err != nil || json.Unmarshal(text, &m) != nil {
		return memory{}
	}
	return m
}

// remember changes what is known.
func (c *Client) remember(change func(*memory)) {
	if c.Memory == "" {
		return
	}
	c.remembering.Lock()
	defer c.remembering.Unlock()
	m := c.remembered()
	change(&m)
	text, err := json.Marshal(m)
	if err != nil || os.MkdirAll(filepath.Dir(c.Memory), 0o700) != nil {
		return
	}
	_ = repository.ReplaceFile(c.Memory, text) // what is not remembered is found out again
}

// sum is docker.SumBinary for a binary that most often is that of the last command.
func (c *Client) sum(binary string) (string, error) {
	now := c.Now()
	stamp, ok := stampOf(binary)
	if known, found := c.remembered().Programs[binary]; ok && found && known.Stamp == stamp {
		return known.Sum, nil
	}
	sum, err := docker.SumBinary(binary)
	if err != nil {
		return "", err
	}
	if after, _ := stampOf(binary); ok && after == stamp && stamp.Settled(now.Add(-settled)) {
		c.remember(func(m *memory) { m.Programs = with(m.Programs, binary, summed{stamp, sum}) })
	}
	return sum, nil
}

func stampOf(path string) (repository.Stamp, bool) {
	f, err := os.Open(path)
	if err != nil {
		return repository.Stamp{}, false
	}
	defer f.Close()
	return repository.StampOf(f)
}

func with[V any](m map[string]V, key string, value V) map[string]V {
	if m == nil {
		m = map[string]V{}
	}
	m[key] = value
	return m
}

// machine tells the machine, and who we are on it, from others, as far as a client can. Machines that are copies of one another have the same key.
func (h *Host) machine() string {
	if h.conn == nil {
		return Local
	}
	return strings.Join([]string{h.conn.HostKey(), h.conn.User(), h.target.Address.String()}, " ")
}

// identity tells the engine from others, as far as a client can.
func (h *Host) identity() string {
	if h.conn == nil {
		return "local " + h.socket
	}
	return cmp.Or(h.conn.HostKey(), h.target.Address.String()) + " " + h.socket
}

// refusedLimits reports whether the engine refused the limits of a container not long ago.
func (h *Host) refusedLimits() bool {
	at, ok := h.client.remembered().Limits[h.identity()]
	return ok && h.client.Now().Sub(at) < refusedFor
}

func (h *Host) rememberLimits() {
	h.client.remember(func(m *memory) { m.Limits = with(m.Limits, h.identity(), h.client.Now()) })
}

// rememberedAPI is what the engine spoke the last time, "" if nobody knows.
func (h *Host) rememberedAPI() string { return h.client.remembered().APIs[h.identity()] }

func (h *Host) rememberAPI() {
	if api := h.engine.API(); h.rememberedAPI() != api {
		h.client.remember(func(m *memory) { m.APIs = with(m.APIs, h.identity(), api) })
	}
}

// rememberedSocket is where the engine of the machine was the last time that it had to be looked for, "" if it never had.
func (h *Host) rememberedSocket() string { return h.client.remembered().Sockets[h.machine()] }

// rememberSocket keeps where the engine was found, unless it is looked for there anyway.
func (h *Host) rememberSocket() {
	if h.socket != h.firstSocket() {
		h.client.remember(func(m *memory) { m.Sockets = with(m.Sockets, h.machine(), h.socket) })
	}
}

// rememberedGPUs are those of the machine, none if nobody knows.
func (h *Host) rememberedGPUs() gpus {
	seen := h.client.remembered().GPUs[h.machine()]
	if h.client.Now().Sub(seen.At) > knownFor {
		return gpus{}
	}
	return seen.gpus
}

// rememberGPUs keeps what the machine has said, if that is news, or half forgotten.
func (h *Host) rememberGPUs(g gpus) {
	now := h.client.Now()
	if seen := h.client.remembered().GPUs[h.machine()]; seen.equal(g) && (!g.there() || now.Sub(seen.At) < knownFor/2) {
		return
	}
	h.client.remember(func(m *memory) {
		if m.GPUs = with(m.GPUs, h.machine(), gpusSeen{now, g}); !g.there() {
			delete(m.GPUs, h.machine())
		}
	})
}
