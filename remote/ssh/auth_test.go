package ssh

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/replicate/replicate"
)

// startAgent serves keys on a socket: n of no use, then those given.
func startAgent(t *testing.T, n int, keys ...agent.AddedKey) (socket string) {
	t.Helper()
	ring := agent.NewKeyring()
	for i := range n {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		keys = slices.Insert(keys, i, agent.AddedKey{PrivateKey: key, Comment: fmt.Sprintf("other%d", i)})
	}
	for _, key := range keys {
		if err := ring.Add(key); err != nil {
			t.Fatal(err)
		}
	}
	socket = filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(ring, conn)
		}
	}()
	return socket
}

// private reads a private key for an agent.
func (s *sshd) private(name string) agent.AddedKey {
	s.t.Helper()
	key, err := ssh.ParseRawPrivateKey([]byte(s.read(name)))
	if err != nil {
		s.t.Fatal(err)
	}
	return agent.AddedKey{PrivateKey: key, Comment: name}
}

// configure gives the alias box other lines.
func (s *sshd) configure(lines string) {
	s.write("config", fmt.Sprintf("Host box\n HostName 127.0.0.1\n Port %d\n%s\nHost *\n User root\n UserKnownHostsFile %s\n GlobalKnownHostsFile none\n",
		s.port, lines, s.path("known_hosts")))
}

func TestKeysOfFullAgent(t *testing.T) {
	s := startSSHD(t, "MaxAuthTries 3")
	s.write("named.pub", s.read("id.pub")) // its private half is in the agent alone
	for _, tt := range []struct {
		name, config string
		identity     string
		hasKey       bool
		err, hint    string
	}{
		{"IdentityFile comes first", "IdentityFile " + s.path("named"), "", true, "", ""},
		{"IdentityFile that is public", "IdentityFile " + s.path("named.pub"), "", true, "", ""},
		{"IdentitiesOnly", "IdentitiesOnly yes\n IdentityFile " + s.path("id"), "", false, "", ""},
		{"identity given", "IdentityFile none", s.path("id"), false, "", ""},
		{"none fits", "IdentityFile none", "", false,
			"connect to box: the host ended it after too many keys it does not take: other0 of ssh-agent, other1 of ssh-agent, other2 of ssh-agent",
			"name the right one: -i, or IdentityFile and IdentitiesOnly yes in ssh_config"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var keys []agent.AddedKey
			if tt.hasKey {
				keys = append(keys, s.private("id"))
			}
			s.configure(tt.config)
			o := s.options()
			o.Identity = tt.identity
			o.Getenv = env(map[string]string{"HOME": s.dir, "SSH_AUTH_SOCK": startAgent(t, 10, keys...)})
			c, err := Dial(t.Context(), Address{Host: "box"}, o)
			if tt.err != "" {
				wantError(t, err, replicate.Permission, tt.err, tt.hint)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		})
	}
}

func TestAtMostFiveKeysAreOffered(t *testing.T) {
	s := startSSHD(t)
	s.configure("IdentityFile none")
	o := s.options()
	o.Getenv = env(map[string]string{"HOME": s.dir, "SSH_AUTH_SOCK": startAgent(t, 10, s.private("id"))})
	_, err := Dial(t.Context(), Address{Host: "box"}, o)
	wantError(t, err, replicate.Permission, "connect to box: root is not let in: the host takes none of other0 of ssh-agent, other1 of ssh-agent, "+
		"other2 of ssh-agent, other3 of ssh-agent, other4 of ssh-agent (it takes publickey)",
		"name the right key: -i, or IdentityFile and IdentitiesOnly yes in ssh_config; at most 5 are offered")
}

func TestAgentThatIsNotThereIsAWarning(t *testing.T) {
	s := startSSHD(t)
	s.configure("IdentityFile " + s.path("id") + "\n IdentityAgent " + s.path("gone"))
	o := s.options()
	var warned string
	o.Warn = func(text, _ string) { warned = text }
	s.dial("box", o)
	if !strings.HasPrefix(warned, "ssh-agent does not answer: ") {
		t.Errorf("warned %q", warned)
	}
}

func TestCertificates(t *testing.T) {
	s := startSSHD(t, "AuthorizedKeysCommand none")
	keygen(t, s.path("ca"))
	keygen(t, s.path("id"), "-s", s.path("ca"), "-I", "root", "-n", "root", s.path("id.pub"))
	s.write("authorized_keys", "cert-authority "+s.read("ca.pub"))
	s.write("elsewhere", s.read("id-cert.pub"))
	t.Run("beside the key", func(t *testing.T) { s.dial("box", s.options()) })
	t.Run("in the agent", func(t *testing.T) {
		s.configure("IdentityFile none")
		key := s.private("id")
		cert, _, _, _, err := ssh.ParseAuthorizedKey([]byte(s.read("id-cert.pub")))
		if err != nil {
			t.Fatal(err)
		}
		key.Certificate = cert.(*ssh.Certificate)
		o := s.options()
		o.Getenv = env(map[string]string{"HOME": s.dir, "SSH_AUTH_SOCK": startAgent(t, 0, key)})
		s.dial("box", o)
	})
	t.Run("CertificateFile of a key in the agent", func(t *testing.T) {
		s.configure("IdentityFile none\n CertificateFile " + s.path("elsewhere"))
		o := s.options()
		o.Getenv = env(map[string]string{"HOME": s.dir, "SSH_AUTH_SOCK": startAgent(t, 0, s.private("id"))})
		s.dial("box", o)
	})
	t.Run("CertificateFile", func(t *testing.T) {
		s.write("alone", s.read("id"))
		s.configure("IdentityFile " + s.path("alone") + "\n CertificateFile " + s.path("elsewhere"))
		s.dial("box", s.options())
	})
}

// answers is an Ask that gives answers in turn, and notes what was asked.
type answers struct {
	give  []string
	asked []Question
}

func (a *answers) ask(_ context.Context, q Question) (string, error) {
	a.asked = append(a.asked, q)
	if len(a.give) == 0 {
		return "", errors.New("nobody answers")
	}
	answer := a.give[0]
	a.give = a.give[1:]
	return answer, nil
}

func TestPassphraseIsAskedForOnce(t *testing.T) {
	s := startSSHD(t)
	for _, format := range []string{"RFC4716", "PEM"} {
		t.Run(format, func(t *testing.T) {
			name := "locked" + format
			keygen(t, s.path(name), "-t", "rsa", "-m", format, "-N", "open sesame")
			s.write("authorized_keys", s.read(name+".pub"))
			s.configure("IdentityFile " + s.path(name))
			o := s.options()
			_, err := Dial(t.Context(), Address{Host: "box"}, o)
			wantError(t, err, replicate.Permission, fmt.Sprintf("connect to box: root is not let in: the host takes none of %[1]s; %[1]s has a passphrase that nobody gave (it takes publickey)", s.path(name)),
				"ssh-add "+s.path(name)+", then try again")
			person := &answers{give: []string{"wrong", "open sesame"}}
			o.Ask = person.ask
			s.dial("box", o)
			s.dial("box", o)
			want := []Question{{"passphrase of " + s.path(name) + ":", true}, {"that is not it; passphrase of " + s.path(name) + ":", true}}
			if !slices.Equal(person.asked, want) {
				t.Errorf("asked %+v", person.asked)
			}
		})
	}
}

func TestPassphraseOfKeyThatIsNotTakenIsNotAskedFor(t *testing.T) {
	s := startSSHD(t)
	keygen(t, s.path("locked"), "-t", "ed25519", "-N", "open sesame")
	s.configure("IdentityFile " + s.path("locked") + "\n IdentityFile " + s.path("id"))
	o := s.options()
	person := &answers{}
	o.Ask = person.ask
	s.dial("box", o)
	if len(person.asked) > 0 {
		t.Errorf("asked %+v", person.asked)
	}
}

func TestNoKeyIsSaid(t *testing.T) {
	s := startSSHD(t)
	s.configure("IdentityFile none")
	_, err := Dial(t.Context(), Address{Host: "box"}, s.options())
	wantError(t, err, replicate.Permission, "connect to box: root is not let in: there is no key to offer (it takes publickey)",
		"check the user, and copy a key there: ssh-copy-id box")
}

func TestMissingIdentityIsNotFound(t *testing.T) {
	s := startSSHD(t)
	o := s.options()
	o.Identity = "~/nothing"
	_, err := Dial(t.Context(), Address{Host: "box"}, o)
	wantError(t, err, replicate.NotFound, "connect to box: identity: stat "+s.path("nothing")+": no such file or directory", "")
}

func TestPasswords(t *testing.T) {
	password := func(c *ssh.ServerConfig) {
		c.PasswordCallback = func(_ ssh.ConnMetadata, given []byte) (*ssh.Permissions, error) {
			if string(given) != "secret" {
				return nil, errors.New("no")
			}
			return nil, nil
		}
	}
	keyboard := func(c *ssh.ServerConfig) {
		c.KeyboardInteractiveCallback = func(_ ssh.ConnMetadata, challenge ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			given, err := challenge("Login", "Two\x1b[2J factors", []string{"Password: ", "Code: "}, []bool{false, true})
			if err != nil || !slices.Equal(given, []string{"secret", "123"}) {
				return nil, errors.New("no")
			}
			return nil, nil
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*ssh.ServerConfig)
		config string
		give   []string
		asked  []Question
		err    string
		hint   string
	}{
		{"password", password, "", []string{"wrong", "secret"}, []Question{{"password of dev@box:", true}, {"password of dev@box:", true}}, "", ""},
		{"keyboard-interactive", keyboard, "", []string{"secret", "123"}, []Question{{"Login\nTwo[2J factors\nbox: Password:", true}, {"box: Code:", false}}, "", ""},
		{"three are wrong", password, "", []string{"a", "b", "c"}, []Question{{"password of dev@box:", true}, {"password of dev@box:", true}, {"password of dev@box:", true}},
			"connect to box: dev is not let in: no password was right (it takes password)", ""},
		{"turned off", password, "PasswordAuthentication no", nil, nil, "connect to box: dev is not let in: there is no key to offer (it takes password)", ""},
		{"BatchMode", password, "BatchMode yes", nil, nil, "connect to box: dev is not let in: there is no key to offer (it takes password)",
			"the host would take a password, but there is no terminal to ask at: ssh-copy-id box"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			key := newKey(t, "ed25519") // whose password nobody has given
			s := startServer(t, tt.change, key)
			s.know(line(s.name(), key.PublicKey()))
			o := s.options(tt.config)
			person := &answers{give: tt.give}
			o.Ask = person.ask
			_, err := s.dial(o)
			if tt.err != "" {
				wantError(t, err, replicate.Permission, tt.err, tt.hint)
			} else if err != nil {
				t.Error(err)
			}
			if !slices.Equal(person.asked, tt.asked) {
				t.Errorf("asked %+v", person.asked)
			}
		})
	}
}

func TestRightPasswordIsRemembered(t *testing.T) {
	key := newKey(t, "ed25519")
	password := "first"
	s := startServer(t, func(c *ssh.ServerConfig) {
		c.KeyboardInteractiveCallback = func(_ ssh.ConnMetadata, challenge ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			given, err := challenge("", "", []string{"Password: ", "Code: "}, []bool{false, false})
			if err != nil || !slices.Equal(given, []string{password, "123"}) {
				return nil, errors.New("no")
			}
			return nil, nil
		}
	}, key)
	s.know(line(s.name(), key.PublicKey()))
	o := s.options("")
	for _, tt := range []struct {
		name, password string
		give           []string
	}{
		{"asked", "first", []string{"wrong", "123", "first", "123"}},
		{"remembered, but for the code", "first", []string{"123"}},
		{"changed", "second", []string{"123", "second", "123"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			password = tt.password
			person := &answers{give: tt.give}
			o.Ask = person.ask
			if _, err := s.dial(o); err != nil || len(person.give) > 0 {
				t.Errorf("%v, asked %+v", err, person.asked)
			}
		})
	}
}

// TestOnlyOpenSSHGoesOn has connections refused to us, and sees what the ssh program says then.
func TestOnlyOpenSSHGoesOn(t *testing.T) {
	s := startSSHD(t)
	s.write("authorized_keys", "")
	s.write("hardware", "-----BEGIN OPENSSH PRIVATE KEY-----\n-----END OPENSSH PRIVATE KEY-----\n")
	s.write("hardware.pub", string(ssh.MarshalAuthorizedKey(hardwareKey(t))))
	for _, tt := range []struct{ name, config string }{
		{"PKCS#11", "IdentityFile none\n PKCS11Provider /nowhere/lib.so"},
		{"security token", "IdentityFile " + s.path("hardware")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.configure(tt.config)
			_, err := Dial(t.Context(), Address{Host: "box"}, s.options())
			wantError(t, err, replicate.Permission, "connect to box: root@127.0.0.1: Permission denied (publickey)", "ssh box says more")
			o := s.options()
			o.Config = s.path("plain")
			s.write("plain", s.read("config"))
			o.Program = ""
			_, err = Dial(t.Context(), Address{Host: "box"}, o)
			if err == nil || !strings.HasPrefix(err.Error(), "connect to box: root is not let in: ") {
				t.Errorf("without the program: %v", err)
			}
		})
	}
}

func TestProgramIsAskedForTicketFirst(t *testing.T) {
	for _, tt := range []struct {
		setting string
		conns   int
	}{{"yes", 3}, {"no", 1}} {
		t.Run(tt.setting, func(t *testing.T) {
			s := startSSHD(t, "GSSAPIAuthentication yes")
			s.configure("IdentityFile none\n GSSAPIAuthentication " + tt.setting)
			_, err := Dial(t.Context(), Address{Host: "box"}, s.options())
			wantError(t, err, replicate.Permission, "connect to box: root is not let in: there is no key to offer (it takes publickey, gssapi-keyex, gssapi-with-mic)",
				"check the user, and copy a key there: ssh-copy-id box")
			if n := strings.Count(s.logged(), "Connection from"); n != tt.conns {
				t.Errorf("%d connections, want %d:\n%s", n, tt.conns, s.logged())
			}
		})
	}
}

// hardwareKey is the public half of a key in a security token.
func hardwareKey(t *testing.T) ssh.PublicKey {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.ParsePublicKey(ssh.Marshal(struct {
		Type        string
		Key         []byte
		Application string
	}{ssh.KeyAlgoSKED25519, public, "ssh:"}))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestPersonWhoGivesUpEndsIt(t *testing.T) {
	key := newKey(t, "ed25519")
	s := startServer(t, func(c *ssh.ServerConfig) {
		c.PasswordCallback = func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, errors.New("no") }
	}, key)
	s.know(line(s.name(), key.PublicKey()))
	o := s.options("")
	times := 0
	o.Ask = func(context.Context, Question) (string, error) {
		times++
		return "", context.Canceled
	}
	_, err := s.dial(o)
	wantError(t, err, replicate.Unavailable, "connect to box: cancelled", "")
	if times != 1 {
		t.Errorf("asked %d times", times)
	}
}

func TestKeyAndPasswordTogether(t *testing.T) {
	key := newKey(t, "ed25519")
	s := startServer(t, func(c *ssh.ServerConfig) {
		c.PublicKeyCallback = func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
			return nil, &ssh.PartialSuccessError{Next: ssh.ServerAuthCallbacks{
				PasswordCallback: func(ssh.ConnMetadata, []byte) (*ssh.Permissions, error) { return nil, nil }}}
		}
	}, key)
	s.know(line(s.name(), key.PublicKey()))
	keygen(t, filepath.Join(s.dir, "id"))
	o := s.options("IdentityFile ~/id")
	person := &answers{give: []string{"secret"}}
	o.Ask = person.ask
	if _, err := s.dial(o); err != nil {
		t.Error(err)
	}
	if len(person.asked) != 1 {
		t.Errorf("asked %+v", person.asked)
	}
}
