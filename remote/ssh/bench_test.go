package ssh

import (
	"io"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// sink serves a Unix socket that reads everything and answers a byte at the end.
func sink(b *testing.B) (path string) {
	b.Helper()
	path = filepath.Join(b.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(io.Discard, conn)
				conn.Write([]byte{1})
			}()
		}
	}()
	return path
}

func BenchmarkDial(b *testing.B) {
	s := startSSHD(b)
	for _, transport := range []string{"native", OpenSSH} {
		b.Run(transport, func(b *testing.B) {
			o := s.options()
			if transport == OpenSSH {
				o.Transport = OpenSSH
			}
			for b.Loop() {
				c, err := Dial(b.Context(), Address{Host: "box"}, o)
				if err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}

func BenchmarkChannels(b *testing.B) {
	s := startSSHD(b)
	path := sink(b)
	c := s.dial("box", s.options())
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			conn, err := c.DialSocket(b.Context(), path)
			if err != nil {
				b.Fatal(err)
			}
			conn.Close()
		}
	})
	b.Run("script", func(b *testing.B) {
		for b.Loop() {
			if _, err := c.Run(b.Context(), "true"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("upload", func(b *testing.B) {
		piece := make([]byte, 16<<20)
		b.SetBytes(int64(len(piece)))
		conn, err := c.DialSocket(b.Context(), path)
		if err != nil {
			b.Fatal(err)
		}
		for b.Loop() {
			if _, err := conn.Write(piece); err != nil {
				b.Fatal(err)
			}
		}
		conn.(interface{ CloseWrite() error }).CloseWrite()
		io.ReadAll(conn)
	})
	b.Run("download", func(b *testing.B) {
		p, err := c.Stdio(b.Context(), "cat", "/dev/zero")
		if err != nil {
			b.Fatal(err)
		}
		defer p.Close()
		piece := make([]byte, 16<<20)
		b.SetBytes(int64(len(piece)))
		before := cpu(b)
		for b.Loop() {
			if _, err := io.ReadFull(p, piece); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric((cpu(b)-before).Seconds()/float64(b.N*len(piece))*1e9, "cpu-s/GB")
	})
}

// cpu is the time that this process has worked, without sshd.
func cpu(b *testing.B) time.Duration {
	b.Helper()
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}
