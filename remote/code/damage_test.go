package code

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A tamperer flips a bit of what is written at some place.
type tamperer struct {
	net.Conn
	at int
}

// Write implements io.Writer.
func (c *tamperer) Write(p []byte) (int, error) {
	if c.at >= 0 && c.at < len(p) {
		p = bytes.Clone(p)
		p[c.at] ^= 4
	}
	c.at -= len(p)
	return c.Conn.Write(p)
}

// TestTamperedStreamIsRefused flips bits all over a stream: the tree arrives as it was sent or not at all.
func TestTamperedStreamIsRefused(t *testing.T) {
	root := t.TempDir()
	for i := range 20 {
		write(t, filepath.Join(root, fmt.Sprintf("f%d", i)), random(uint64(i), 4000))
	}
	total := int(transfer(t, scan(t, Options{Root: root}), ReceiveOptions{Chunks: t.TempDir(), Target: t.TempDir()}).Wire)
	refused := 0
	for at := 0; at < total; at += 997 {
		dir := t.TempDir()
		here, there := net.Pipe()
		must(t, there.SetDeadline(time.Now().Add(10*time.Second))) // a length that grew waits for bytes
		wait := &tamperer{Conn: here, at: at}
		closing, cancel := context.WithCancel(t.Context())
		context.AfterFunc(closing, func() { there.Close() })
		received := make(chan error, 1)
		go func() {
			received <- Receive(t.Context(), there, ReceiveOptions{Chunks: dir + "/chunks", Target: dir + "/code"})
			cancel()
		}()
		_, sent := scan(t, Options{Root: root}).Send(t.Context(), &finite{Conn: wait, left: total}, SendOptions{})
		if err := <-received; err == nil {
			same(t, root, dir+"/code")
		} else if refused++; sent == nil {
			t.Errorf("flip at %d: refused (%v), and the sender does not know", at, err)
		}
	}
	if refused < 50 {
		t.Errorf("%d streams were refused", refused)
	}
}

// finite closes the connection when everything has been sent that an untampered one sends.
type finite struct {
	net.Conn
	left int
}

// Write implements io.Writer.
func (c *finite) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.left -= n; c.left <= 0 {
		c.Conn.SetReadDeadline(time.Now().Add(time.Second))
	}
	return n, err
}

func TestDamagedChunksAreFetchedAgain(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	content := random(5, 6<<20)
	write(t, filepath.Join(root, "f"), content)
	write(t, filepath.Join(root, "small"), content[:100])
	o := ReceiveOptions{Chunks: dir + "/chunks", Target: dir + "/1"}
	transfer(t, scan(t, Options{Root: root}), o)
	for _, path := range chunkFiles(t, o.Chunks) {
		must(t, flip(path, 10))
	}
	o.Target = dir + "/2"
	report := transfer(t, scan(t, Options{Root: root}), o)
	if report.Sent != 6<<20+100 {
		t.Errorf("%d bytes travelled", report.Sent)
	}
	if got, err := os.ReadFile(dir + "/2/f"); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestDamagedChunksOfSomeOfManyFilesAreFetchedAgain(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	for i := range 3 * stretchFiles {
		write(t, filepath.Join(root, []string{"", "a", "a/b"}[i%3], fmt.Sprintf("%04d", i)), random(uint64(i), 1000+i))
	}
	write(t, filepath.Join(root, "a/ends with zeros"), append(random(200, 100<<10), make([]byte, 8<<20)...))
	o := ReceiveOptions{Chunks: dir + "/chunks", Target: dir + "/1"}
	transfer(t, scan(t, Options{Root: root}), o)
	same(t, root, o.Target)
	damaged := int64(0)
	for i, path := range chunkFiles(t, o.Chunks) {
		if info, err := os.Stat(path); i%20 == 0 && err == nil {
			damaged += info.Size()
			must(t, flip(path, 10))
		}
	}
	o.Target = dir + "/2"
	if report := transfer(t, scan(t, Options{Root: root}), o); report.Sent != damaged {
		t.Errorf("%d bytes travelled of %d", report.Sent, damaged)
	}
	same(t, root, o.Target)
}

func chunkFiles(t *testing.T, dir string) []string {
	t.Helper()
	paths, err := filepath.Glob(dir + "/??/*")
	must(t, err)
	if len(paths) == 0 {
		t.Fatal("there are no chunks")
	}
	return paths
}
