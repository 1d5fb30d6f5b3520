package ssh

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// A relay passes a connection on until it is frozen: then it holds what comes, as a link that is gone.
type relay struct {
	port   int
	frozen sync.RWMutex
}

func startRelay(t testing.TB, port int) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{port: l.Addr().(*net.TCPAddr).Port}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", hostport("127.0.0.1", port))
			if err != nil {
				here.Close()
				continue
			}
			go r.pass(here, there)
			go r.pass(there, here)
		}
	}()
	return r
}

func (r *relay) pass(to, from net.Conn) {
	defer to.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.frozen.RLock()
		_, writeErr := to.Write(buf[:n])
		r.frozen.RUnlock()
		if err != nil || writeErr != nil {
			return
		}
	}
}

// hurry makes keepalive impatient for the time of a test, though not so much that it takes a busy machine for a dead one.
func hurry(t *testing.T) {
	interval, patience := pingInterval, pingPatience
	pingInterval, pingPatience = 20*time.Millisecond, time.Second
	t.Cleanup(func() { pingInterval, pingPatience = interval, patience })
}

// throughRelay gives the server a client that goes through a relay.
func (s *sshd) throughRelay() *relay {
	s.t.Helper()
	r := startRelay(s.t, s.port)
	s.write("known_hosts", "box "+s.read("host.pub"))
	s.write("config", "Host box\n HostName 127.0.0.1\n HostKeyAlias box\n User root\n IdentityAgent none\n Port "+strconv.Itoa(r.port)+
		"\n IdentityFile "+s.path("id")+"\n UserKnownHostsFile "+s.path("known_hosts")+"\n GlobalKnownHostsFile none\n")
	return r
}

// block starts calls of every kind that do not return while the host says nothing, and returns a channel of their errors.
func block(t *testing.T, c *Conn, cut func()) (freed chan error, calls int) {
	t.Helper()
	conn, err := c.DialSocket(t.Context(), echo(t, "unix"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := c.Stdio(t.Context(), "cat")
	if err != nil {
		t.Fatal(err)
	}
	full, err := c.DialSocket(t.Context(), echo(t, "unix"))
	if err != nil {
		t.Fatal(err)
	}
	cut()
	tries := []func() error{
		func() error { _, err := conn.Read(make([]byte, 10)); return err },
		func() error { _, err := p.Read(make([]byte, 10)); return err },
		func() error { _, err := io.Copy(full, endless{}); return err },
		func() error { _, err := c.DialSocket(t.Context(), "/x"); return err },
		func() error { _, err := c.DialTCP(t.Context(), "127.0.0.1:1"); return err },
		func() error { _, err := c.Run(t.Context(), "echo"); return err },
		func() error { _, err := c.Stdio(t.Context(), "cat"); return err },
	}
	freed = make(chan error, len(tries))
	for _, try := range tries {
		go func() { freed <- try() }()
	}
	return freed, len(tries)
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

func TestFrozenLinkIsNoticedAndFreesEveryCall(t *testing.T) {
	hurry(t)
	s := startSSHD(t)
	r := s.throughRelay()
	c := s.dial("box", s.options())
	freed, calls := block(t, c, r.frozen.Lock)
	defer r.frozen.Unlock()
	<-c.Dead()
	for range calls {
		if err := <-freed; err == nil {
			t.Error("a call on a dead connection succeeded")
		}
	}
	if c.Err() == nil || c.Err().Error() != "the host does not answer any more" {
		t.Errorf("the reason is %v", c.Err())
	}
	_, err := c.Run(t.Context(), "echo")
	wantError(t, err, replicate.Unavailable, "start a shell on box: the host does not answer any more", "")
}

func TestStoppedServerIsNoticed(t *testing.T) {
	hurry(t)
	s := startSSHD(t)
	c := s.dial("box", s.options())
	pid := s.child()
	freed, calls := block(t, c, func() { syscall.Kill(pid, syscall.SIGSTOP) })
	defer syscall.Kill(pid, syscall.SIGKILL)
	<-c.Dead()
	for range calls {
		<-freed
	}
}

// child is the process of the server for the only connection.
func (s *sshd) child() int {
	s.t.Helper()
	out, err := exec.Command(require.Program(s.t, "pgrep"), "-P", strconv.Itoa(s.pid)).Output()
	if err != nil {
		s.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		s.t.Fatal(err)
	}
	return pid
}

func TestKilledServerIsNoticed(t *testing.T) {
	s := startSSHD(t)
	c := s.dial("box", s.options())
	syscall.Kill(s.child(), syscall.SIGKILL)
	<-c.Dead()
	if c.Err() == nil || c.Err().Error() != "the host ended the connection" {
		t.Errorf("the reason is %v", c.Err())
	}
}

func TestCloseFreesEveryCallOnFrozenLink(t *testing.T) {
	s := startSSHD(t)
	r := s.throughRelay()
	c := s.dial("box", s.options())
	freed, calls := block(t, c, r.frozen.Lock)
	defer r.frozen.Unlock()
	c.Close()
	for range calls {
		if err := <-freed; err == nil {
			t.Error("a call on a closed connection succeeded")
		}
	}
}

func TestContextEndsCallsOnFrozenLink(t *testing.T) {
	s := startSSHD(t)
	r := s.throughRelay()
	c := s.dial("box", s.options())
	r.frozen.Lock()
	defer r.frozen.Unlock()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range []error{
		second(c.DialSocket(ctx, "/x")), second(c.Run(ctx, "echo")), second(c.Stdio(ctx, "cat")),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
	if c.Err() != nil {
		t.Errorf("the connection ended: %v", c.Err())
	}
}

func second[T any](_ T, err error) error { return err }

func TestBusyLinkIsAlive(t *testing.T) {
	hurry(t)
	key := newKey(t, "ed25519")
	s := startServer(t, nil, key)
	s.mute.Store(true)
	s.know(line(s.name(), key.PublicKey()))
	c, err := s.dial(s.options(""))
	if err != nil {
		t.Fatal(err)
	}
	busy, err := c.DialSocket(t.Context(), echo(t, "unix"))
	if err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(busy)
	for start := time.Now(); time.Since(start) < 2*pingMisses*pingPatience; {
		fmt.Fprintln(busy, "hello")
		if _, err := answers.ReadString('\n'); err != nil {
			t.Fatalf("%v: %v", err, c.Err())
		}
	}
	<-c.Dead() // once nothing comes any more
}

func TestSilentServerIsGivenUp(t *testing.T) {
	defer func(before time.Duration) { handshakePatience = before }(handshakePatience)
	handshakePatience = 50 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := &server{t: t, dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port}
	_, err = s.dial(s.options(""))
	wantError(t, err, replicate.Unavailable, "connect to box: no answer within 50ms", "something takes the connection and is no sshd, or the machine is overloaded")
}

func TestNoServer(t *testing.T) {
	port := freePort(t)
	for _, tt := range []struct {
		name, config string
		kind         replicate.Kind
		err, hint    string
	}{
		{"nobody listens", "", replicate.Unavailable, "connect to box: 127.0.0.1:" + strconv.Itoa(port) + " refuses the connection", "is sshd running there, on this port?"},
		{"ProxyCommand fails", "ProxyCommand echo no such tunnel >&2; exit 1", replicate.Unavailable, `connect to box: ProxyCommand says "no such tunnel": the host ended the connection`,
			"it may have too many connections (MaxStartups), or forbid this address or user"},
		{"ProxyCommand is no sshd", "ProxyCommand yes hello", replicate.Unavailable, "connect to box: what answers at 127.0.0.1:" + strconv.Itoa(port) + " is no sshd", "check the port"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &server{t: t, dir: t.TempDir(), port: port}
			_, err := s.dial(s.options(tt.config))
			wantError(t, err, tt.kind, tt.err, tt.hint)
		})
	}
}

func TestCancelledDialEnds(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if conn, err := l.Accept(); err == nil {
			cancel()
			defer conn.Close()
			io.Copy(io.Discard, conn)
		}
	}()
	s := &server{t: t, dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port}
	_, err = Dial(ctx, Address{Host: "box"}, s.options(""))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	wantError(t, err, replicate.Unavailable, "connect to box: cancelled", "")
}

func TestNameNobodyHas(t *testing.T) {
	_, err := Dial(t.Context(), Address{Host: "no-such-host.invalid"}, Options{Config: os.DevNull})
	if replicate.KindOf(err) == replicate.NotFound { // a resolver that answers
		wantError(t, err, replicate.NotFound, "connect to no-such-host.invalid: no host has the name no-such-host.invalid",
			"check the name, or give it a HostName in ~/.ssh/config")
	} else if !strings.Contains(err.Error(), "the name no-such-host.invalid cannot be looked up") {
		t.Errorf("got %v", err)
	}
}

func TestEndWhileKeysAreOfferedIsNoRefusal(t *testing.T) {
	s := startSSHD(t, `AuthorizedKeysCommand /bin/sh -c "kill -9 $PPID"`, "AuthorizedKeysCommandUser root")
	s.write("authorized_keys", "") // the command is asked for what is not there
	_, err := Dial(t.Context(), Address{Host: "box"}, s.options())
	wantError(t, err, replicate.Unavailable, "connect to box: the host ended the connection while keys were offered: "+s.path("id"),
		"it may take fewer attempts (MaxAuthTries): name the right key with -i")
}

func TestTooManyConnectionsAreSaid(t *testing.T) {
	s := startSSHD(t, "MaxStartups 1")
	hog, err := net.Dial("tcp", hostport("127.0.0.1", s.port))
	if err != nil {
		t.Fatal(err)
	}
	defer hog.Close()
	if _, err := hog.Read(make([]byte, 4)); err != nil { // its first word: the server counts it
		t.Fatal(err)
	}
	_, err = Dial(t.Context(), Address{Host: "box"}, s.options())
	wantError(t, err, replicate.Unavailable, "connect to box: the host ended the connection",
		"it may have too many connections (MaxStartups), or forbid this address or user")
}
