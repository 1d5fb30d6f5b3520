package code

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

func TestOnlyWhatChangedTravels(t *testing.T) {
	root, chunks := t.TempDir(), t.TempDir()
	path := filepath.Join(root, "weights.bin")
	content := random(1, 64<<20)
	write(t, path, content)
	transfer(t, scan(t, Options{Root: root}), ReceiveOptions{Chunks: chunks, Target: t.TempDir()})
	changed := append(append(bytes.Clone(content[:20<<20]), random(2, 640<<10)...), content[20<<20+100:]...) // and all behind it moves
	write(t, path, changed)
	target := t.TempDir()
	report := transfer(t, scan(t, Options{Root: root}), ReceiveOptions{Chunks: chunks, Target: target})
	if report.Sent > 5<<20 {
		t.Errorf("%d bytes travelled", report.Sent)
	}
	if got, err := os.ReadFile(filepath.Join(target, "weights.bin")); err != nil || !bytes.Equal(got, changed) {
		t.Errorf("%d bytes arrived, %v", len(got), err)
	}
}

// TestUnchangedFilesAreNotReadAgain replaces a file's content behind the back of its stamp's owner: what is not read cannot be found out.
func TestUnchangedFilesAreNotReadAgain(t *testing.T) {
	root, chunks := t.TempDir(), t.TempDir()
	write(t, filepath.Join(root, "a"), random(1, 3<<20))
	write(t, filepath.Join(root, "b"), random(2, 100))
	o := Options{Root: root, Memory: filepath.Join(t.TempDir(), "memory")}
	settle(t, root, filepath.Dir(o.Memory))
	for i, want := range []int64{3<<20 + 100, 0} {
		var read int64
		here, there := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- Receive(t.Context(), there, ReceiveOptions{Chunks: chunks, Target: t.TempDir()}) }()
		_, err := scan(t, o).Send(t.Context(), here, SendOptions{Progress: func(phase Phase, done, total int64) {
			if phase == Reading {
				read = total
			}
		}})
		must(t, err)
		must(t, <-done)
		if read != want {
			t.Errorf("send %d read %d bytes, want %d", i, read, want)
		}
	}
	write(t, filepath.Join(root, "b"), random(3, 100))
	target := t.TempDir()
	transfer(t, scan(t, o), ReceiveOptions{Chunks: chunks, Target: target})
	if got, err := os.ReadFile(filepath.Join(target, "b")); err != nil || !bytes.Equal(got, random(3, 100)) {
		t.Errorf("the new content did not arrive: %v", err)
	}
}

// TestNewFilesComeUnasked hears what a receiver asks for: nothing of files that were never sent, and all that it lacks of those that were.
func TestNewFilesComeUnasked(t *testing.T) {
	root := t.TempDir()
	o := Options{Root: root, Memory: filepath.Join(t.TempDir(), "memory")}
	write(t, filepath.Join(root, "a"), random(1, 1000))
	write(t, filepath.Join(root, "b"), random(2, 2000))
	settle(t, root, filepath.Dir(o.Memory))
	send := func(chunks string) (asked []string, report Report) {
		t.Helper()
		target := t.TempDir()
		here, there := net.Pipe()
		heard := &recorded{Conn: there}
		report, sent, received := ends(t.Context(), scan(t, o), here, heard, ReceiveOptions{Chunks: chunks, Target: target})
		must(t, sent)
		must(t, received)
		same(t, root, target)
		for w := newWire(&heard.said); ; {
			kind, payload, err := w.receive()
			if err != nil {
				return asked, report
			}
			asked = append(asked, fmt.Sprintf("%c%x", kind, payload))
		}
	}
	chunks := t.TempDir()
	for _, tt := range []struct {
		what, chunks string
		change       func()
		asked        string
		sent         int64
	}{
		{"all new", chunks, func() {}, "[w00 d]", 3000},
		{"nothing new", chunks, func() {}, "[w00 d]", 0},
		{"one changed", chunks, func() { write(t, filepath.Join(root, "b"), random(3, 2000)) }, "[w00 d]", 2000},
		{"another host", t.TempDir(), func() { settle(t, root, filepath.Dir(o.Memory)) }, "", 3000},
		{"more than goes unasked", chunks, func() { write(t, filepath.Join(root, "c"), random(4, maxUnasked+1)) }, "", maxUnasked + 1},
	} {
		tt.change()
		asked, report := send(tt.chunks)
		if report.Sent != tt.sent || tt.asked != "" && fmt.Sprint(asked) != tt.asked {
			t.Errorf("%s: %d bytes travelled, want %d; the receiver said %v", tt.what, report.Sent, tt.sent, asked)
		}
	}
}

// settle waits until the clock of a file system tells the files of a tree from those that change from now on.
func settle(t *testing.T, root, clock string) {
	t.Helper()
	tree := scan(t, Options{Root: root})
	for settled := false; !settled; {
		now, err := repository.FileClock(clock)
		must(t, err)
		settled = true
		for _, s := range tree.sights {
			settled = settled && s.Settled(now)
		}
	}
}

func TestDamagedMemoryIsEmpty(t *testing.T) {
	root, dir := t.TempDir(), t.TempDir()
	write(t, filepath.Join(root, "a"), random(1, 1000))
	o := Options{Root: root, Memory: filepath.Join(dir, "memory")}
	settle(t, root, dir)
	transfer(t, scan(t, o), ReceiveOptions{Chunks: t.TempDir(), Target: t.TempDir()})
	if m := loadMemory(o.Memory); len(m) != 1 {
		t.Fatalf("%d files are remembered", len(m))
	}
	must(t, flip(o.Memory, 30))
	if m := loadMemory(o.Memory); len(m) != 0 {
		t.Errorf("%d files are remembered of a damaged memory", len(m))
	}
}

// A cutter is a connection that ends behind some bytes.
type cutter struct {
	net.Conn
	mu   sync.Mutex // guards left
	left int
}

// Write implements io.Writer.
func (c *cutter) Write(p []byte) (int, error) {
	c.mu.Lock()
	n := min(len(p), c.left)
	c.left -= n
	c.mu.Unlock()
	n, err := c.Conn.Write(p[:n])
	if err == nil && n < len(p) {
		c.Conn.Close()
		err = io.ErrClosedPipe
	}
	return n, err
}

// TestCutLineLosesNothing cuts the line behind every so many bytes, in both directions, and resumes.
func TestCutLineLosesNothing(t *testing.T) {
	root := hostile(t)
	total := int(transfer(t, scan(t, Options{Root: root}), ReceiveOptions{Chunks: t.TempDir(), Target: t.TempDir()}).Wire)
	chunks, dir := t.TempDir(), t.TempDir()
	target := filepath.Join(dir, "code")
	o := ReceiveOptions{Chunks: chunks, Target: target}
	for i := range 40 {
		tree := scan(t, Options{Root: root})
		here, there := net.Pipe()
		if i%4 == 3 {
			there = &cutter{Conn: there, left: i / 4}
		} else {
			here = &cutter{Conn: here, left: total / 40 * i}
		}
		_, sent, received := ends(t.Context(), tree, here, there, o)
		if sent == nil && received != nil || sent != nil && replicate.KindOf(sent) != replicate.Unavailable {
			t.Fatalf("cut %d: sent %v, received %v", i, sent, received)
		}
		if received == nil {
			break
		}
		if _, err := os.Stat(target); err == nil {
			t.Fatal("half a tree is in place")
		}
	}
	if _, err := os.Stat(target); err != nil {
		report := transfer(t, scan(t, Options{Root: root}), o)
		if report.Sent > report.Bytes/2 {
			t.Errorf("%d of %d bytes travelled again", report.Sent, report.Bytes)
		}
	}
	t.Cleanup(func() { os.Chmod(target+"/readonly", 0o755) })
	same(t, root, target)
}

func TestReceiversShareChunks(t *testing.T) {
	root, dir := hostile(t), t.TempDir()
	errs := make(chan error)
	for i := range 3 {
		go func() {
			tree, err := Scan(t.Context(), Options{Root: root})
			if err == nil {
				here, there := net.Pipe()
				var received error
				_, err, received = ends(t.Context(), tree, here, there, ReceiveOptions{Chunks: dir + "/chunks", Target: fmt.Sprintf("%s/%d", dir, i)})
				err = errors.Join(err, received)
			}
			errs <- err
		}()
	}
	for range 3 {
		must(t, <-errs)
	}
	for i := range 3 {
		b := fmt.Sprintf("%s/%d", dir, i)
		t.Cleanup(func() { os.Chmod(b+"/readonly", 0o755) })
		same(t, root, b)
	}
}

func TestTargetWithFilesIsLeftAlone(t *testing.T) {
	root, target := t.TempDir(), t.TempDir()
	write(t, filepath.Join(root, "f"), []byte("new"))
	write(t, filepath.Join(target, "f"), []byte("old"))
	here, there := net.Pipe()
	_, sent, received := ends(t.Context(), scan(t, Options{Root: root}), here, there, ReceiveOptions{Chunks: t.TempDir(), Target: target})
	if replicate.KindOf(received) != replicate.Conflict {
		t.Errorf("received: %v", received)
	}
	if sent == nil {
		t.Error("the sender does not know")
	}
	if got, _ := os.ReadFile(filepath.Join(target, "f")); string(got) != "old" {
		t.Errorf("%q", got)
	}
}

// A meddler calls change when the other end has answered for the n-th time.
type meddler struct {
	net.Conn
	change func(n int)
	n      int
}

// Read implements io.Reader.
func (m *meddler) Read(p []byte) (int, error) {
	n, err := m.Conn.Read(p)
	m.n++
	m.change(m.n)
	return n, err
}

// TestFilesThatChangeWhileTheyAreSent changes a file between its announcement and its turn.
func TestFilesThatChangeWhileTheyAreSent(t *testing.T) {
	tests := []struct {
		name   string
		change func(path string, n int)
		want   []byte // nil: it is not there
		kind   replicate.Kind
	}{
		{"once", func(path string, n int) {
			if n == 1 {
				os.WriteFile(path, random(9, 2<<20), 0o644)
			}
		}, random(9, 2<<20), ""},
		{"shrinks", func(path string, n int) { os.Truncate(path, 1000) }, random(1, 3<<20)[:1000], ""},
		{"vanishes", func(path string, n int) { os.Remove(path) }, nil, ""},
		{"always", func(path string, n int) { os.WriteFile(path, random(uint64(n+10), 2<<20), 0o644) }, nil, replicate.Conflict},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root, target := t.TempDir(), t.TempDir()
			path := filepath.Join(root, "m")
			write(t, path, random(1, 3<<20))
			write(t, filepath.Join(root, "z"), []byte("z"))
			here, there := net.Pipe()
			meddled := &meddler{Conn: here, change: func(n int) { tt.change(path, n) }}
			report, sent, _ := ends(t.Context(), scan(t, Options{Root: root}), meddled, there, ReceiveOptions{Chunks: t.TempDir(), Target: target})
			if tt.kind != "" {
				if replicate.KindOf(sent) != tt.kind || !strings.Contains(fmt.Sprint(sent), "m keeps changing") {
					t.Fatalf("got %v", sent)
				}
				return
			}
			must(t, sent)
			got, err := os.ReadFile(filepath.Join(target, "m"))
			if (tt.want == nil) != errors.Is(err, os.ErrNotExist) || !bytes.Equal(got, tt.want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if tt.want == nil && (len(report.LeftOut) != 1 || report.LeftOut[0].Why != "not there") {
				t.Errorf("left out %v", report.LeftOut)
			}
			if got, err := os.ReadFile(filepath.Join(target, "z")); err != nil || string(got) != "z" {
				t.Errorf("z: %q, %v", got, err)
			}
		})
	}
}

func TestCancelEndsBothEnds(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "f"), random(1, 100))
	here, there := net.Pipe()
	defer there.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		io.ReadFull(there, make([]byte, 5))
		cancel() // while nobody reads any more
	}()
	if _, err := scan(t, Options{Root: root}).Send(ctx, here, SendOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("send: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	cancel()
	if err := Receive(ctx, there, ReceiveOptions{Chunks: t.TempDir(), Target: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("receive: %v", err)
	}
}

// A script is a connection on which the other end has said everything already.
type script struct {
	io.Reader
	io.Writer
}

// TestHostileManifestsAreRefused sends trees that would lead out of their target, or never end.
func TestHostileManifestsAreRefused(t *testing.T) {
	dir := func(path string) Entry { return Entry{Path: path, Kind: repository.Dir, Mode: 0o755} }
	file := func(path string) Entry { return Entry{Path: path, Mode: 0o644} }
	link := func(path, to string) Entry { return Entry{Path: path, Kind: repository.Link, Target: to} }
	piece := func(n int64) Piece { return Piece{Size: n, Hash: replicate.Hash{1}} }
	tests := map[string][]Entry{
		"up":                 {file("../x")},
		"absolute":           {file("/etc/x")},
		"dot":                {file(".")},
		"dots in a dir":      {dir("a"), file("a/..")},
		"through a link":     {link("a", "/etc"), file("a/x")},
		"below a file":       {file("a"), file("a/x")},
		"no directory":       {file("a/x")},
		"twice":              {file("a"), file("a")},
		"link and dir":       {link("a", "/etc"), dir("a")},
		"out of order":       {file("b"), file("a")},
		"empty name":         {dir("a"), file("a//x")},
		"NUL":                {file("a\x00b")},
		"link to nothing":    {link("a", "")},
		"pieces too many":    {{Path: "a", Size: 1, Pieces: []Piece{piece(2)}}},
		"pieces too few":     {{Path: "a", Size: 9, Pieces: []Piece{piece(2)}}},
		"huge piece":         {{Path: "a", Size: 1 << 40, Pieces: []Piece{piece(1 << 40)}}},
		"one hash two sizes": {{Path: "a", Size: 5, Pieces: []Piece{piece(2), piece(3)}}},
	}
	for name, entries := range tests {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			w := newWire(&b)
			m := &Manifest{Entries: entries}
			must(t, w.manifest(m, bitmap(len(distinct(m)), func(int) bool { return false })))
			must(t, w.flush())
			top := t.TempDir()
			err := Receive(t.Context(), script{&b, io.Discard}, ReceiveOptions{Chunks: top + "/chunks", Target: top + "/target"})
			if replicate.KindOf(err) != replicate.Corrupt {
				t.Errorf("got %v", err)
			}
			if names, _ := os.ReadDir(top); len(names) > 1 {
				t.Errorf("left %v", names)
			}
		})
	}
}

func TestMessagesAreBounded(t *testing.T) {
	b := []byte{msgManifest}
	b = binary.LittleEndian.AppendUint32(b, 1<<31)
	b = binary.LittleEndian.AppendUint32(b, 1<<31)
	w := newWire(script{bytes.NewReader(b), io.Discard})
	if _, err := w.receiveStored(); err != errProtocol {
		t.Errorf("got %v", err)
	}
}
