package ssh

import (
	"bytes"
	"sync"
)

// lines is a Writer that passes on whole lines until it is told to be quiet, and keeps the end of all.
type lines struct {
	tail tail

	mu   sync.Mutex // guards what follows
	say  func(string)
	part []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.tail.Write(p)
	for _, line := range l.whole(p) {
		if text := printable(string(line)); text != "" {
			l.say(text)
		}
	}
	return len(p), nil
}

// whole returns the lines that are complete with p.
func (l *lines) whole(p []byte) (list [][]byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.say == nil {
		return nil
	}
	l.part = append(l.part, p...)
	for {
		line, rest, found := bytes.Cut(l.part, []byte("\n"))
		if !found {
			return list
		}
		list = append(list, line)
		l.part = rest
	}
}

// quiet ends what is passed on, and returns the end of what was said.
func (l *lines) quiet() string {
	l.mu.Lock()
	l.say = nil
	l.mu.Unlock()
	return l.tail.String()
}
