package ssh

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/replicate/replicate"
)

// certificate has an authority sign the key of a host called name.
func certificate(t *testing.T, host, authority ssh.Signer, name string, until time.Time) ssh.Signer {
	t.Helper()
	cert := &ssh.Certificate{Key: host.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{name}, ValidBefore: uint64(until.Unix())}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(cert, host)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func TestKnownHostsAreAccepted(t *testing.T) {
	ed25519, ecdsa, rsa, other := newKey(t, "ed25519"), newKey(t, "ecdsa"), newKey(t, "rsa"), newKey(t, "ed25519")
	cert := certificate(t, ed25519, other, "127.0.0.1", time.Now().Add(time.Hour))
	stranger := certificate(t, ed25519, newKey(t, "ed25519"), "127.0.0.1", time.Now().Add(time.Hour))
	all := []ssh.Signer{rsa, ecdsa, ed25519}
	for _, tt := range []struct {
		name   string
		keys   []ssh.Signer
		known  func(s *server) string
		config string
	}{
		{"ed25519 alone is known", all, func(s *server) string { return line(s.name(), ed25519.PublicKey()) }, ""},
		{"rsa alone is known", all, func(s *server) string { return line(s.name(), rsa.PublicKey()) }, ""},
		{"ecdsa alone is known", all, func(s *server) string { return line(s.name(), ecdsa.PublicKey()) }, ""},
		{"hashed", all, func(s *server) string { return line(knownhosts.HashHostname(s.name()), rsa.PublicKey()) }, ""},
		{"without the port", all, func(s *server) string { return line("127.0.0.1", rsa.PublicKey()) }, ""},
		{"pattern", all, func(s *server) string { return line("!x,[127.0.*]:*", rsa.PublicKey()) }, ""},
		{"several keys", all, func(s *server) string { return line(s.name(), other.PublicKey()) + line(s.name(), ed25519.PublicKey()) }, ""},
		{"lines that make no sense", all, func(s *server) string {
			return "# a comment\n\n@odd x y\nhost ssh-new AAAA\n" + line(s.name(), ed25519.PublicKey())
		}, ""},
		{"alias", all, func(s *server) string { return line("cluster", ed25519.PublicKey()) }, "HostKeyAlias Cluster"},
		{"authority", []ssh.Signer{rsa, cert}, func(s *server) string { return line("@cert-authority *", other.PublicKey()) }, ""},
		{"certificate of a stranger, key known", []ssh.Signer{stranger, ed25519}, func(s *server) string { return line(s.name(), ed25519.PublicKey()) }, ""},
		{"revoked keys of others", all, func(s *server) string {
			return line("@revoked *", other.PublicKey()) + line(s.name(), ed25519.PublicKey())
		}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startServer(t, nil, tt.keys...)
			s.know(tt.known(s))
			if _, err := s.dial(s.options(tt.config)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestStrangeHostKeysAreRefused(t *testing.T) {
	key, other, authority := newKey(t, "ed25519"), newKey(t, "ed25519"), newKey(t, "ed25519")
	rsa := newKey(t, "rsa")
	old := certificate(t, key, authority, "127.0.0.1", time.Now().Add(-time.Hour))
	misnamed := certificate(t, key, authority, "elsewhere", time.Now().Add(time.Hour))
	seen := ssh.FingerprintSHA256(key.PublicKey())
	known := ssh.FingerprintSHA256(other.PublicKey())
	for _, tt := range []struct {
		name   string
		key    ssh.Signer
		known  func(s *server) string
		config string
		kind   replicate.Kind
		err    string // %[1]s is known_hosts, %[2]s the name in it
		hint   string
	}{
		{"unknown", key, func(*server) string { return "" }, "", replicate.Permission,
			"connect to box: the host is not known here; its ed25519 key is " + seen, "run ssh box once, and compare"},
		{"unknown, strictly", key, func(*server) string { return "" }, "StrictHostKeyChecking yes", replicate.Permission,
			"connect to box: the host is not known here; its ed25519 key is " + seen, "run ssh box once, and compare"},
		{"unknown at this port", key, func(s *server) string { return line("127.0.0.1", other.PublicKey()) }, "", replicate.Permission,
			"connect to box: the host is not known here; its ed25519 key is " + seen, "run ssh box once, and compare"},
		{"unknown at this port, of another kind", key, func(s *server) string { return line("127.0.0.1", rsa.PublicKey()) }, "", replicate.Permission,
			"connect to box: the host is not known here; its ed25519 key is " + seen, "run ssh box once, and compare"},
		{"changed", key, func(s *server) string { return "\n" + line(s.name(), other.PublicKey()) }, "", replicate.Conflict,
			"connect to box: the key of the host has changed: %[1]s:2 has " + known + ", the host shows " + seen,
			"somebody may be listening; if the machine was set up anew: ssh-keygen -f %[1]s -R '%[2]s'"},
		{"changed, checks turned off", key, func(s *server) string { return line(s.name(), other.PublicKey()) }, "StrictHostKeyChecking no", replicate.Conflict,
			"connect to box: the key of the host has changed: %[1]s:1 has " + known + ", the host shows " + seen,
			"somebody may be listening; if the machine was set up anew: ssh-keygen -f %[1]s -R '%[2]s'"},
		{"of another kind", key, func(s *server) string { return line(s.name(), rsa.PublicKey()) }, "", replicate.Conflict,
			"connect to box: the key of the host has changed: it has no ssh-rsa key any more, as %[1]s:1 has",
			"somebody may be listening; if the machine was set up anew: ssh-keygen -f %[1]s -R '%[2]s'"},
		{"revoked", key, func(s *server) string {
			return line(s.name(), key.PublicKey()) + line("@revoked *", key.PublicKey())
		}, "", replicate.Permission,
			"connect to box: the key of the host is revoked by %[1]s:2", "do not connect before whoever runs it has given it a new key"},
		{"authority revoked", certificate(t, key, authority, "127.0.0.1", time.Now().Add(time.Hour)), func(s *server) string {
			return line("@cert-authority *", authority.PublicKey()) + line("@revoked *", authority.PublicKey())
		}, "", replicate.Permission,
			"connect to box: the key of the host is revoked by %[1]s:2", "do not connect before whoever runs it has given it a new key"},
		{"certificate too old", old, func(*server) string { return line("@cert-authority *", authority.PublicKey()) }, "", replicate.Permission,
			"connect to box: the certificate of the host, signed by the authority of %[1]s:1, is not valid: cert has expired",
			"whoever runs that authority has to sign the host's key again"},
		{"certificate of another host", misnamed, func(*server) string { return line("@cert-authority *", authority.PublicKey()) }, "", replicate.Permission,
			`connect to box: the certificate of the host, signed by the authority of %[1]s:1, is not valid: principal "127.0.0.1" not in the set of valid principals for given certificate: ["elsewhere"]`,
			"whoever runs that authority has to sign the host's key again"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startServer(t, nil, tt.key)
			s.know(tt.known(s))
			_, err := s.dial(s.options(tt.config))
			fill := func(text string) string {
				return strings.NewReplacer("%[1]s", s.knownHosts(), "%[2]s", s.name()).Replace(text)
			}
			wantError(t, err, tt.kind, fill(tt.err), fill(tt.hint))
		})
	}
}

func TestUnknownHostIsRemembered(t *testing.T) {
	key := newKey(t, "ed25519")
	for _, tt := range []struct {
		name, config, answer, warning string
		hashed                        bool
	}{
		{"after yes", "", "yes", "", false},
		{"after its fingerprint", "", ssh.FingerprintSHA256(key.PublicKey()), "", false},
		{"hashed", "HashKnownHosts yes", "yes", "", true},
		{"accept-new", "StrictHostKeyChecking accept-new", "", "box was not known; its ed25519 key " + ssh.FingerprintSHA256(key.PublicKey()) + " is remembered", false},
		{"no is accept-new", "StrictHostKeyChecking no", "", "box was not known; its ed25519 key " + ssh.FingerprintSHA256(key.PublicKey()) + " is remembered", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startServer(t, nil, key)
			s.know("# no end of line")
			o := s.options(tt.config)
			var questions, warnings []string
			o.Warn = func(text, _ string) { warnings = append(warnings, text) }
			o.Ask = func(_ context.Context, q Question) (string, error) {
				questions = append(questions, q.Text)
				return tt.answer, nil
			}
			for range 2 {
				if _, err := s.dial(o); err != nil {
					t.Fatal(err)
				}
			}
			if asked := tt.answer != ""; len(questions) != map[bool]int{true: 1}[asked] {
				t.Errorf("asked %q", questions)
			}
			if got := strings.Join(warnings, ""); got != tt.warning {
				t.Errorf("warned %q, want %q", got, tt.warning)
			}
			data, _ := os.ReadFile(s.knownHosts())
			if strings.Count(string(data), "\n") != 2 || strings.HasPrefix(strings.Split(string(data), "\n")[1], s.name()) == tt.hashed {
				t.Errorf("known_hosts is\n%s", data)
			}
		})
	}
}

func TestQuestionShowsFingerprint(t *testing.T) {
	key := newKey(t, "ed25519")
	s := startServer(t, nil, key)
	o := s.options("")
	asked := ""
	o.Ask = func(_ context.Context, q Question) (string, error) {
		asked = q.Text
		return "no", nil
	}
	_, err := s.dial(o)
	wantError(t, err, replicate.Permission, "connect to box: its key was not accepted", "")
	want := fmt.Sprintf("box (127.0.0.1:%d) is not known here. Its ed25519 key is %s.\nIs that right, and shall it be remembered? [yes/no]",
		s.port, ssh.FingerprintSHA256(key.PublicKey()))
	if asked != want {
		t.Errorf("asked %q", asked)
	}
	if _, err := os.Stat(s.knownHosts()); !errors.Is(err, os.ErrNotExist) {
		t.Error("the key was remembered")
	}
}

func TestSeveralRememberOnce(t *testing.T) {
	key := newKey(t, "ed25519")
	s := startServer(t, nil, key)
	o := s.options("StrictHostKeyChecking accept-new")
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if _, err := s.dial(o); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if data, _ := os.ReadFile(s.knownHosts()); string(data) != line(s.name(), key.PublicKey()) {
		t.Errorf("known_hosts is\n%s", data)
	}
}

func TestKeyThatCannotBeRememberedIsAWarning(t *testing.T) {
	s := startServer(t, nil, newKey(t, "ed25519"))
	o := s.options("StrictHostKeyChecking accept-new\n UserKnownHostsFile none")
	var warned string
	o.Warn = func(text, _ string) { warned = text }
	if _, err := s.dial(o); err != nil {
		t.Fatal(err)
	}
	if warned != "the key of box is not remembered: UserKnownHostsFile names no file" {
		t.Errorf("warned %q", warned)
	}
}
