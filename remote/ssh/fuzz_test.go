package ssh

import (
	"strings"
	"testing"

	"github.com/replicate/replicate"
)

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

func FuzzConfigFiles(f *testing.F) {
	f.Add("Host gpu1 !x \"a b\"\n Port=22\n IdentityFile \"/a b\"\nMatch host g* user dev\n User = x # y\nMatch !all\nInclude /x\nMatch exec true\n")
	f.Add("host\nmatch\nmatch host\nmatch user\n= =\n\"\n#\nProxyJump ,\n")
	f.Fuzz(func(t *testing.T, text string) {
		r := &reader{address: Address{Host: "gpu1"}, found: settings{}}
		if err := r.readLines(strings.NewReader(text), "config", true, 0); err != nil {
			return
		}
		for key, values := range r.found {
			if key == "" || key == "host" || key == "match" || key == "include" || len(values) == 0 {
				t.Errorf("%q is %q", key, values)
			}
		}
		newConfig(r.address, r.found, r.o)
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
