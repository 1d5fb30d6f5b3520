package docker

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/client"
)

// A Stream is an open connection to the standard streams of a container. What is written goes to its standard input.
type Stream struct {
	conn client.HijackedResponse
	stop func() bool
}

// Write writes to the container's standard input. It blocks while PID 1 does not read.
func (s *Stream) Write(p []byte) (int, error) { return s.conn.Conn.Write(p) }

// CloseWrite tells the engine that nothing more comes. The container's standard input stays open for others.
func (s *Stream) CloseWrite() error { return s.conn.CloseWrite() }

// Output copies what the container prints until it ends or the stream is closed. A write that blocks can stop the container.
func (s *Stream) Output(stdout, stderr io.Writer) error {
	return demultiplex(stdout, stderr, s.conn.Reader)
}

// Close ends the stream. The container does not notice.
func (s *Stream) Close() error {
	s.stop()
	s.conn.Close()
	return nil
}

// Attach opens the standard streams of a container that is created or runs, for what it prints from now on. Cancelling ctx closes the stream.
func (e *Engine) Attach(ctx context.Context, name string) (*Stream, error) {
	var stream *Stream
	err := e.call(ctx, "attach to container", name, func(ctx context.Context) error {
		answer, err := e.api.ContainerAttach(ctx, name, client.ContainerAttachOptions{Stream: true, Stdin: true, Stdout: true, Stderr: true})
		if err == nil {
			stream = newStream(ctx, answer.HijackedResponse)
		}
		return err
	})
	return stream, err
}

func newStream(ctx context.Context, conn client.HijackedResponse) *Stream {
	return &Stream{conn, context.AfterFunc(ctx, conn.Close)}
}

// An Exec is a program that runs beside PID 1.
type Exec struct {
	Argv   []string
	Env    []string  // NAME=value
	Dir    string    // "" for the container's
	User   string    // "" for the container's
	Stdin  io.Reader // nil for none. Read until its end or that of the program: a Read that blocks is not waited for
	Stdout io.Writer // nil to drop it
	Stderr io.Writer // nil to drop it
}

// Exec runs a program in a running container and returns its exit code when it has ended and all its output is written.
// 126 and 127 are programs that cannot be executed and are not found. The kind of the error is Conflict if the container does not run.
// Cancelling ctx closes the streams; what the program does then is its own affair.
func (e *Engine) Exec(ctx context.Context, name string, x Exec) (int, error) {
	var id string
	err := e.call(ctx, "execute in container", name, func(ctx context.Context) error {
		answer, err := e.api.ExecCreate(ctx, name, client.ExecCreateOptions{
			Cmd: x.Argv, Env: x.Env, WorkingDir: x.Dir, User: x.User, AttachStdin: x.Stdin != nil, AttachStdout: true, AttachStderr: true,
		})
		id = answer.ID
		return err
	})
	if err != nil {
		return 0, err
	}
	err = e.call(ctx, "execute in container", name, func(ctx context.Context) error {
		answer, err := e.api.ExecAttach(ctx, id, client.ExecAttachOptions{})
		if err != nil {
			return err
		}
		return x.serve(newStream(ctx, answer.HijackedResponse))
	})
	if err != nil {
		return 0, err
	}
	return e.execCode(ctx, name, id)
}

// serve copies the streams of a program until it ends.
func (x Exec) serve(s *Stream) error {
	defer s.Close()
	if x.Stdin != nil {
		go func() {
			io.Copy(s, x.Stdin)
			s.CloseWrite()
		}()
	}
	return s.Output(orDrop(x.Stdout), orDrop(x.Stderr))
}

func orDrop(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// execCode asks for the exit code of a program whose output has ended. The engine may need a moment to hear of its end.
func (e *Engine) execCode(ctx context.Context, name, id string) (code int, err error) {
	for wait := time.Millisecond; ; wait = min(2*wait, time.Second) {
		var running bool
		err := e.call(ctx, "execute in container", name, func(ctx context.Context) error {
			answer, err := e.api.ExecInspect(ctx, id, client.ExecInspectOptions{})
			code, running = answer.ExitCode, answer.Running
			return err
		})
		if err != nil || !running {
			return code, err
		}
		if err := pause(ctx, wait); err != nil {
			return 0, err
		}
	}
}

// Which stream a frame belongs to.
const (
	frameStdin  = 0 // printed on standard output
	frameStdout = 1
	frameStderr = 2
	frameError  = 3 // the engine's own words, and the last ones
)

// errorSize bounds what is kept of the engine's own words.
const errorSize = 4096

// outputAhead is how much of a stream is read at once, if it is there: some frames of a program that prints much.
const outputAhead = 128 << 10

// demultiplex splits an engine's stream: frames of one byte which stream, three bytes zero, four bytes big-endian length, and the
// bytes. It holds nothing back: what has been read of a frame is written before more is read.
func demultiplex(stdout, stderr io.Writer, stream io.Reader) error {
	from := bufio.NewReaderSize(stream, outputAhead)
	for {
		var head [8]byte
		if _, err := io.ReadFull(from, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		rest := int64(binary.BigEndian.Uint32(head[4:]))
		to := stdout
		switch head[0] {
		case frameStdin, frameStdout:
		case frameStderr:
			to = stderr
		case frameError:
			text, err := io.ReadAll(io.LimitReader(from, min(rest, errorSize)))
			if err != nil {
				return err
			}
			return said(text)
		default:
			return fmt.Errorf("a stream of Docker has a frame of kind %d", head[0])
		}
		for rest > 0 {
			if _, err := from.Peek(1); errors.Is(err, io.EOF) {
				return io.ErrUnexpectedEOF
			} else if err != nil {
				return err
			}
			piece, _ := from.Peek(int(min(rest, int64(from.Buffered()))))
			if _, err := to.Write(piece); err != nil {
				return &localError{err}
			}
			rest -= int64(len(piece))
			_, _ = from.Discard(len(piece)) // it is there
		}
	}
}

// Tail returns the last lines that a container printed, of both streams: the words of a PID 1 that died. It ends by itself, and follows nothing.
func (e *Engine) Tail(ctx context.Context, name string, lines int) (string, error) {
	var text strings.Builder
	err := e.call(ctx, "read output of container", name, func(ctx context.Context) error {
		answer, err := e.api.ContainerLogs(ctx, name, client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Tail: strconv.Itoa(lines)})
		if err != nil {
			return err
		}
		defer answer.Close()
		return demultiplex(&text, &text, answer)
	})
	return text.String(), err
}
