package ssh

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/replicate/replicate"
)

// An Address is a host as a person names it. The zero values of User and Port mean what the configuration of ssh says.
type Address struct {
	User string
	Host string // a name, an address, or an alias of ssh_config
	Port int
}

// ParseAddress reads [user@]host[:port]. An IPv6 address with a port stands in brackets; without brackets it has none.
// Names that ssh would take for an option or a shell for something else are refused.
func ParseAddress(s string) (Address, error) {
	var a Address
	rest := s
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		a.User, rest = s[:at], s[at+1:]
		if a.User == "" {
			return Address{}, refuse(s, "there is no user before the @")
		}
	}
	host, port, err := splitPort(rest)
	if err != nil {
		return Address{}, refuse(s, err.Error())
	}
	a.Host, a.Port = host, port
	if why := wrong(a); why != "" {
		return Address{}, refuse(s, why)
	}
	return a, nil
}

// splitPort takes host:port, [v6]:port, [v6], v6 and host apart.
func splitPort(s string) (host string, port int, err error) {
	if _, err := netip.ParseAddr(s); err == nil {
		return s, 0, nil
	}
	if inside, ok := strings.CutPrefix(s, "["); ok && strings.HasSuffix(inside, "]") {
		return strings.TrimSuffix(inside, "]"), 0, nil
	}
	if !strings.Contains(s, ":") {
		return s, 0, nil
	}
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, replicate.Errorf(replicate.Usage, "an IPv6 address with a port is written [address]:port")
	}
	port, err = strconv.Atoi(text)
	if err != nil || port < 1 || port > 65535 {
		return "", 0, replicate.Errorf(replicate.Usage, "%q is no port", text)
	}
	return host, port, nil
}

// wrong says why an address cannot be given to ssh, or "".
func wrong(a Address) string {
	switch {
	case a.Host == "":
		return "there is no host"
	case strings.HasPrefix(a.Host, "-"):
		return "the host begins with a dash"
	case strings.HasPrefix(a.User, "-"):
		return "the user begins with a dash"
	case strings.ContainsFunc(a.Host, odd) || strings.ContainsAny(a.Host, "@/[]"):
		return "the host has characters that no host has"
	case strings.ContainsFunc(a.User, odd) || strings.HasSuffix(a.User, `\`):
		return "the user has characters that no user has"
	}
	return ""
}

// odd characters are refused in users and hosts: they mean something to the shells that run ProxyCommand and Match exec.
func odd(r rune) bool {
	return r <= ' ' || r == 0x7f || strings.ContainsRune("'`\"$;&<>|(){}", r)
}

func refuse(s, why string) error {
	return &replicate.Error{Op: "host", Path: strconv.Quote(s), Kind: replicate.Usage, Err: replicate.Errorf(replicate.Usage, "%s", why),
		Hint: "a host is [user@]name[:port], as for ssh"}
}

// String is what ParseAddress reads.
func (a Address) String() string {
	s := a.Host
	switch {
	case a.Port != 0:
		s = net.JoinHostPort(a.Host, strconv.Itoa(a.Port))
	case strings.Contains(a.Host, ":"):
		s = "[" + a.Host + "]"
	}
	if a.User != "" {
		s = a.User + "@" + s
	}
	return s
}
