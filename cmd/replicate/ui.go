package main

// The rules of output:
//
//   - Answers go to stdout and are a contract: stable columns, --json, -q. Everything else goes to stderr.
//   - "replicate: error: <doing what> <to what>: <why>", then "replicate: hint: <what to do>" if there is something to do.
//     Warnings have the same shape. Lower case, no full stop, no stack traces.
//   - Colour, cut texts, progress and questions only on a terminal. NO_COLOR is honoured.
//   - A question not answered with y changes nothing and exits 1.

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"github.com/replicate/replicate"
)

// report prints an error or a warning, and its hint.
func (w *world) report(level string, err error) {
	fmt.Fprintf(w.stderr, "replicate: %s: %s\n", level, oneLine(err.Error()))
	if hint := replicate.HintOf(err); hint != "" {
		fmt.Fprintf(w.stderr, "replicate: hint: %s\n", hint)
	}
}

// warn prints a warning about something that is damaged; the command goes on, and exits 1 so that scripts notice.
func (w *world) warn(err error) {
	w.warned = true
	w.report("warning", err)
}

// say prints a line for people.
func (w *world) say(format string, args ...any) { fmt.Fprintf(w.stderr, format+"\n", args...) }

// confirm asks a question whose only yes is y.
func (w *world) confirm(question string) (bool, error) {
	fmt.Fprintf(w.stderr, "%s (y/N) ", question)
	answer, err := bufio.NewReader(w.stdin).ReadString('\n')
	if err != nil && err != io.EOF {
		return false, fmt.Errorf("read the answer: %w", err)
	}
	if !strings.HasSuffix(answer, "\n") || !w.inTerminal {
		fmt.Fprintln(w.stderr)
	}
	answer = strings.ToLower(strings.TrimSpace(answer))
	return answer == "y" || answer == "yes", nil
}

func oneLine(s string) string { return strings.ReplaceAll(s, "\n", " ") }

// plural returns "1 file", "2 files".
func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
