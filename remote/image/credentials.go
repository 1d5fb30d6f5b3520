package image

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/replicate/replicate"
)

// credentials are names and passwords by host. They go to a step in a variable, and there into a file in memory, a .netrc, which everything
// reads that downloads: in a URL they would be arguments of git.
type credentials map[string]login

type login struct{ name, password string }

// netrcVariable is the secret with the text of the file.
const netrcVariable = "REPLICATE_NETRC"

// noPassword stands for the password of a token that is given as a name: a .netrc cannot hold an empty one, and servers do not look at it.
const noPassword = "x"

// withUser is a URL with something before an @: scheme, that, host.
var withUser = regexp.MustCompile(`([a-z0-9+]+://)([^\s/]*)@(\[[0-9a-fA-F:]+\]|[^\s/@:\[\]]*)`)

// strip takes credentials out of the URLs of a line. Those that are variables stay, as pip puts the values in, and so does the user of ssh://git@host,
// who is no secret.
func (c credentials) strip(line string) string {
	return withUser.ReplaceAllStringFunc(line, func(text string) string {
		m := withUser.FindStringSubmatch(text)
		scheme, user, host := m[1], m[2], m[3]
		name, password, both := strings.Cut(user, ":")
		if strings.Contains(user, "${") || strings.HasSuffix(scheme, "ssh://") && !both {
			return text
		}
		if host == "" {
			return scheme
		}
		c[strings.Trim(host, "[]")] = login{unescape(name), unescape(password)}
		return scheme + host
	})
}

// unescape replaces %40 and the like; a text that is not escaped rightly is taken as it is.
func unescape(text string) string {
	if plain, err := url.PathUnescape(text); err == nil {
		return plain
	}
	return text
}

// variables are the secrets of a step.
func (c credentials) variables() (map[string]string, error) {
	v := map[string]string{}
	var b strings.Builder
	for _, host := range slices.Sorted(maps.Keys(c)) {
		l := c[host]
		for _, text := range []string{l.name, l.password} {
			if strings.ContainsAny(text, " \t\r\n\"\\") || strings.HasPrefix(text, "#") {
				return nil, replicate.Errorf(replicate.Usage, "the password for %s has characters that a .netrc cannot hold", host).
					WithHint("write it as ${NAME} and set the variable NAME")
			}
		}
		fmt.Fprintf(&b, "machine %s login %s password %s\n", host, cmp.Or(l.name, noPassword), cmp.Or(l.password, noPassword))
	}
	if b.Len() > 0 {
		v[netrcVariable] = b.String()
	}
	return v, nil
}
