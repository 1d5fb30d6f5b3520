package main

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// maxCell is how many columns a text may take on a terminal.
const maxCell = 20

// A table is columns of texts. Columns stand two spaces apart, lines have no trailing blanks.
type table struct {
	columns []column
}

type column struct {
	name     string
	cells    []string
	optional bool // may be left out if a terminal is too narrow
}

func (t *table) add(name string, cells []string) {
	t.columns = append(t.columns, column{name: name, cells: cells})
}

// write prints the table with its header in capitals. On a terminal of a width > 0, long texts are cut and optional
// columns left out from the right until it fits; their names are returned.
func (t *table) write(w io.Writer, width int) (left []string) {
	widths := make([]int, len(t.columns))
	onAllCores(len(widths), func(i int) { widths[i] = t.columns[i].prepare(width) })
	shown := make([]bool, len(widths))
	total := 0
	for i := range widths {
		shown[i] = true
		total += widths[i] + 2
	}
	for i := len(widths) - 1; i >= 0 && width > 0 && total-2 > width; i-- {
		if t.columns[i].optional {
			shown[i] = false
			total -= widths[i] + 2
			left = append([]string{strings.ToLower(t.columns[i].name)}, left...)
		}
	}
	line := make([]byte, 0, 256)
	write := func(cell func(*column) string) {
		line = line[:0]
		for i := range t.columns {
			if shown[i] {
				text := cell(&t.columns[i])
				line = append(line, text...)
				for range widths[i] - columns(text) + 2 {
					line = append(line, ' ')
				}
			}
		}
		line = append(bytes.TrimRight(line, " "), '\n')
		w.Write(line)
	}
	write(func(c *column) string { return c.name })
	for row := range t.columns[0].cells {
		write(func(c *column) string { return c.cells[row] })
	}
	return left
}

// prepare makes all texts fit for printing and returns the width of the column.
func (c *column) prepare(width int) int {
	c.name = printable(strings.ToUpper(c.name))
	most := columns(c.name)
	for j := range c.cells {
		c.cells[j] = printable(c.cells[j])
		if width > 0 {
			c.cells[j] = cut(c.cells[j], max(maxCell, columns(c.name)))
		}
		most = max(most, columns(c.cells[j]))
	}
	return most
}

// onAllCores calls f for every number below n.
func onAllCores(n int, f func(i int)) {
	var next atomic.Int64
	var running sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		running.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	running.Wait()
}

// onAllStretches calls f for stretches of the numbers below n.
func onAllStretches(n int, f func(from, to int)) {
	const stretch = 256
	onAllCores((n+stretch-1)/stretch, func(i int) { f(i*stretch, min(n, (i+1)*stretch)) })
}

// printable escapes what would move the cursor.
func printable(s string) string {
	if isPlain(s) || !strings.ContainsFunc(s, unicode.IsControl) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if unicode.IsControl(r) {
			quoted := fmt.Sprintf("%q", r)
			b.WriteString(quoted[1 : len(quoted)-1])
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// isPlain reports whether s is printable ASCII.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}

// cut shortens s to n columns, the last of them "…".
func cut(s string, n int) string {
	if columns(s) <= n {
		return s
	}
	used := 0
	for i, r := range s {
		if used += runeColumns(r); used > n-1 {
			return s[:i] + "…"
		}
	}
	return s
}

// columns is how many columns a terminal uses for s.
func columns(s string) int {
	if isASCII(s) {
		return len(s) // control characters are gone by then
	}
	n := 0
	for _, r := range s {
		n += runeColumns(r)
	}
	return n
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// wide holds the scripts and signs that take two columns (Unicode's East Asian Width W and F, in ranges that are wide as a
// whole or nearly).
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{{0x1100, 0x115F, 1}, {0x2E80, 0x303E, 1}, {0x3041, 0xA4CF, 1}, {0xAC00, 0xD7A3, 1},
		{0xF900, 0xFAFF, 1}, {0xFE30, 0xFE6F, 1}, {0xFF00, 0xFF60, 1}, {0xFFE0, 0xFFE6, 1}},
	R32: []unicode.Range32{{0x1F300, 0x1F64F, 1}, {0x1F680, 0x1F6FF, 1}, {0x1F900, 0x1F9FF, 1}, {0x20000, 0x3FFFD, 1}},
}

func runeColumns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}
