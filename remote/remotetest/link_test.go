package remotetest_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate/remote/remotetest"
)

// echo is a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn)
			}()
		}
	}()
	return listener.Addr().String()
}

func dial(t *testing.T, l *remotetest.Link) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", l.Addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(time.Minute))
	return conn.(*net.TCPConn)
}

func exchange(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestLinkDelays(t *testing.T) {
	const latency = 30 * time.Millisecond
	l := remotetest.NewLink(t, echo(t), remotetest.Quality{Latency: latency})
	start := time.Now()
	conn := dial(t, l)
	exchange(t, conn, "hello")
	if took := time.Since(start); took < 4*latency {
		t.Errorf("handshake and a round trip took %v, which is less than two round trips", took)
	}
	start = time.Now()
	exchange(t, conn, "hello")
	if took := time.Since(start); took < 2*latency {
		t.Errorf("a round trip took %v", took)
	}
}

func TestLinkLimitsItsRate(t *testing.T) {
	l := remotetest.NewLink(t, echo(t), remotetest.Quality{Rate: 1 << 20})
	conn := dial(t, l)
	start := time.Now()
	go conn.Write(make([]byte, 200<<10))
	if _, err := io.CopyN(io.Discard, conn, 200<<10); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 190*time.Millisecond {
		t.Errorf("200 KB at 1 MB/s took %v", took)
	}
}

func TestLinkCarriesEveryByteInOrder(t *testing.T) {
	l := remotetest.NewLink(t, echo(t), remotetest.Quality{Latency: time.Millisecond, Jitter: 5 * time.Millisecond})
	conn := dial(t, l)
	sent := make([]byte, 3<<20)
	for i := range sent {
		sent[i] = byte(rand.Uint32())
	}
	go func() {
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 1+rand.IntN(100_000))
			conn.Write(rest[:n])
			rest = rest[n:]
		}
		conn.CloseWrite()
	}()
	if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes arrived, %v", len(got), len(sent), err)
	}
}

func TestFrozenLinkIsSilentAndLosesNothing(t *testing.T) {
	l := remotetest.NewLink(t, echo(t), remotetest.Quality{})
	conn := dial(t, l)
	exchange(t, conn, "before")
	l.Freeze()
	if _, err := io.WriteString(conn, "meanwhile"); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read %d bytes, %v", n, err)
	}
	l.Thaw()
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	got := make([]byte, len("meanwhile"))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "meanwhile" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestCutLinkResetsAndCanBeUsedAgain(t *testing.T) {
	l := remotetest.NewLink(t, echo(t), remotetest.Quality{})
	conn := dial(t, l)
	exchange(t, conn, "before")
	l.Cut()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("read: %v, want a reset", err)
	}
	exchange(t, dial(t, l), "after")
	if l.Connections() != 2 {
		t.Errorf("%d connections, want 2", l.Connections())
	}
}
