package remote

import (
	"sync"

	"github.com/replicate/replicate/remote/docker"
)

// programs are the programs that were named, by architecture: naming one reads it.
type programs struct {
	mu    sync.Mutex // guards known
	known map[string]docker.Program
}

// program returns our own program for the machine of an engine.
func (c *Client) program(arch string) (docker.Program, error) {
	c.programs.mu.Lock()
	defer c.programs.mu.Unlock()
	if p, ok := c.programs.known[arch]; ok {
		return p, nil
	}
	binary, err := c.Binary(arch)
	if err != nil {
		return docker.Program{}, err
	}
	sum, err := c.sum(binary)
	if err != nil {
		return docker.Program{}, err
	}
	p, err := docker.NameProgram(binary, sum, c.Python)
	if err != nil {
		return p, err
	}
	if c.programs.known == nil {
		c.programs.known = map[string]docker.Program{}
	}
	c.programs.known[arch] = p
	return p, nil
}
