package remote_test

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/replicate/replicate/storage/storagetest/require"
)

// TestServersThatForbidThings runs a job on a host whose sshd, shell or engine is not as one wishes: it works all the same, or the error says what to do.
func TestServersThatForbidThings(t *testing.T) {
	for _, tt := range []struct {
		name string
		sshd []string
		host string
		code int
		says []string // on stderr
	}{
		{"OneSession", []string{"MaxSessions 1"}, "rh1", 0, nil},
		{"NoForwardingOfSockets", []string{"AllowStreamLocalForwarding no"}, "rh1", 0, []string{"AllowStreamLocalForwarding yes in its sshd_config"}},
		{"NoForwarding", []string{"DisableForwarding yes"}, "rh1", 0, []string{"does not allow forwarding of sockets"}},
		{"NoForwardingAndOneSession", []string{"DisableForwarding yes", "MaxSessions 1"}, "rh1", 255, []string{"hint: ", "sshd_config"}},
		{"ForcedCommand", []string{"ForceCommand echo no entry"}, "rh1", 125, []string{"forced on it (ForceCommand"}},
		{"ForcedCommandAndNoForwarding", []string{"ForceCommand echo no entry", "DisableForwarding yes"}, "rh1", 255, []string{"reach Docker on rh1", "forced on it (ForceCommand"}},
		{"FewLogins", []string{"MaxStartups 1"}, "rh1", 0, nil},
		{"NotInTheGroup", nil, "alice@rh1", 125, []string{"user alice may not use /var/run/docker.sock", "hint: sudo usermod -aG docker alice"}},
		{"NoLogin", nil, "root@rh1:1", 255, []string{"refuses the connection"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			if tt.sshd != nil {
				d.lab.Hosts[0].SSHD(t, tt.sshd...)
			}
			o := d.try("run", "-H", tt.host, "echo", "hello")
			if o.code != tt.code || tt.code == 0 && o.stdout != "hello\n" {
				t.Errorf("exit code %d, want %d; stdout %q", o.code, tt.code, o.stdout)
			}
			for _, text := range tt.says {
				if !strings.Contains(o.stderr, text) {
					t.Errorf("nothing says %q", text)
				}
			}
			if e := d.only(); tt.code == 0 && e.Status != "finished" || tt.code != 0 && e.Status != "failed" {
				t.Errorf("ls says %+v", e)
			}
		})
	}
}

// TestEngineThatSpeaksAnotherVersion has a command find an engine that speaks less, or more, than it is remembered to.
func TestEngineThatSpeaksAnotherVersion(t *testing.T) {
	d := newDesk(t)
	memory := filepath.Join(d.home, "cache", "replicate", "remote.json")
	apis := regexp.MustCompile(`"apis":\{[^}]*":"(1\.[0-9]+)"\}`)
	version := ""
	for _, remembered := range []string{"", "1.56", "1.40"} {
		text, _ := os.ReadFile(memory)
		if remembered != "" {
			d.must(os.WriteFile(memory, bytes.ReplaceAll(text, []byte(`"`+version+`"`), []byte(`"`+remembered+`"`)), 0o600))
		}
		if o := d.try("run", "-H", "rh1", "echo", "hello"); o.code != 0 || o.stdout != "hello\n" {
			t.Errorf("after %q: exit code %d, stdout %q", remembered, o.code, o.stdout)
		}
		text, err := os.ReadFile(memory)
		d.must(err)
		found := apis.FindSubmatch(text)
		if found == nil || version != "" && string(found[1]) != version {
			t.Fatalf("after %q this is remembered, not %s: %s", remembered, version, text)
		}
		version = string(found[1])
	}
}

func TestShellsThatTalk(t *testing.T) {
	d := newDesk(t)
	host := d.lab.Hosts[0]
	host.Run(t, "sh", "-c", `for f in .bashrc .profile .bash_profile; do echo 'echo welcome; echo beware >&2; sleep 1; echo "last login: never"' >/home/dev/$f; done`)
	t.Cleanup(func() { host.Run(t, "sh", "-c", "rm -f /home/dev/.bashrc /home/dev/.profile /home/dev/.bash_profile") })
	o := d.try("run", "-H", "rh1", "echo", "hello")
	if o.code != 0 || o.stdout != "hello\n" || strings.Contains(o.stderr, "welcome") || strings.Contains(o.stderr, "never") {
		t.Errorf("exit code %d, stdout %q", o.code, o.stdout)
	}
	host.SSHD(t, "DisableForwarding yes")
	if o := d.try("run", "-H", "rh1", "echo", "hello"); o.code != 0 || o.stdout != "hello\n" {
		t.Errorf("without forwarding: exit code %d, stdout %q", o.code, o.stdout)
	}
}

// TestShellsThatAreNoShOfPOSIX runs jobs for somebody whose login shell has a language of its own.
func TestShellsThatAreNoShOfPOSIX(t *testing.T) {
	for _, shell := range []string{"fish", "tcsh"} {
		t.Run(shell, func(t *testing.T) {
			program := require.Program(t, shell)
			d := newDesk(t)
			host := d.lab.Hosts[0]
			login := func(shell string) { host.Run(t, "sed", "-i", "/^dev:/s#:[^:]*$#:"+shell+"#", "/etc/passwd") }
			login(program)
			t.Cleanup(func() { login("/bin/bash") })
			host.Run(t, "mkdir", "-p", "/home/dev/data")
			host.Run(t, "chown", "dev", "/home/dev/data")
			for _, options := range [][]string{nil, {"DisableForwarding yes"}} {
				if options != nil {
					host.SSHD(t, options...)
				}
				o := d.try("run", "-H", "rh1", "-m", "/home/dev/data:/data:rw", "sh", "-c", "echo hello; id -u >/data/who")
				if o.code != 0 || o.stdout != "hello\n" {
					t.Errorf("%v: exit code %d, stdout %q", options, o.code, o.stdout)
				}
				if who := host.Run(t, "sh", "-c", "cat /home/dev/data/who; rm /home/dev/data/who"); who != "10781\n" {
					t.Errorf("%v: the job runs as %s", options, who)
				}
			}
		})
	}
}

// TestHostKeysAreChecked connects to a host whose key is not known, and to one that has another key than it had.
func TestHostKeysAreChecked(t *testing.T) {
	d := newDesk(t)
	key := d.read(d.lab.Key() + ".pub") // some key
	for _, tt := range []struct {
		name, known, want string
	}{
		{"Unknown", "", "hint: "},
		{"Changed", "rh1," + d.lab.Hosts[0].Address + " " + key, "known_hosts:1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			known := filepath.Join(d.home, "known_hosts")
			d.must(os.WriteFile(known, []byte(tt.known), 0o600))
			config := strings.ReplaceAll(d.read(d.lab.Config()), d.lab.KnownHosts(), known)
			d.must(os.WriteFile(filepath.Join(d.home, "config"), []byte(config), 0o600))
			bin := filepath.Join(d.home, "bin")
			d.must(os.MkdirAll(bin, 0o755))
			d.must(os.WriteFile(filepath.Join(bin, "ssh"), []byte("#!/bin/sh\nexec /usr/bin/ssh -F "+d.home+"/config \"$@\"\n"), 0o755))
			d.setenv("PATH", bin+":"+os.Getenv("PATH"))
			before := d.containers(d.lab.Hosts[0])
			o := d.try("run", "-H", "rh1", "echo", "hello")
			if o.code != 255 || o.stdout != "" || !strings.Contains(o.stderr, tt.want) {
				t.Errorf("exit code %d", o.code)
			}
			if len(d.containers(d.lab.Hosts[0])) != len(before) {
				t.Error("a container was made")
			}
			if got := d.read(known); got != tt.known {
				t.Errorf("the file of known hosts is now %q", got)
			}
		})
	}
}
