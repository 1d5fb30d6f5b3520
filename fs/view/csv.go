package view

import (
	"bufio"
	"strconv"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// csvTime is RFC 3339 in UTC with milliseconds.
const csvTime = "2006-01-02T15:04:05.000Z"

// A table writes CSV: commas, LF, quotes where RFC 4180 wants them. The first error stays in the bufio.Writer.
type table struct {
	w     *bufio.Writer
	began bool // a cell of this row was written
}

func (t *table) cell(text string) {
	if t.began {
		t.w.WriteByte(',')
	}
	t.began = true
	if !strings.ContainsAny(text, ",\"\r\n") {
		t.w.WriteString(text)
		return
	}
	t.w.WriteByte('"')
	t.w.WriteString(strings.ReplaceAll(text, `"`, `""`))
	t.w.WriteByte('"')
}

func (t *table) end() {
	t.w.WriteByte('\n')
	t.began = false
}

func (t *table) row(cells ...string) {
	for _, c := range cells {
		t.cell(c)
	}
	t.end()
}

func (t *table) int(n int64) { t.cell(strconv.FormatInt(n, 10)) }

func (t *table) time(at time.Time) {
	if at.IsZero() {
		t.cell("")
		return
	}
	t.cell(at.UTC().Format(csvTime))
}

func (t *table) step(s replicate.Step) {
	if s == replicate.NoStep {
		t.cell("")
		return
	}
	t.int(int64(s))
}

// value writes what values has under a name, nothing if it has nothing. An empty text is quoted, as it is not nothing.
func (t *table) value(values replicate.Values, name string) {
	v, ok := values.Get(name)
	if !ok {
		t.cell("")
		return
	}
	t.present(v)
}

func (t *table) present(v replicate.Value) {
	if v.Kind() == replicate.TextKind && v.Text() == "" {
		if t.began {
			t.w.WriteByte(',')
		}
		t.began = true
		t.w.WriteString(`""`)
		return
	}
	t.cell(v.String())
}
