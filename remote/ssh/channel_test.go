package ssh

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

func TestSocketsAndPorts(t *testing.T) {
	s := startSSHD(t)
	c := s.dial("box", s.options())
	if !strings.HasPrefix(c.HostKey(), "SHA256:") || c.User() != "root" || c.Host() != "box" {
		t.Errorf("key %q, user %q, host %q", c.HostKey(), c.User(), c.Host())
	}
	for _, network := range []string{"unix", "tcp"} {
		t.Run(network, func(t *testing.T) {
			dial := c.DialSocket
			if network == "tcp" {
				dial = c.DialTCP
			}
			if out, err := talk(dial(t.Context(), echo(t, network))); out != "you said hello\ngoodbye\n" || err != nil {
				t.Errorf("got %q, %v", out, err)
			}
		})
	}
}

// talk says hello to an echo, then no more, and returns all it answers.
func talk(conn net.Conn, err error) (string, error) {
	if err != nil {
		return "", err
	}
	defer conn.Close()
	fmt.Fprintln(conn, "hello")
	conn.(interface{ CloseWrite() error }).CloseWrite()
	out, err := io.ReadAll(conn)
	return string(out), err
}

func TestRefusedChannels(t *testing.T) {
	for _, tt := range []struct{ name, setting string }{
		{"no socket", ""},
		{"forwarding forbidden", "AllowStreamLocalForwarding no"},
		{"all forwarding forbidden", "DisableForwarding yes"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := startSSHD(t, tt.setting)
			c := s.dial("box", s.options())
			path := "/no/such/socket"
			if tt.setting != "" {
				path = echo(t, "unix")
			}
			_, err := c.DialSocket(t.Context(), path)
			if !errors.Is(err, ErrRefused) || replicate.KindOf(err) != replicate.Unavailable || !strings.HasPrefix(err.Error(), "open "+path+" on box: the host refused the channel") {
				t.Errorf("got %v", err)
			}
			if out, err := c.Run(t.Context(), "echo alive"); string(out) != "alive\n" {
				t.Errorf("the connection is not alive: %q, %v", out, err)
			}
		})
	}
}

func TestDeadlinesClose(t *testing.T) {
	s := startSSHD(t)
	c := s.dial("box", s.options())
	conn, err := c.DialSocket(t.Context(), echo(t, "unix"))
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(time.Hour))
	conn.SetDeadline(time.Time{})
	fmt.Fprintln(conn, "hello")
	if _, err := conn.Read(make([]byte, 100)); err != nil {
		t.Errorf("a deadline that was taken back: %v", err)
	}
	conn.SetReadDeadline(time.Unix(1, 0))
	if _, err := conn.Read(make([]byte, 100)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a deadline that passed: %v", err)
	}
}

func TestCloseFreesReads(t *testing.T) {
	s := startSSHD(t)
	c := s.dial("box", s.options())
	conn, err := c.DialSocket(t.Context(), echo(t, "unix"))
	if err != nil {
		t.Fatal(err)
	}
	freed := make(chan error)
	go func() {
		_, err := conn.Read(make([]byte, 100))
		freed <- err
	}()
	conn.Close()
	if err := <-freed; !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestClosedConnectionSaysSo(t *testing.T) {
	s := startSSHD(t)
	c := s.dial("box", s.options())
	if err := c.Err(); err != nil {
		t.Errorf("a connection that lives: %v", err)
	}
	c.Close()
	<-c.Dead()
	if !errors.Is(c.Err(), net.ErrClosed) {
		t.Errorf("got %v", c.Err())
	}
	_, err := c.DialSocket(t.Context(), "/x")
	wantError(t, err, replicate.Unavailable, "open /x on box: use of closed network connection", "")
}

func TestPreparedConnectionsAreTaken(t *testing.T) {
	key := newKey(t, "ed25519")
	s := startServer(t, nil, key)
	s.know(line(s.name(), key.PublicKey()))
	c, err := s.dial(s.options(""))
	if err != nil {
		t.Fatal(err)
	}
	path := echo(t, "unix")
	c.Prepare(path, 2)
	for i := range 3 {
		if out, err := talk(c.DialSocket(t.Context(), path)); out != "you said hello\ngoodbye\n" || err != nil {
			t.Errorf("got %q, %v", out, err)
		}
		if n := int(s.channels.Load()); n != max(2, i+1) {
			t.Errorf("%d channels were opened for %d", n, i+1)
		}
	}
	c.Prepare("/no/such/socket", 1)
	if _, err := c.DialSocket(t.Context(), "/no/such/socket"); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
}

func TestOldSparesAreNotTaken(t *testing.T) {
	var s spares
	old := &spare{since: time.Now().Add(-spareAge), done: make(chan struct{})}
	close(old.done)
	young := &spare{since: time.Now()}
	s.put("/x", old)
	s.put("/x", young)
	if got := s.take("/x"); got != young {
		t.Errorf("took %+v", got)
	}
	if got := s.take("/x"); got != nil {
		t.Errorf("took %+v", got)
	}
}

// full is a connection on which any number of bytes has come.
type full struct {
	net.Conn
	reads int
}

func (f *full) Read(p []byte) (int, error) {
	f.reads++
	return len(p), nil
}

// TestMuchIsReadAtOnce reads packets as x/crypto does, through a buffer of its own. Few calls of the system bring them.
func TestMuchIsReadAtOnce(t *testing.T) {
	come := &full{}
	const packets = 100
	r, packet := bufio.NewReader(gather(come)), make([]byte, 32<<10)
	for range packets {
		for _, part := range [][]byte{packet[:4], packet[4:]} { // its length, and the rest
			if _, err := io.ReadFull(r, part); err != nil {
				t.Fatal(err)
			}
		}
	}
	if most := packets*len(packet)/gathered + 2; come.reads > most {
		t.Errorf("%d reads for %d packets, more than %d", come.reads, packets, most)
	}
}
