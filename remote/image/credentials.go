package image

import (
	"fmt"
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
)

// credentials are names and passwords by host. They go to a step in a variable, and there into a file in memory, as everything that
// downloads reads such a file.
type credentials map[string]*url.Userinfo

// netrcVariable is the secret with the text of the file.
const netrcVariable = "REPLICATE_NETRC"

var withUser = regexp.MustCompile(`[a-z+]+://[^\s/@]+@[^\s]+`)

// strip takes credentials out of the URLs of a line. Those that are variables stay: pip puts the values in.
func (c credentials) strip(line string) string {
	return withUser.ReplaceAllStringFunc(line, func(text string) string {
		u, err := url.Parse(text)
		if err != nil || u.User == nil || strings.Contains(text[:strings.Index(text, "@")], "${") {
			return text
		}
		if _, ok := u.User.Password(); !ok && strings.HasSuffix(u.Scheme, "ssh") {
			return text // the user of ssh://git@host is no secret
		}
		c[u.Hostname()] = u.User
		at := strings.Index(text, "@")
		return text[:strings.Index(text, "://")+3] + text[at+1:]
	})
}

// variables are the secrets of a step.
func (c credentials) variables() map[string]string {
	v := map[string]string{}
	var b strings.Builder
	for _, host := range slices.Sorted(maps.Keys(c)) {
		password, _ := c[host].Password()
		fmt.Fprintf(&b, "machine %s login %s password %s\n", host, c[host].Username(), password)
	}
	if b.Len() > 0 {
		v[netrcVariable] = b.String()
	}
	return v
}
