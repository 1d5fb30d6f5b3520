package ssh

import (
	"bytes"
	"fmt"
	"net"
	"os/exec"
	"sync"
)

// A proxy is a ProxyCommand. Its stdin and stdout are the connection.
type proxy struct {
	*stream
	stderr *lines
}

// startProxy starts a command. What it says to stderr goes to say, line by line, until quiet is called.
//
// SIGINT is ignored in it: it is in our group, so that it can ask at the terminal, and the first Ctrl-C there must not cut the connection.
func startProxy(command string, say func(line string)) (net.Conn, error) {
	cmd := exec.Command("/bin/sh", "-c", "trap '' INT; exec "+command)
	p := &proxy{stderr: &lines{say: say}}
	cmd.Stderr = p.stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("ProxyCommand: %w", err)
	}
	shut := func() {
		cmd.Process.Kill()
		in.Close()
	}
	reap := func() error {
		cmd.Wait()
		return nil
	}
	p.stream = newStream(command, out, in, shut, reap)
	return p, nil
}

// quiet ends what is passed on, and returns the end of what was said.
func (p *proxy) quiet() string { return p.stderr.quiet() }

// lines is a Writer that passes on whole lines until it is told to be quiet.
type lines struct {
	tail tail

	mu   sync.Mutex // guards what follows
	say  func(string)
	part []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.tail.Write(p)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.say == nil {
		return len(p), nil
	}
	l.part = append(l.part, p...)
	for {
		line, rest, found := bytes.Cut(l.part, []byte("\n"))
		if !found {
			return len(p), nil
		}
		l.part = rest
		if text := printable(string(line)); text != "" {
			l.say(text)
		}
	}
}

func (l *lines) quiet() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.say = nil
	return l.tail.String()
}
