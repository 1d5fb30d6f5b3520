package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/remote/ssh"
)

// answer puts a question of a connection to the person at the terminal.
func (w *world) answer(ctx context.Context, q ssh.Question) (string, error) {
	fmt.Fprintf(w.stderr, "%s ", q.Text)
	if q.Hidden {
		restore, err := w.hideInput()
		if err != nil {
			return "", err
		}
		defer func() {
			restore()
			fmt.Fprintln(w.stderr)
		}()
	}
	type line struct {
		text string
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := bufio.NewReader(w.stdin).ReadString('\n')
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		if l.err == io.EOF && l.text != "" {
			l.err = nil
		}
		return strings.TrimRight(l.text, "\r\n"), l.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// hideInput has the terminal show nothing of what is typed, until restore is called.
func (w *world) hideInput() (restore func(), err error) {
	return w.changeTerminal(func(t *unix.Termios) { t.Lflag &^= unix.ECHO })
}

// byteInput has the terminal hand over each key at once, without showing it.
func (w *world) byteInput() (restore func(), err error) {
	return w.changeTerminal(func(t *unix.Termios) {
		t.Lflag &^= unix.ECHO | unix.ICANON
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	})
}

func (w *world) changeTerminal(change func(*unix.Termios)) (restore func(), err error) {
	f, ok := w.stdin.(*os.File)
	if !ok {
		return func() {}, nil
	}
	before, err := unix.IoctlGetTermios(int(f.Fd()), getTermios)
	if err != nil {
		return nil, err
	}
	after := *before
	change(&after)
	if err := unix.IoctlSetTermios(int(f.Fd()), setTermios, &after); err != nil {
		return nil, err
	}
	return sync.OnceFunc(func() { _ = unix.IoctlSetTermios(int(f.Fd()), setTermios, before) }), nil
}
