package remote

import (
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/ssh"
)

// A Target is the engine of a machine, as people name it.
type Target struct {
	Text        string      // as given
	Local       bool        // Docker on this machine
	Address     ssh.Address // else
	Socket      string      // of the engine; "" to look for it
	Identity    string      // key file; "" for those of ssh
	Mounts      []replicate.Mount
	Credentials string // "send", "host" or "" for not written
}

// Local is Docker on this machine.
const Local = "local"

// text is the target as later commands name it.
func (t Target) text() string {
	if t.Text == "" {
		return Local
	}
	return t.Text
}

// Host is the part of a target that names the machine, for the column HOST.
func (t Target) Host(here string) string {
	if t.Local {
		return here
	}
	return t.Address.Host
}

// Place is the same for targets that lead to the same engine by the same way, whatever they are called, as far as that can be told without asking anybody.
func (t Target) Place() string {
	if t.Local {
		return Local + t.Socket
	}
	return t.Address.String() + t.Socket
}

// ParseTarget reads [ssh://][user@]host[:port][/path/to/docker.sock], an alias of ssh, "local", or unix:///path. A name of hosts stands for what
// replicate.yaml says of it. "" is local.
func ParseTarget(text string, hosts map[string]replicate.Host) (Target, error) {
	host, named := hosts[text]
	address := text
	if named && host.Address != "" {
		address = host.Address
	}
	t, err := parseAddress(address)
	if err != nil {
		return Target{}, err
	}
	t.Text = text
	if named {
		t.Identity, t.Mounts, t.Credentials = host.Identity, host.Mounts, host.Credentials
		if host.Socket != "" {
			t.Socket = host.Socket
		}
	}
	return t, nil
}

func parseAddress(text string) (Target, error) {
	if text == "" || text == Local {
		return Target{Local: true}, nil
	}
	if path, ok := strings.CutPrefix(text, "unix://"); ok {
		if !strings.HasPrefix(path, "/") {
			return Target{}, replicate.Errorf(replicate.Usage, "host %q: the path of the socket is not absolute", text)
		}
		return Target{Local: true, Socket: path}, nil
	}
	rest := text
	if scheme, after, ok := strings.Cut(text, "://"); ok {
		if scheme != "ssh" {
			return Target{}, replicate.Errorf(replicate.Usage, "host %q: %s:// is not known", text, scheme).
				WithHint("a host is [user@]name[:port], a name of hosts: in replicate.yaml, or local")
		}
		rest = after
	}
	var t Target
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		rest, t.Socket = rest[:i], rest[i:]
	}
	var err error
	t.Address, err = ssh.ParseAddress(rest)
	return t, err
}
