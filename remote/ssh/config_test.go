package ssh

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/storagetest/require"
)

func TestHostsOfSSHConfig(t *testing.T) {
	s := startSSHD(t)
	keygen(t, s.path("id2"))
	s.write("authorized_keys", s.read("id.pub"))
	s.write("known_hosts", s.read("known_hosts")+"cluster "+s.read("host.pub"))
	s.write("more", fmt.Sprintf("Host included\n HostName 127.0.0.1\n Port %d\n", s.port))
	for _, tt := range []struct{ name, alias, config string }{
		{"alias", "gpu", fmt.Sprintf("Host gpu\n HostName 127.0.0.1\n Port %d", s.port)},
		{"Include", "included", "Include " + s.path("more")},
		{"Match exec", "anything", fmt.Sprintf("Match exec \"test %%n = anything\"\n HostName 127.0.0.1\n Port %d", s.port)},
		{"HostKeyAlias", "gpu", fmt.Sprintf("Host gpu\n HostName ::1\n Port %d\n HostKeyAlias cluster", s.port)},
		{"IPv6", "gpu", fmt.Sprintf("Host gpu\n HostName ::1\n AddressFamily inet6\n Port %d", s.port)},
		{"ProxyCommand", "gpu", fmt.Sprintf("Host gpu\n HostName 127.0.0.1\n Port %[1]d\n ProxyCommand ssh -F %[2]s -i %[3]s -p %%p -o UserKnownHostsFile=%[4]s -W %%h:%%p %%r@127.0.0.1",
			s.port, os.DevNull, s.path("id"), s.path("known_hosts"))},
		{"ProxyJump", "gpu", fmt.Sprintf("Host gpu hop\n HostName 127.0.0.1\n Port %d\nHost gpu\n ProxyJump hop", s.port)},
		{"ProxyJump of two", "gpu", fmt.Sprintf("Host gpu hop1 hop2\n HostName 127.0.0.1\n Port %d\nHost gpu\n ProxyJump root@hop1,hop2", s.port)},
		{"ProxyJump of a jump host", "gpu", fmt.Sprintf("Host gpu hop1 hop2\n HostName 127.0.0.1\n Port %d\nHost gpu\n ProxyJump hop2\nHost hop2\n ProxyJump hop1", s.port)},
		{"tokens", "gpu", fmt.Sprintf("Host gpu\n HostName 127.0.0.1\n Port %d\n IdentityFile %%d/i${LETTER}\n IdentitiesOnly yes", s.port)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := strings.Count(s.logged(), "Accepted publickey")
			s.write("config", tt.config+fmt.Sprintf("\nHost *\n User root\n IdentityFile %s\n IdentityAgent none\n UserKnownHostsFile %s\n GlobalKnownHostsFile none\n", s.path("id"), s.path("known_hosts")))
			if tt.name == "tokens" {
				s.write("config", strings.ReplaceAll(s.read("config"), " IdentityFile "+s.path("id")+"\n", ""))
			}
			o := s.options()
			o.Getenv = env(map[string]string{"HOME": s.dir, "LETTER": "d"})
			c := s.dial(tt.alias, o)
			if out, err := c.Run(t.Context(), "echo hello"); string(out) != "hello\n" {
				t.Errorf("got %q, %v", out, err)
			}
			c.Close()
			want := 1 + strings.Count(tt.name, "Proxy") + strings.Count(tt.name, "two") + strings.Count(tt.name, "of a")
			if n := strings.Count(s.logged(), "Accepted publickey") - before; n != want {
				t.Errorf("%d logins, want %d", n, want)
			}
		})
	}
}

func TestChangedKeyOfJumpHostIsRefused(t *testing.T) {
	s := startSSHD(t)
	keygen(t, s.path("other"))
	s.write("known_hosts", "hop "+s.read("other.pub")+s.read("known_hosts"))
	s.write("config", fmt.Sprintf("Host gpu hop\n HostName 127.0.0.1\n Port %d\nHost gpu\n ProxyJump hop\nHost hop\n HostKeyAlias hop\nHost *\n UserKnownHostsFile %s\n", s.port, s.path("known_hosts")))
	_, err := Dial(t.Context(), Address{Host: "gpu"}, s.options())
	if replicate.KindOf(err) != replicate.Conflict || !strings.HasPrefix(fmt.Sprint(err), "connect to gpu: jump host hop: the key of the host has changed: "+s.path("known_hosts")+":1 has SHA256:") {
		t.Errorf("got %v", err)
	}
}

func TestJumpHostThatReachesNobody(t *testing.T) {
	s := startSSHD(t)
	port := freePort(t)
	s.write("config", fmt.Sprintf("Host box2\n HostName 127.0.0.1\n Port %d\n ProxyJump box\n", port)+s.read("config"))
	_, err := Dial(t.Context(), Address{Host: "box2"}, s.options())
	wantError(t, err, replicate.Unavailable, `connect to box2: the jump host cannot reach it: rejected: connect failed ("Connection refused")`,
		"its name and port are looked up there, not here")
	s.write("config", fmt.Sprintf("Host box3\n ProxyJump nobody\nHost nobody\n HostName 127.0.0.1\n Port %d\n", port)+s.read("config"))
	_, err = Dial(t.Context(), Address{Host: "box3"}, s.options())
	wantError(t, err, replicate.Unavailable, fmt.Sprintf("connect to box3: jump host nobody: 127.0.0.1:%d refuses the connection", port), "is sshd running there, on this port?")
}

func TestBadConfigurations(t *testing.T) {
	program := require.Program(t, "ssh")
	for _, tt := range []struct {
		name, config string
		program      string
		err, hint    string // %s is the file
	}{
		{"a word ssh does not know", "Host gpu\n Colour red\n", program, "connect to gpu: ssh -G: %[1]s: line 2: Bad configuration option: colour\n%[1]s: terminating, 1 bad configuration options", "ssh gpu says the same"},
		{"jumps in circles", "Host a\n ProxyJump gpu\nHost gpu\n ProxyJump a\n", program, "", "ProxyJump in ssh_config may go in circles: except the jump host itself, as in Host * !bastion"},
		{"token", "Host gpu\n IdentityFile ~/%!\n", program, "connect to gpu: ssh_config: %%! is not understood here", ""},
		{"Match exec without ssh", "Host other\n Port 1\nMatch exec true\n Port 2\n", "", "connect to gpu: %[1]s:3: there is no ssh program, and without it Match exec cannot be told", "install the ssh program, which can tell"},
		{"Match host exec without ssh", "Match host g* exec true\n Port 2\n", "", "connect to gpu: %[1]s:1: there is no ssh program, and without it Match exec cannot be told", "install the ssh program, which can tell"},
		{"Match final without ssh", "Match final\n Port 2\n", "", "connect to gpu: %[1]s:1: there is no ssh program, and without it Match final cannot be told", "install the ssh program, which can tell"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "config")
			if err := os.WriteFile(file, []byte(tt.config), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Dial(t.Context(), Address{Host: "gpu"}, Options{Config: file, Program: tt.program})
			if tt.err == "" {
				tt.err = fmt.Sprint(err) // as long as the circle
			} else {
				tt.err = strings.ReplaceAll(strings.ReplaceAll(tt.err, "%[1]s", file), "%%", "%")
			}
			if replicate.HintOf(err) != tt.hint || fmt.Sprint(err) != tt.err {
				t.Errorf("got %v\nhint %s\nwant %s\nhint %s", err, replicate.HintOf(err), tt.err, tt.hint)
			}
		})
	}
}

func TestHangingMatchExecIsGivenUp(t *testing.T) {
	defer func(before time.Duration) { resolvePatience = before }(resolvePatience)
	resolvePatience = 100 * time.Millisecond
	file := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(file, []byte("Match exec \"sleep 60\"\n Port 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Dial(t.Context(), Address{Host: "gpu"}, Options{Config: file, Program: require.Program(t, "ssh")})
	wantError(t, err, replicate.Unavailable, "connect to gpu: ssh -G gave no answer for 100ms", "a command of Match exec in ssh_config may hang; ssh -G gpu shows it")
}

// TestReadingIsAsGoodAsAsking compares what is read here with what ssh says, for all that both must know.
func TestReadingIsAsGoodAsAsking(t *testing.T) {
	program := require.Program(t, "ssh")
	me, err := user.Current() // ssh does not ask HOME
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "more"), []byte("Host gpu1\n User=included\nPort 99\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, config string }{
		{"empty", ""},
		{"first wins", "Host gpu*\n Port 1\nHost gpu1\n Port 2\n User a\n"},
		{"patterns", "Host !gpu1 *\n Port 1\nHost g?u1\n Port 2\nHost *.x gpu1\n User a\n"},
		{"case", "host GPU1\n Port 1\nHOST gpu1\n PORT 2\n"},
		{"equals and quotes", "Host=gpu1\n Port = 3\n User \"me\"\n IdentityFile \"/a b/c\"\n"},
		{"comments", "# Host gpu1\nHost gpu1 # other\n  # Port 1\n Port 4\n"},
		{"gathered", "IdentityFile /a\nHost gpu1\n IdentityFile /b\nHost *\n IdentityFile /a\n CertificateFile /c\n CertificateFile /d\n"},
		{"include", "Include " + dir + "/mo*\nHost gpu1\n Port 5\n"},
		{"include in a host", "Host other\n Include " + dir + "/more\nHost gpu1\n Port 5\n"},
		{"match all", "Match all\n Port 6\n"},
		{"match host", "Host gpu1\n HostName gpu.example.com\nMatch host *.example.com\n Port 7\nMatch originalhost gpu1 user nobody\n Port 8\n"},
		{"match negated", "Match !host gpu1\n Port 7\nMatch host a,g*\n Port 8\n"},
		{"match false and exec", "Match host other exec false\n Port 7\nHost gpu1\n Port 8\n"},
		{"hostname", "Host gpu1\n HostName %h.example.com\n"},
		{"proxies", "Host gpu1\n ProxyJump a,b@c:3\n"},
		{"proxy command", "Host gpu1\n ProxyCommand nc -X 5 %h %p\n"},
		{"keys", "HashKnownHosts yes\nStrictHostKeyChecking accept-new\nHostKeyAlias x\nHostKeyAlgorithms ssh-ed25519\nUserKnownHostsFile /a /b\n"},
		{"rest", "IdentitiesOnly yes\nIdentityAgent none\nAddressFamily inet\nConnectTimeout 3\nBatchMode yes\nNumberOfPasswordPrompts 1\nPasswordAuthentication no\nBindAddress 127.0.0.1\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(dir, "config")
			if err := os.WriteFile(file, []byte(tt.config), 0o600); err != nil {
				t.Fatal(err)
			}
			read := func(program string) *config {
				o := Options{Config: file, Program: program, Getenv: env(map[string]string{"HOME": me.HomeDir})}
				c, err := resolve(t.Context(), Address{Host: "gpu1"}, o, "")
				if err != nil {
					t.Fatal(err)
				}
				c.identities = slices.DeleteFunc(c.identities, func(file string) bool {
					return strings.HasSuffix(file, "_xmss") || strings.HasSuffix(file, "_dsa") // kinds that x/crypto does not know
				})
				if len(c.hostKeyAlgorithms) > 1 {
					c.hostKeyAlgorithms = []string{""} // the default of ssh
				}
				return c
			}
			want, got := fmt.Sprintf("%+v", *read(program)), fmt.Sprintf("%+v", *read(""))
			if got != want {
				t.Errorf("ssh says\n%s\nread was\n%s", want, got)
			}
		})
	}
}
