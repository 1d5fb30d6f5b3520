package ssh

import (
	"fmt"
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
