package recorder

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
)

// drained returns every line that fill moved into a queue.
func drained(r io.Reader) []string {
	q := newQueue()
	go q.fill(r)
	var lines []string
	for {
		block, ok := q.take()
		if !ok {
			return lines
		}
		for line := range bytes.Lines(block) {
			lines = append(lines, string(line))
		}
	}
}

func TestFillMovesWholeLines(t *testing.T) {
	long := strings.Repeat("x", MaxLine-1) + "\n"
	tooMuch := `{"id":7,"op":"` + strings.Repeat("y", MaxLine) + "\"}\n"
	mark := string(rune(tooLong)) + tooMuch[:keptOfLong] + "\n"
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"nothing", "", nil},
		{"lines", "a\nb\n\nc\n", []string{"a\n", "b\n", "\n", "c\n"}},
		{"half a line at the end is dropped", "a\nb", []string{"a\n"}},
		{"the longest line", long + "a\n", []string{long, "a\n"}},
		{"a longer one is marked and the rest goes on", "a\n" + tooMuch + "b\n", []string{"a\n", mark, "b\n"}},
		{"a longer one without end", tooMuch[:MaxLine+10], []string{mark}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for name, r := range map[string]io.Reader{
				"whole": strings.NewReader(tt.in), "with EOF": iotest.DataErrReader(strings.NewReader(tt.in)), "in pieces": &pieces{rest: tt.in},
			} {
				got := drained(r)
				if len(got) != len(tt.want) {
					t.Fatalf("%s: got %d lines, want %d", name, len(got), len(tt.want))
				}
				for i := range got {
					if got[i] != tt.want[i] {
						t.Errorf("%s: line %d: got %.80q, want %.80q", name, i, got[i], tt.want[i])
					}
				}
			}
		})
	}
}

// pieces reads a text in pieces of random size.
type pieces struct{ rest string }

func (p *pieces) Read(b []byte) (int, error) {
	if p.rest == "" {
		return 0, io.EOF
	}
	n := min(1+rand.IntN(1+rand.IntN(1<<18)), len(b), len(p.rest))
	copy(b, p.rest[:n])
	p.rest = p.rest[n:]
	return n, nil
}

func TestQueueStopsReadingWhenTooMuchWaits(t *testing.T) {
	q := newQueue()
	block := make([]byte, maxWaiting/2)
	put := make(chan int, 3)
	go func() {
		for i := range 3 {
			q.put(block)
			put <- i
		}
		q.close()
	}()
	<-put
	<-put
	select {
	case <-put:
		t.Fatal("a third block was taken though two fill the queue")
	default:
	}
	for range 3 {
		if _, ok := q.take(); !ok {
			t.Fatal("a block is missing")
		}
	}
	if _, ok := q.take(); ok {
		t.Fatal("a block too many")
	}
}

func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		`{"id":1,"op":"hello","protocol":1,"client":"python 0.1.0","pid":4711}`,
		`{"id":2,"op":"init","params":{"lr":0.1,"x":"NaN","n":[1,{"a":null}]},"name":null,"tags":["a"],"path":["w"],"metric":["loss","min"],"resume":true,"parent":null,"cwd":"/x","argv":["train.py"],"env":{"A":"b"},"python":{"version":"3.11.7","executable":"p","path":["/a"]}}`,
		`{"op":"log","step":3,"time":1795428902.125,"metrics":{"loss":0.3}}`,
		`{"id":3,"op":"commit","step":8,"metrics":{},"path":"weights","message":null,"modules":["torch"],"cells":null}`,
		`{"op":"set","tags":["baseline"],"note":"x","metric":["a","b"]}`,
		`{"id":4,"op":"end","status":"failed","exit_code":1,"traceback":"ValueError: x","modules":[],"wait":5}`,
		`{"id":5,`, `{"id":99999999999999999999999,`, "\x00{\"id\":7,", `[]`, `"`, `{"id":{"a":1},"op":1}`, `{"step":1e400}`, `{"step":1.5,"time":-1}`, `{"time":1e300}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if len(line) == 0 {
			return
		}
		r, err := parseRequest(line)
		if r == nil {
			t.Fatal("no request")
		}
		if out := encode(refusal{ID: r.ID, Error: refused{Kind: "usage", Message: "x"}}); bytes.Count(out, []byte("\n")) != 1 {
			t.Fatalf("the answer to %q is not one line: %q", line, out)
		}
		if err != nil {
			return
		}
		if step, err := r.step(); err == nil && r.Step == nil && step >= 0 {
			t.Fatalf("step %d from nothing", step)
		}
		_ = failureOf(r.Traceback)
		_ = maskArgs(r.Argv)
		if masked := maskValues(r.Params); len(masked) != len(r.Params) {
			t.Fatal("masking lost a parameter")
		}
	})
}
