package ssh

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A config is what ssh_config says of one host, with everything expanded.
type config struct {
	address Address // as it was asked for

	hostname, user string
	port           int
	family         string // "tcp", "tcp4", "tcp6"
	patience       time.Duration
	jumps          []Address // in the order they are travelled
	proxyCommand   string

	identities, certificates []string // files; the one that was asked for comes first
	agent                    string   // socket, "" for none
	identitiesOnly, noKeys   bool
	methods                  []string // of keyboard-interactive and password, in this order, those that are not turned off
	prompts                  int      // how often a password is asked for
	gssapi                   bool
	pkcs11                   string

	knownHosts        []string // files, the first one grows
	globalKnownHosts  []string
	alias             string // name in known_hosts, "" for that of the host
	strict            string // "yes", "ask", "accept-new"
	hashNames         bool
	hostKeyAlgorithms []string // those OpenSSH would take, in its order

	controlPath string
	foreign     string // a setting that only OpenSSH understands, "" for none
	batch       bool   // nobody is to be asked
}

// settings are keywords in lower case with their values, in the order ssh read them.
type settings map[string][]string

// get returns the first value of a keyword, "" if there is none.
func (s settings) get(key string) string {
	if len(s[key]) == 0 {
		return ""
	}
	return s[key][0]
}

// path returns the first value of a keyword that names a file; none names none.
func (s settings) path(key string) string {
	if v := s.get(key); !strings.EqualFold(v, "none") {
		return v
	}
	return ""
}

// is says whether a keyword was given one of the values that mean yes.
func (s settings) is(key string) bool {
	return slices.Contains([]string{"yes", "true"}, strings.ToLower(s.get(key)))
}

// resolve asks ssh, or the files it would read, what they say of a host.
func resolve(ctx context.Context, a Address, o Options, identity string) (*config, error) {
	read := readFiles
	if o.Program != "" {
		read = askSSH
	}
	s, err := read(ctx, a, o, identity)
	if err != nil {
		return nil, err
	}
	c, err := newConfig(a, s, o)
	if err != nil {
		return nil, fmt.Errorf("ssh_config: %w", err)
	}
	if identity != "" {
		c.identities = slices.Insert(slices.DeleteFunc(c.identities, func(f string) bool { return f == identity }), 0, identity)
	}
	return c, nil
}

// newConfig makes sense of settings.
func newConfig(a Address, s settings, o Options) (*config, error) {
	c := &config{
		address:           a,
		hostname:          cmp.Or(s.get("hostname"), a.Host),
		user:              cmp.Or(a.User, s.get("user")),
		family:            map[string]string{"inet": "tcp4", "inet6": "tcp6"}[s.get("addressfamily")],
		patience:          connectPatience,
		proxyCommand:      s.path("proxycommand"),
		identitiesOnly:    s.is("identitiesonly"),
		noKeys:            slices.Contains([]string{"no", "false"}, s.get("pubkeyauthentication")),
		prompts:           number(s.get("numberofpasswordprompts"), 3),
		gssapi:            s.is("gssapiauthentication"),
		pkcs11:            s.path("pkcs11provider"),
		alias:             s.get("hostkeyalias"),
		hashNames:         s.is("hashknownhosts"),
		hostKeyAlgorithms: strings.Split(s.get("hostkeyalgorithms"), ","),
		controlPath:       s.path("controlpath"),
		foreign:           foreign(s),
		batch:             s.is("batchmode"),
		strict:            strictness(s.get("stricthostkeychecking")),
	}
	c.family = cmp.Or(c.family, "tcp")
	c.port = cmp.Or(a.Port, number(s.get("port"), 22))
	if n := number(s.get("connecttimeout"), 0); n > 0 {
		c.patience = time.Duration(n) * time.Second
	}
	if key := "kbdinteractiveauthentication"; s.get(key) == "" || s.is(key) {
		c.methods = append(c.methods, "keyboard-interactive")
	}
	if key := "passwordauthentication"; s.get(key) == "" || s.is(key) {
		c.methods = append(c.methods, "password")
	}
	var err error
	if c.jumps, err = jumps(s.path("proxyjump")); err != nil {
		return nil, err
	}
	return c, c.expand(s, o)
}

// expand fills in what holds paths and commands.
func (c *config) expand(s settings, o Options) error {
	t := newTokens(c, o)
	var err error
	files := func(values []string) (list []string) {
		for _, v := range values {
			if strings.EqualFold(v, "none") || err != nil {
				continue
			}
			var path string
			if path, err = t.path(v); err == nil {
				list = append(list, path)
			}
		}
		return list
	}
	c.identities, c.certificates = files(s["identityfile"]), files(s["certificatefile"])
	c.knownHosts = files(strings.Fields(strings.Join(s["userknownhostsfile"], " ")))
	c.globalKnownHosts = files(strings.Fields(strings.Join(s["globalknownhostsfile"], " ")))
	if err != nil {
		return err
	}
	if c.proxyCommand, err = t.command(c.proxyCommand); err != nil {
		return err
	}
	c.agent, err = t.agent(s["identityagent"])
	return err
}

// strictness reads StrictHostKeyChecking. What turns the check off counts as accept-new: keys that are known must fit.
func strictness(value string) string {
	switch strings.ToLower(value) {
	case "yes", "true":
		return "yes"
	case "no", "off", "false":
		return "off"
	case "accept-new":
		return "accept-new"
	}
	return "ask"
}

// foreign names a setting that is safe to follow only by OpenSSH.
func foreign(s settings) string {
	for _, key := range []string{"knownhostscommand", "revokedhostkeys", "bindinterface", "bindaddress"} {
		if s.path(key) != "" {
			return key
		}
	}
	for _, key := range []string{"hostbasedauthentication", "proxyusefdpass"} {
		if s.is(key) {
			return key
		}
	}
	return ""
}

// jumps reads ProxyJump.
func jumps(value string) (list []Address, err error) {
	for one := range strings.SplitSeq(value, ",") {
		if value == "" {
			break
		}
		a, err := ParseAddress(strings.TrimPrefix(strings.TrimSpace(one), "ssh://"))
		if err != nil {
			return nil, fmt.Errorf("ProxyJump %s: %w", value, err)
		}
		list = append(list, a)
	}
	return list, nil
}

// number reads a count; what is none is the default.
func number(value string, otherwise int) int {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 {
		return otherwise
	}
	return n
}

// home is the folder that ~ means.
func (o Options) home() string { return o.getenv("HOME") }

// absolute gives a path that begins with ~ its home.
func (o Options) absolute(path string) string {
	if path == "~" || strings.HasPrefix(path, "~/") {
		return filepath.Join(o.home(), path[1:])
	}
	return path
}

// hostport is where the host listens.
func (c *config) hostport() string {
	return hostport(c.hostname, c.port)
}
