package ssh

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

// openssh are options that have the ssh program connect.
func (s *sshd) openssh() Options {
	o := s.options()
	o.Transport = OpenSSH
	return o
}

func TestOpenSSHDoesTheSame(t *testing.T) {
	s := startSSHD(t, noisy)
	c := s.dial("box", s.openssh())
	for range 3 {
		if out, err := c.Run(t.Context(), "echo hello"); string(out) != "hello\n" || err != nil {
			t.Errorf("a script printed %q, %v", out, err)
		}
	}
	_, err := c.Run(t.Context(), "echo oops >&2; exit 3")
	if exit, ok := errors.AsType[*ExitError](err); !ok || exit.Status != 3 || !strings.HasSuffix(exit.Stderr, "oops") {
		t.Errorf("got %v", err)
	}
	p, err := c.Stdio(t.Context(), "sh", "-c", "cat; exit 4")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(p, "hello")
	p.(interface{ CloseWrite() error }).CloseWrite()
	out, err := io.ReadAll(p)
	if exit, ok := errors.AsType[*ExitError](err); string(out) != "hello\n" || !ok || exit.Status != 4 {
		t.Errorf("a command gave %q, %v", out, err)
	}
	for network, dial := range map[string]func() (string, error){
		"unix": func() (string, error) { return talk(c.DialSocket(t.Context(), echo(t, "unix"))) },
		"tcp":  func() (string, error) { return talk(c.DialTCP(t.Context(), echo(t, "tcp"))) },
	} {
		if out, err := dial(); out != "you said hello\ngoodbye\n" || err != nil {
			t.Errorf("%s gave %q, %v", network, out, err)
		}
	}
	if n := strings.Count(s.logged(), "Connection from"); n != 1 {
		t.Errorf("sshd counts %d connections:\n%s", n, s.logged())
	}
	c.Close()
	if _, err := os.Stat(c.transport.(*master).folder); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of sockets is left: %v", err)
	}
}

func TestOpenSSHRefusals(t *testing.T) {
	for _, tt := range []struct{ name, setting string }{
		{"no socket", ""},
		{"forwarding forbidden", "AllowStreamLocalForwarding no"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startSSHD(t, tt.setting)
			c := s.dial("box", s.openssh())
			path := "/no/such:socket"
			if tt.setting != "" {
				path = echo(t, "unix")
			}
			for range 2 {
				if _, err := c.DialSocket(t.Context(), path); !errors.Is(err, ErrRefused) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	t.Run("sessions", func(t *testing.T) {
		s := startSSHD(t, "MaxSessions 1")
		_, err := s.dial("box", s.openssh()).Run(t.Context(), "echo")
		wantError(t, err, replicate.Unavailable, "start a shell on box: the host refused the channel (too many sessions)",
			"the host may allow too few sessions on a connection (MaxSessions in its sshd_config)")
	})
}

func TestOpenSSHErrors(t *testing.T) {
	for _, tt := range []struct {
		name      string
		change    func(s *sshd)
		kind      replicate.Kind
		err, hint string
	}{
		{"unknown host", func(s *sshd) { s.write("known_hosts", "") }, replicate.Permission, "connect to box: Host key verification failed", "run ssh box once, and compare"},
		{"changed key", func(s *sshd) {
			keygen(s.t, s.path("other"))
			s.write("known_hosts", strings.ReplaceAll(s.read("known_hosts"), s.read("host.pub"), s.read("other.pub")))
			s.write("config", s.read("config")+" StrictHostKeyChecking no\n")
		}, replicate.Conflict, "connect to box: the key of the host has changed", "ssh box says more"},
		{"no key", func(s *sshd) { s.write("authorized_keys", "") }, replicate.Permission, "connect to box: root@127.0.0.1: Permission denied (publickey)", "ssh box says more"},
		{"no shell", func(s *sshd) { s.write("authorized_keys", `command="echo no" `+s.read("id.pub")) }, replicate.Permission,
			"connect to box: the host runs something else in place of a shell", "the account may have no shell, or one command that is forced on it (ForceCommand, command= in authorized_keys)"},
		{"jump host without checks", func(s *sshd) {
			s.write("config", "Host hop\n StrictHostKeyChecking no\nHost box\n ProxyJump hop\n"+s.read("config"))
		}, replicate.Permission, "connect to box: StrictHostKeyChecking no is not safe for the jump host hop", "set it to accept-new in ssh_config"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startSSHD(t)
			tt.change(s)
			_, err := Dial(t.Context(), Address{Host: "box"}, s.openssh())
			wantError(t, err, tt.kind, tt.err, tt.hint)
		})
	}
	t.Run("no program", func(t *testing.T) {
		_, err := Dial(t.Context(), Address{Host: "box"}, Options{Transport: OpenSSH, Config: os.DevNull})
		wantError(t, err, replicate.Usage, "connect to box: there is no ssh program, which this transport needs", "install it")
	})
}

func TestOpenSSHRemembersNewHost(t *testing.T) {
	s := startSSHD(t)
	s.write("known_hosts", "")
	s.write("config", s.read("config")+" StrictHostKeyChecking no\n")
	s.dial("box", s.openssh())
	if !strings.Contains(s.read("known_hosts"), strings.Fields(s.read("host.pub"))[1]) {
		t.Errorf("known_hosts is %q", s.read("known_hosts"))
	}
}

func TestOpenSSHIsChosenForWhatItAloneCan(t *testing.T) {
	for _, tt := range []struct{ name, config string }{
		{"BindAddress", "BindAddress 127.0.0.1"},
		{"KnownHostsCommand", "KnownHostsCommand /bin/true"},
		{"RevokedHostKeys", "RevokedHostKeys none.krl"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startSSHD(t)
			s.write("none.krl", "")
			s.configure("IdentityFile " + s.path("id") + "\n " + strings.ReplaceAll(tt.config, "none.krl", s.path("none.krl")))
			c := s.dial("box", s.options())
			if _, ok := c.transport.(*master); !ok {
				t.Errorf("the transport is %T", c.transport)
			}
		})
	}
}

func TestLiveMasterIsUsedAlong(t *testing.T) {
	s := startSSHD(t)
	s.configure("IdentityFile " + s.path("id") + "\n ControlPath " + s.path("ctl"))
	cmd := exec.Command("/usr/bin/ssh", "-F", s.path("config"), "-M", "box", "echo ready; cat")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	io.ReadFull(out, make([]byte, len("ready\n")))
	c := s.dial("box", s.options())
	if got, err := talk(c.DialSocket(t.Context(), echo(t, "unix"))); got != "you said hello\ngoodbye\n" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if out, err := c.Run(t.Context(), "echo hello"); string(out) != "hello\n" || err != nil {
		t.Errorf("a script printed %q, %v", out, err)
	}
	c.Close()
	if n := strings.Count(s.logged(), "Connection from"); n != 1 {
		t.Errorf("sshd counts %d connections", n)
	}
	fmt.Fprintln(in, "alive")
	if line := make([]byte, len("alive\n")); second(io.ReadFull(out, line)) != nil || string(line) != "alive\n" {
		t.Errorf("the user's own session says %q", line)
	}
}

func TestDeadMasterIsNotUsed(t *testing.T) {
	s := startSSHD(t)
	s.configure("IdentityFile " + s.path("id") + "\n ControlPath " + s.path("ctl"))
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.path("ctl"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	c := s.dial("box", s.options())
	if _, ok := c.transport.(*native); !ok {
		t.Errorf("the transport is %T", c.transport)
	}
}

func TestFrozenLinkOfOpenSSHIsNoticed(t *testing.T) {
	interval, patience := pingInterval, pingPatience
	pingInterval, pingPatience = 100*time.Millisecond, 3*time.Second // which bound the calls of ssh too
	t.Cleanup(func() { pingInterval, pingPatience = interval, patience })
	s := startSSHD(t)
	c := s.dial("box", s.openssh())
	pid := s.child()
	freed, calls := block(t, c, func() { syscall.Kill(pid, syscall.SIGSTOP) })
	defer syscall.Kill(pid, syscall.SIGKILL)
	<-c.Dead()
	for range calls {
		<-freed
	}
}

func TestLongPathOfTemporaryFiles(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp/"+strings.Repeat("long", 20))
	folder, err := socketFolder()
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(folder)
	if info, err := os.Stat(folder); err != nil || info.Mode().Perm() != 0o700 || len(folder) > maxFolder {
		t.Errorf("the folder is %s, %v", folder, err)
	}
}
