package fs

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Roles of the processes behind a mount.
const (
	supervisorRole = "supervisor"
	serverRole     = "server"
)

// order is what a server reads from its standard input, which stays open as long as the supervisor lives.
type order struct {
	Options
	Again    bool  // the connection is in use: the first request is not INIT
	Instance int64 // of the view that it was used with
}

// Descriptors of a server.
const (
	fuseFD  = 3
	wordsFD = 4
)

// A child is a running server.
type child struct {
	cmd   *exec.Cmd
	stdin *os.File
	words <-chan word // closed with the server's end of the pipe
	done  <-chan error
}

func startChild(exe string, o order, fuse, stderr *os.File) (*child, error) {
	in, stdin, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	defer in.Close()
	out, words, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	defer words.Close()
	cmd := process(exe, o.Self, serverRole)
	cmd.Stdin, cmd.Stderr = in, stderr
	cmd.Env = withDebug(cmd.Environ(), clearFreed)
	cmd.ExtraFiles = []*os.File{fuse, words}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is the supervisor's
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	if err := json.NewEncoder(stdin).Encode(o); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	return &child{cmd: cmd, stdin: stdin, words: listen(out), done: done}, nil
}

// process is the command line that runs a role. It works in /, so that it neither holds a directory nor sits in its own mount.
func process(exe string, self []string, role string) *exec.Cmd {
	cmd := exec.Command(exe, append(self[1:len(self):len(self)], role)...)
	cmd.Args[0] = self[0]
	cmd.Dir = "/"
	return cmd
}

// withDebug returns an environment with another setting of GODEBUG.
func withDebug(env []string, setting string) []string {
	for _, e := range env {
		if given, ok := strings.CutPrefix(e, "GODEBUG="); ok && given != "" {
			setting = given + "," + setting
		}
	}
	return append(env, "GODEBUG="+setting)
}

// listen hands on the words that arrive on a pipe, and closes it at its end.
func listen(from *os.File) <-chan word {
	words := make(chan word, 1)
	go func() {
		defer from.Close()
		defer close(words)
		for d := json.NewDecoder(from); ; {
			var w word
			if d.Decode(&w) != nil {
				return
			}
			words <- w
		}
	}()
	return words
}

func (c *child) signal(sig os.Signal) { _ = c.cmd.Process.Signal(sig) }

// lastWords returns the reason that a server gave before it ended, if that was not read yet. The words end with the server.
func (c *child) lastWords() (why error) {
	if c.words == nil {
		return nil
	}
	for w := range c.words {
		switch w.Kind {
		case wordError:
			why = w.err()
		case wordAfresh:
			why = errAfresh
		}
	}
	return why
}

// end closes what belongs to a child that has ended.
func (c *child) end() { _ = c.stdin.Close() }
