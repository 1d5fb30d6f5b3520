package ssh

import (
	"fmt"
	"strings"
	"testing"

	"github.com/replicate/replicate"
)

func TestAddresses(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Address
	}{
		{"gpu1", Address{"", "gpu1", 0}},
		{"dev@gpu1", Address{"dev", "gpu1", 0}},
		{"dev@gpu1.example.com:2222", Address{"dev", "gpu1.example.com", 2222}},
		{"10.0.0.1:22", Address{"", "10.0.0.1", 22}},
		{"::1", Address{"", "::1", 0}},
		{"dev@[::1]", Address{"dev", "::1", 0}},
		{"[fe80::1%eth0]:2222", Address{"", "fe80::1%eth0", 2222}},
		{"dev@corp.example.com@gpu1", Address{"dev@corp.example.com", "gpu1", 0}},
		{`corp\dev@gpu1`, Address{`corp\dev`, "gpu1", 0}},
	} {
		t.Run(tt.text, func(t *testing.T) {
			got, err := ParseAddress(tt.text)
			if got != tt.want || err != nil {
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
}

func TestWrongAddresses(t *testing.T) {
	for _, tt := range []struct{ text, why string }{
		{"", "there is no host"},
		{"dev@", "there is no host"},
		{"@gpu1", "there is no user before the @"},
		{"-oProxyCommand=id", "the host begins with a dash"},
		{"dev@-gpu1", "the host begins with a dash"},
		{"-l@gpu1", "the user begins with a dash"},
		{"gpu1:", `"" is no port`},
		{"gpu1:ssh", `"ssh" is no port`},
		{"gpu1:0", `"0" is no port`},
		{"gpu1:65536", `"65536" is no port`},
		{"::1:22:x", "an IPv6 address with a port is written [address]:port"},
		{"gpu1;id", "the host has characters that no host has"},
		{"a b", "the host has characters that no host has"},
		{"gpu1/sock", "the host has characters that no host has"},
		{"$(id)@gpu1", "the user has characters that no user has"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			_, err := ParseAddress(tt.text)
			wantError(t, err, replicate.Usage, fmt.Sprintf("host %q: %s", tt.text, tt.why), "a host is [user@]name[:port], as for ssh")
		})
	}
	_, err := Dial(t.Context(), Address{Host: "-oProxyCommand=id"}, Options{})
	wantError(t, err, replicate.Usage, `host "-oProxyCommand=id": the host begins with a dash`, "a host is [user@]name[:port], as for ssh")
}

func FuzzParseAddress(f *testing.F) {
	for _, text := range []string{"gpu1", "dev@gpu1:22", "[::1]:22", "::1", "a@b@c", "-x", "[", "a:b:c", "[a:b]:1", "1.2.3.4:5"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseAddress(text)
		if err != nil {
			if replicate.KindOf(err) != replicate.Usage {
				t.Errorf("%q: %v", text, err)
			}
			return
		}
		if strings.HasPrefix(a.Host, "-") || strings.ContainsAny(a.Host+a.User, "'`\"$;&<>|() \n") || a.Host == "" || a.Port < 0 || a.Port > 65535 {
			t.Errorf("%q is taken for %+v", text, a)
		}
		again, err := ParseAddress(a.String())
		if again != a || err != nil {
			t.Errorf("%+v is written %q and read as %+v, %v", a, a.String(), again, err)
		}
	})
}

func FuzzSettings(f *testing.F) {
	f.Add([]byte("host gpu1\nuser dev\nport 22\nidentityfile ~/.ssh/id_rsa\nidentityfile %d/x\nproxyjump a@b:2,[::1]:3\nproxycommand nc %h %p\n"))
	f.Add([]byte("canonicalizePermittedcnames none\nport\nport x\n\n \nuserknownhostsfile /a /b\nidentityagent $X\nconnecttimeout none\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		s := parseSettings(out)
		for key, values := range s {
			if key != strings.ToLower(key) || strings.ContainsAny(key, " \n") || len(values) == 0 {
				t.Errorf("keyword %q has values %q", key, values)
			}
		}
		c, err := newConfig(Address{Host: "gpu1"}, s, Options{})
		if err == nil && (c.port < 0 || c.hostname == "" || c.prompts < 0) {
			t.Errorf("%+v", c)
		}
	})
}

func FuzzHostKeys(f *testing.F) {
	f.Add([]byte("gpu1,[10.0.0.1]:22 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGezkL8UFeafKxSKl3ZTmS8hjKarv8R8CkA28uaRXCja x\n"), "gpu1")
	f.Add([]byte("|1|a|b ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGezkL8UFeafKxSKl3ZTmS8hjKarv8R8CkA28uaRXCja\n@revoked * x y"), "[gpu1]:22")
	f.Add([]byte("!*,** ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGezkL8UFeafKxSKl3ZTmS8hjKarv8R8CkA28uaRXCja\n"), "a")
	f.Fuzz(func(t *testing.T, data []byte, name string) {
		for _, k := range parseHostKeys(data, "known_hosts") {
			if k.key == nil || k.line < 1 {
				t.Errorf("%+v", k)
			}
			k.matches(name)
		}
	})
}
