package ssh

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// resolvePatience bounds ssh -G, which takes 10 ms unless a command of Match exec hangs.
var resolvePatience = 5 * time.Second

// maxHops bounds a chain of jump hosts, so that one that goes in circles ends.
const maxHops = 8

// askSSH has the ssh program say what its files say of a host: Match, Include and canonical names are its business.
func askSSH(ctx context.Context, a Address, o Options, identity string) (settings, error) {
	ctx, cancel := context.WithTimeout(ctx, resolvePatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, o.Program, append([]string{"-G"}, sshArgs(a, o, identity)...)...)
	cmd.WaitDelay = time.Second // what Match exec started may hold the pipes
	var stderr tail
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return nil, replicate.Errorf(replicate.Unavailable, "ssh -G gave no answer for %s", resolvePatience).
			WithHint("a command of Match exec in ssh_config may hang; ssh -G %s shows it", a.Host)
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, replicate.Errorf(replicate.Usage, "ssh -G: %s", orElse(stderr.String(), err.Error())).
			WithHint("ssh %s says the same", a.Host)
	}
	return parseSettings(out), nil
}

// sshArgs are the arguments of ssh that name a host. What begins with a dash is no option behind --.
func sshArgs(a Address, o Options, identity string) (args []string) {
	if o.Config != "" {
		args = append(args, "-F", o.Config)
	}
	if identity != "" {
		args = append(args, "-i", identity)
	}
	if a.User != "" {
		args = append(args, "-l", a.User)
	}
	if a.Port != 0 {
		args = append(args, "-p", strconv.Itoa(a.Port))
	}
	return append(args, "--", a.Host)
}

// parseSettings reads the output of ssh -G: a keyword and a value on each line. Lines without a value say nothing.
func parseSettings(out []byte) settings {
	s := settings{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		key, value, found := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		if value = strings.TrimSpace(value); found && value != "" {
			key = strings.ToLower(key)
			s[key] = append(s[key], value)
		}
	}
	return s
}

// route resolves a host and every host on the way to it, in the order they are travelled.
func route(ctx context.Context, a Address, o Options) ([]*config, error) {
	return extend(ctx, a, nil, o, o.Identity, maxHops)
}

// extend resolves the end of a route, then the way there: through jumps if they are given, else through those of its configuration.
// As in OpenSSH, the identity and the other flags are those of the end alone.
func extend(ctx context.Context, a Address, jumps []Address, o Options, identity string, left int) ([]*config, error) {
	if left == 0 {
		return nil, replicate.Errorf(replicate.Usage, "there are more than %d hosts on the way", maxHops).
			WithHint("ProxyJump in ssh_config may go in circles: except the jump host itself, as in Host * !bastion")
	}
	c, err := resolve(ctx, a, o, identity)
	if err != nil {
		return nil, err
	}
	if len(jumps) > 0 {
		c.jumps, c.proxyCommand = jumps, ""
	}
	if len(c.jumps) == 0 {
		return []*config{c}, nil
	}
	last := len(c.jumps) - 1
	way, err := extend(ctx, c.jumps[last], c.jumps[:last], o, "", left-1)
	if err != nil {
		return nil, fmt.Errorf("jump host %s: %w", c.jumps[last], err)
	}
	return append(way, c), nil
}

// orElse returns the first text that is not empty.
func orElse(text, otherwise string) string {
	if text = strings.TrimSpace(text); text != "" {
		return text
	}
	return otherwise
}
