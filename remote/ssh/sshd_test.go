package ssh

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/replicate/replicate/storage/storagetest/require"
	"github.com/replicate/replicate/storage/storagetest/servers"
)

// An sshd is Debian's, on a port of its own of 127.0.0.1 and ::1, with a home for its clients.
type sshd struct {
	t    testing.TB
	dir  string // known_hosts, id, config of the client; authorized_keys of the server
	port int
	pid  int

	mu  sync.Mutex // guards log
	log []string
}

// startSSHD starts a server with lines added to its configuration, and a client's home that knows it as the alias box.
func startSSHD(t testing.TB, lines ...string) *sshd {
	t.Helper()
	require.Root(t)
	program := "/usr/sbin/sshd"
	if _, err := os.Stat(program); err != nil {
		require.Missing(t, program)
	}
	require.Program(t, "ssh")
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	s := &sshd{t: t, dir: t.TempDir(), port: freePort(t)}
	keygen(t, s.path("host"))
	keygen(t, s.path("id"))
	s.write("authorized_keys", s.read("id.pub"))
	s.write("known_hosts", fmt.Sprintf("[127.0.0.1]:%d %s[::1]:%d %s", s.port, s.read("host.pub"), s.port, s.read("host.pub")))
	s.write("config", fmt.Sprintf("Host box\n HostName 127.0.0.1\n Port %d\n IdentityFile %s\nHost *\n User root\n IdentityAgent none\n UserKnownHostsFile %s\n GlobalKnownHostsFile none\n",
		s.port, s.path("id"), s.path("known_hosts")))
	s.write("sshd_config", strings.Join(append(lines, "ListenAddress 127.0.0.1:"+strconv.Itoa(s.port), "ListenAddress [::1]:"+strconv.Itoa(s.port),
		"HostKey "+s.path("host"), "AuthorizedKeysFile "+s.path("authorized_keys"), "PidFile none", "UsePAM no", "StrictModes no",
		"PermitRootLogin yes", "PasswordAuthentication no", "KbdInteractiveAuthentication no", "LogLevel VERBOSE", ""), "\n"))
	s.start(program)
	return s
}

func (s *sshd) start(program string) {
	s.t.Helper()
	cmd := exec.Command(program, "-D", "-e", "-f", s.path("sshd_config"))
	stderr, err := cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.pid = cmd.Process.Pid
	listening, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		once := sync.OnceFunc(func() { close(listening) })
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.mu.Lock()
			s.log = append(s.log, lines.Text())
			s.mu.Unlock()
			if strings.HasPrefix(lines.Text(), "Server listening on 127") {
				once()
			}
		}
	}()
	s.t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	select {
	case <-listening:
	case <-ended:
		s.t.Fatalf("sshd: %s", s.logged())
	}
}

func (s *sshd) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.log, "\n")
}

func (s *sshd) path(name string) string { return filepath.Join(s.dir, name) }

func (s *sshd) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(s.path(name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sshd) read(name string) string {
	s.t.Helper()
	data, err := os.ReadFile(s.path(name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(data)
}

// options are those of a client whose home is that of the server, with nobody to ask.
func (s *sshd) options() Options {
	return Options{Config: s.path("config"), Program: "/usr/bin/ssh", Getenv: env(map[string]string{"HOME": s.dir})}
}

// dial connects to an alias, or fails the test.
func (s *sshd) dial(alias string, o Options) *Conn {
	s.t.Helper()
	c, err := Dial(s.t.Context(), Address{Host: alias}, o)
	if err != nil {
		s.t.Fatalf("%v\nsshd:\n%s", err, s.logged())
	}
	s.t.Cleanup(func() { c.Close() })
	return c
}

func env(values map[string]string) func(string) string {
	return func(name string) string { return values[name] }
}

func keygen(t testing.TB, path string, args ...string) {
	t.Helper()
	args = append([]string{"-q", "-f", path, "-C", filepath.Base(path)}, args...)
	if len(args) == 5 {
		args = append(args, "-t", "ed25519", "-N", "")
	}
	if out, err := exec.Command(require.Program(t, "ssh-keygen"), args...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	port, err := servers.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// echo serves a socket ("unix") or port ("tcp") that answers each line, and says goodbye once nothing more comes.
func echo(t *testing.T, network string) (where string) {
	t.Helper()
	where = "127.0.0.1:0"
	if network == "unix" {
		where = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, where)
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
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					fmt.Fprintln(conn, "you said", lines.Text())
				}
				fmt.Fprintln(conn, "goodbye")
			}()
		}
	}()
	return l.Addr().String()
}
