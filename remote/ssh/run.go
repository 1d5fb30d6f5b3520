package ssh

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"

	"github.com/replicate/replicate"
)

// shell is what every login shell is asked for. The rest comes by stdin, so that no shell but this one sees it.
const shell = "/bin/sh -s"

// apart are what login shells do not agree on within single quotes: quotes, backslashes, the history of csh, and lines.
const apart = "'\\!\r\n\x00"

// maxLine is how long a script may be that goes in the command: some login shells take lines of so many bytes only.
const maxLine = 1000

// What is being done when something goes wrong.
const (
	startShell = "start a shell on"
	runScript  = "run a script on"
)

// maxNoise is how much a login shell may print of its own before what was asked for.
const maxNoise = 1 << 20

// An ExitError is how a script or command ended that did not succeed.
type ExitError struct {
	Status int    // 128+n for signal n
	Stderr string // its end
}

func (e *ExitError) Error() string {
	if e.Stderr != "" {
		return e.Stderr
	}
	return fmt.Sprintf("exit status %d", e.Status)
}

// Run runs a script by /bin/sh on the host and returns its stdout, whatever the login shell of the user is and whatever that prints.
// The script's stdin is empty. If it does not end with status 0 the error has an *ExitError, and what was printed is returned too.
//
// A short script of one line, without single quotes, backslashes and exclamation marks, comes a round trip earlier, and everybody on the host may
// see it in the list of processes.
func (c *Conn) Run(ctx context.Context, script string) ([]byte, error) {
	first, last := marker(), marker()
	command, lines := shell, fmt.Sprintf("echo %s\n( :\n%s\n) </dev/null\necho %s $?\nexit\n", first, script, last)
	if len(script) < maxLine && !strings.ContainsAny(script, apart) {
		command, lines = fmt.Sprintf(`/bin/sh -c 'echo %s; ( eval "$1" ) </dev/null; echo %s $?' /bin/sh '%s'`, first, last, script), ""
	}
	p, err := c.begin(ctx, command, first, lines)
	if err != nil {
		return nil, err
	}
	defer p.Close()
	defer context.AfterFunc(ctx, func() { p.Close() })()
	p.CloseWrite()
	out, err := io.ReadAll(p.out)
	if err != nil {
		return nil, c.explain(ctx, runScript, err)
	}
	status, stderr, err := p.wait()
	if err != nil {
		return nil, c.explain(ctx, runScript, err)
	}
	at := bytes.LastIndex(out, []byte(last+" "))
	if at >= 0 { // else the shell itself did not get to the end, and its status tells
		status, err = strconv.Atoi(strings.TrimSpace(string(out[at+len(last)+1:])))
		out = out[:at]
	}
	switch {
	case err != nil:
		return nil, c.explain(ctx, runScript, err)
	case status != 0:
		return out, &replicate.Error{Op: runScript, Path: c.host, Kind: replicate.Internal, Err: &ExitError{status, stderr}}
	case at < 0:
		return nil, c.explain(ctx, runScript, errors.New("its shell ended before it did"))
	}
	return out, nil
}

// Stdio runs a command on the host, found as /bin/sh finds it, and returns its stdin and stdout as a connection with CloseWrite.
// The context is for starting it alone; closing the connection ends it. A command that is not there is a replicate.NotFound.
// Once it ended badly, reads give an *ExitError in place of io.EOF.
func (c *Conn) Stdio(ctx context.Context, argv ...string) (net.Conn, error) {
	if len(argv) == 0 {
		return nil, replicate.Errorf(replicate.Usage, "there is no command")
	}
	first := marker()
	p, err := c.begin(ctx, shell, first, fmt.Sprintf("command -v %s >/dev/null || { echo %s: not found >&2; exit 127; }\necho %s\nexec %s\n",
		quote(argv[0]), quote(argv[0]), first, quote(argv...)))
	if err != nil {
		return nil, err
	}
	return p, nil
}

// A command is a process whose first words were read.
type command struct {
	process
	out *bufio.Reader
}

// begin starts a shell, sends it the first lines of a script and waits for its first marker. Nothing may follow before: a shell reads ahead.
func (c *Conn) begin(ctx context.Context, shell, marker, script string) (*command, error) {
	p, err := c.transport.exec(ctx, shell)
	if err != nil {
		return nil, c.noSession(ctx, err)
	}
	stop := context.AfterFunc(ctx, func() { p.Close() })
	defer stop()
	if _, err := io.WriteString(p, script); err != nil && ctx.Err() != nil {
		p.Close()
		return nil, c.explain(ctx, startShell, err)
	}
	cmd := &command{process: p, out: bufio.NewReader(p)}
	noise, err := skip(cmd.out, marker)
	if err == nil && stop() {
		return cmd, nil
	}
	defer p.Close()
	if errors.Is(err, io.EOF) {
		return nil, c.noShell(ctx, p, noise)
	}
	return nil, c.explain(ctx, startShell, err)
}

// skip reads up to the line that is the marker, and returns what was before.
func skip(r *bufio.Reader, marker string) (noise []byte, err error) {
	for len(noise) < maxNoise {
		line, err := r.ReadSlice('\n')
		if bytes.HasSuffix(bytes.TrimRight(line, "\r\n"), []byte(marker)) {
			return noise, nil
		}
		noise = append(noise, line...)
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return noise, err
		}
	}
	return noise, fmt.Errorf("the login shell prints without end")
}

// noShell explains a session that ended without a word of ours.
func (c *Conn) noShell(ctx context.Context, p process, noise []byte) error {
	status, stderr, err := p.wait()
	if errors.Is(err, ErrRefused) {
		return c.noSession(ctx, err)
	}
	if err != nil && c.Err() != nil {
		return c.explain(ctx, startShell, err)
	}
	e := &replicate.Error{Op: startShell, Path: c.host, Kind: replicate.Permission}
	if status == 127 && stderr != "" {
		e.Kind, e.Err = replicate.NotFound, &ExitError{status, stderr}
		return e
	}
	text := orElse(stderr, printable(string(noise)))
	e.Err = fmt.Errorf("the host runs something else in its place, which says %q", firstLine(text))
	e.Hint = "the account may have no shell, or one command that is forced on it (ForceCommand, command= in authorized_keys)"
	return e
}

// noSession explains a session that did not begin.
func (c *Conn) noSession(ctx context.Context, err error) error {
	e := c.explain(ctx, startShell, err)
	if errors.Is(e, ErrRefused) {
		e.Hint = "the host may allow too few sessions on a connection (MaxSessions in its sshd_config)"
	}
	return e
}

func (c *command) Read(p []byte) (int, error) {
	n, err := c.out.Read(p)
	if err == io.EOF {
		if status, stderr, waitErr := c.wait(); waitErr == nil && status != 0 {
			err = &ExitError{status, stderr}
		}
	}
	return n, err
}

// marker is a word that nobody else prints.
func marker() string { return "replicate-" + rand.Text() }

// quote makes one line of words that /bin/sh takes apart again.
func quote(words ...string) string {
	quoted := make([]string, len(words))
	for i, word := range words {
		quoted[i] = "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	return strings.Join(quoted, " ")
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line
}

// exitStatus is how a command ended, as a shell tells it. An error is that of the connection.
func exitStatus(err error) (int, error) {
	if exit, ok := errors.AsType[*ssh.ExitError](err); ok {
		if n, ok := signals[exit.Signal()]; ok {
			return 128 + n, nil
		}
		return exit.ExitStatus(), nil
	}
	return 0, err
}

// signals have the same numbers on every system that sshd runs on.
var signals = map[string]int{"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "ABRT": 6, "FPE": 8, "KILL": 9, "SEGV": 11, "PIPE": 13, "ALRM": 14, "TERM": 15}
