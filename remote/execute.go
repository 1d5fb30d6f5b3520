package remote

import (
	"context"
	"io"
	"strings"
	"sync"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/remote/docker"
)

// A dialogue is a program in a container, as what reads its stdout and writes its stdin.
type dialogue struct {
	out    *io.PipeReader
	in     *io.PipeWriter
	cancel context.CancelFunc
	done   chan struct{}
	err    error // why it ended, when done is closed
	once   sync.Once
}

// execute starts a program in a running container. Reads end with an error if it does not end well.
func (h *Host) execute(ctx context.Context, container string, argv []string) *dialogue {
	ctx, cancel := context.WithCancel(ctx)
	stdin, in := io.Pipe()
	out, stdout := io.Pipe()
	p := &dialogue{out: out, in: in, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		var words strings.Builder
		code, err := h.engine.Exec(ctx, container, docker.Exec{Argv: argv, Stdin: stdin, Stdout: stdout, Stderr: &limited{to: &words, left: maxWords}})
		if err == nil && code != 0 {
			err = replicate.Errorf(replicate.Internal, "%s ended with exit code %d: %s", strings.Join(argv[1:], " "), code, lastLine(words.String()))
		}
		p.err = err
		stdin.CloseWithError(io.ErrClosedPipe)
		stdout.CloseWithError(err)
	}()
	return p
}

func (p *dialogue) Read(b []byte) (int, error)  { return p.out.Read(b) }
func (p *dialogue) Write(b []byte) (int, error) { return p.in.Write(b) }

// Close lets go of the program, whose stdin ends with that.
func (p *dialogue) Close() error {
	p.once.Do(func() {
		p.in.Close()
		p.out.CloseWithError(io.ErrClosedPipe)
		p.cancel()
		<-p.done
	})
	return nil
}

// maxWords bounds what is kept of what a program says on stderr.
const maxWords = 64 << 10

type limited struct {
	to   io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	_, err := l.to.Write(p[:n])
	return len(p), err
}
