package ssh

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"golang.org/x/crypto/ssh"
)

// A server is made of x/crypto, so that each of its answers can be chosen. Its clients have a home without an ssh program.
type server struct {
	t        *testing.T
	dir      string
	port     int
	conns    atomic.Int32
	mute     atomic.Bool // pings are not answered
	channels atomic.Int32
}

// startServer serves with host keys. change makes its configuration; without it everybody is let in.
func startServer(t *testing.T, change func(*ssh.ServerConfig), hostKeys ...ssh.Signer) *server {
	t.Helper()
	config := &ssh.ServerConfig{NoClientAuth: true}
	if change != nil {
		config.NoClientAuth = false
		change(config)
	}
	for _, key := range hostKeys {
		config.AddHostKey(key)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s := &server{t: t, dir: t.TempDir(), port: l.Addr().(*net.TCPAddr).Port}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			go s.serve(conn, config)
		}
	}()
	return s
}

func (s *server) serve(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go func() {
		for r := range requests {
			if r.WantReply && !s.mute.Load() {
				r.Reply(false, nil)
			}
		}
	}()
	for c := range channels {
		s.channels.Add(1)
		go s.channel(c)
	}
}

// channel connects a channel for a socket or a port; there are no sessions.
func (s *server) channel(c ssh.NewChannel) {
	network, address := "unix", ""
	switch c.ChannelType() {
	case "direct-streamlocal@openssh.com":
		var m struct {
			Path, Reserved string
			Port           uint32
		}
		ssh.Unmarshal(c.ExtraData(), &m)
		address = m.Path
	case "direct-tcpip":
		var m struct {
			Host string
			Port uint32
			From string
			At   uint32
		}
		ssh.Unmarshal(c.ExtraData(), &m)
		network, address = "tcp", hostport(m.Host, int(m.Port))
	}
	conn, err := net.Dial(network, address)
	if err != nil {
		c.Reject(ssh.ConnectionFailed, err.Error())
		return
	}
	defer conn.Close()
	channel, requests, err := c.Accept()
	if err != nil {
		return
	}
	defer channel.Close()
	go ssh.DiscardRequests(requests)
	go func() {
		io.Copy(conn, channel)
		conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	io.Copy(channel, conn)
}

// options are those of a client with a configuration of its own, and a known_hosts file beside it.
func (s *server) options(config string) Options {
	s.t.Helper()
	path := filepath.Join(s.dir, "config")
	text := fmt.Sprintf("Host box\n HostName 127.0.0.1\n Port %d\n%s\nHost *\n User dev\n UserKnownHostsFile %s\n GlobalKnownHostsFile none\n IdentityAgent none\n",
		s.port, config, s.knownHosts())
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return Options{Config: path, Getenv: env(map[string]string{"HOME": s.dir})}
}

func (s *server) knownHosts() string { return filepath.Join(s.dir, "known_hosts") }

// know writes known_hosts, with the server's port for each %d.
func (s *server) know(lines string) {
	s.t.Helper()
	if err := os.WriteFile(s.knownHosts(), []byte(lines), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// name is that of the server in known_hosts.
func (s *server) name() string { return fmt.Sprintf("[127.0.0.1]:%d", s.port) }

// line is one of known_hosts, ended.
func line(names string, key ssh.PublicKey) string {
	return names + " " + string(ssh.MarshalAuthorizedKey(key))
}

// dial connects to the server, and closes the connection at the end of the test.
func (s *server) dial(o Options) (*Conn, error) {
	c, err := Dial(s.t.Context(), Address{Host: "box"}, o)
	if err == nil {
		s.t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// newKey makes a key of a kind: ed25519, ecdsa, rsa.
func newKey(t *testing.T, kind string) ssh.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}
