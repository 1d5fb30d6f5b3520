package main

import (
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate/storage/recorder"
)

// A world is what a command knows of the process around it. It is the only place that reads the environment.
type world struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	getenv         func(string) string
	environ        func() []string // name=value
	dir            string          // working directory
	now            func() time.Time

	inTerminal, outTerminal, errTerminal bool
	width                                int // of the terminal behind stdout, 0 if there is none

	warned bool // the command did what it could, and must exit 1 all the same
}

func newWorld() *world {
	dir, _ := os.Getwd() // "" if it was deleted: whoever needs it says so
	w := &world{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		getenv: os.Getenv, environ: os.Environ, dir: dir, now: time.Now,
	}
	w.inTerminal = isTerminal(os.Stdin)
	w.errTerminal = isTerminal(os.Stderr)
	if w.outTerminal = isTerminal(os.Stdout); w.outTerminal {
		w.width = 80
		if size, err := unix.IoctlGetWinsize(int(os.Stdout.Fd()), unix.TIOCGWINSZ); err == nil && size.Col > 0 {
			w.width = int(size.Col)
		}
	}
	return w
}

// user is who did something, for records.
func (w *world) user() string { return recorder.User(w.getenv) }

// exitWait is how long the end of an experiment waits for what is on its way: REPLICATE_EXIT_WAIT, in seconds.
func (w *world) exitWait() time.Duration {
	const usual = 5 * time.Second
	seconds, err := strconv.ParseFloat(w.getenv("REPLICATE_EXIT_WAIT"), 64)
	if err != nil || seconds < 0 || seconds > maxExitWait.Seconds() {
		return usual
	}
	return time.Duration(seconds * float64(time.Second))
}

// maxExitWait keeps a wait a number of nanoseconds.
const maxExitWait = 100 * 24 * time.Hour

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	return err == nil
}
