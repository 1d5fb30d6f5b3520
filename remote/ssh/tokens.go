package ssh

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
)

// tokens are what %-signs and ${} in ssh_config stand for.
type tokens struct {
	values map[byte]string
	o      Options
}

func newTokens(c *config, o Options) tokens {
	long, _ := os.Hostname()
	short, _, _ := strings.Cut(long, ".")
	local := localUser()
	c.user = cmp.Or(c.user, local)
	return tokens{o: o, values: map[byte]string{
		'%': "%", 'd': o.home(), 'h': c.hostname, 'n': c.address.Host, 'p': strconv.Itoa(c.port), 'r': c.user,
		'u': local, 'i': strconv.Itoa(os.Getuid()), 'l': long, 'L': short, 'k': cmp.Or(c.alias, c.address.Host),
	}}
}

// localUser is the name of who runs this, "" if nobody knows it.
func localUser() string {
	u, err := user.Current()
	if err != nil {
		return ""
	}
	return u.Username
}

// path expands ~, %-signs and ${} in the name of a file.
func (t tokens) path(value string) (string, error) {
	value, err := t.percent(t.o.absolute(value))
	if err != nil {
		return "", err
	}
	return t.variables(value)
}

// command expands what may stand in a ProxyCommand: a shell does the rest.
func (t tokens) command(value string) (string, error) { return t.percent(value) }

// agent finds the socket of the ssh-agent.
func (t tokens) agent(values []string) (string, error) {
	switch {
	case len(values) == 0 || values[0] == "SSH_AUTH_SOCK":
		return t.o.getenv("SSH_AUTH_SOCK"), nil
	case strings.EqualFold(values[0], "none"):
		return "", nil
	case strings.HasPrefix(values[0], "$") && !strings.HasPrefix(values[0], "${"):
		return t.o.getenv(values[0][1:]), nil
	}
	return t.path(values[0])
}

// percent replaces %-signs.
func (t tokens) percent(s string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "%")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		if after == "" {
			return "", fmt.Errorf("%q ends in a %%", s)
		}
		value, ok := t.values[after[0]]
		if !ok {
			return "", fmt.Errorf("%%%c is not understood here", after[0])
		}
		b.WriteString(value)
		s = after[1:]
	}
}

// variables replaces ${NAME}.
func (t tokens) variables(s string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, rest, closed := strings.Cut(after, "}")
		value := t.o.getenv(name)
		if !closed || value == "" {
			return "", fmt.Errorf("the variable ${%s} is not set", name)
		}
		b.WriteString(value)
		s = rest
	}
}

// hostport joins a host and a port; an IPv6 address gets its brackets.
func hostport(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
