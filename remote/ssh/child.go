package ssh

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"time"
)

// A child is a program that runs here. Its stdin and stdout are a connection.
type child struct {
	*stream
	stderr *lines
	done   chan struct{} // closed after status was set
	status int
}

// ignoring runs the words behind it with SIGINT ignored: a child is in our group, so that it can ask at the terminal, and the first
// Ctrl-C there must not cut the connection.
const ignoring = `trap '' INT; exec "$@"`

// startChild starts a program. What it says to stderr goes to say, line by line, until stderr is told to be quiet.
func startChild(say func(line string), argv ...string) (*child, error) {
	cmd := exec.Command("/bin/sh", append([]string{"-c", ignoring, "sh"}, argv...)...)
	c := &child{stderr: &lines{say: say}, done: make(chan struct{})}
	cmd.Stderr = c.stderr
	cmd.WaitDelay = time.Second // what it started may hold stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", argv[0], err)
	}
	shut := func() {
		cmd.Process.Kill()
		in.Close()
		out.Close() // what it started may hold the other end
	}
	reap := func() {
		cmd.Wait()
		c.status = cmd.ProcessState.ExitCode()
		close(c.done)
	}
	c.stream = newStream(argv[0], out, in, shut, reap)
	return c, nil
}

// wait is that of a process, for a child that is ssh: 255 is its own failure.
func (c *child) wait() (int, string, error) {
	<-c.done
	text := c.stderr.tail.String()
	switch {
	case c.status == 255 && strings.Contains(text, "refused by peer"):
		return 0, "", fmt.Errorf("%w (too many sessions)", ErrRefused)
	case c.status < 0 || c.status == 255:
		return 0, "", errors.New(orElse(text, "the ssh program ended"))
	}
	return c.status, text, nil
}
