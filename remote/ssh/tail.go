package ssh

import (
	"strings"
	"sync"
	"unicode"
)

// tailSize is how much of what a program says to stderr is kept: enough for the reason it gives, which comes last.
const tailSize = 4 << 10

// A tail is a Writer that keeps the end.
type tail struct {
	mu  sync.Mutex // guards buf
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, p...)
	if over := len(t.buf) - tailSize; over > 0 {
		t.buf = append(t.buf[:0], t.buf[over:]...)
	}
	return len(p), nil
}

// String returns what was kept as text that is safe to show: a host must not move the cursor of a person.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return printable(string(t.buf))
}

// printable drops what is no text from what a host said, and blanks around it.
func printable(s string) string {
	return strings.TrimSpace(strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == unicode.ReplacementChar || !unicode.IsPrint(r):
			return -1
		}
		return r
	}, s))
}
