package job

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/replicate/replicate"
)

// sample is a log of a few frames, and its payload.
func sample() (log []byte, payload string) {
	at := time.UnixMilli(1795428902125)
	for _, f := range []Frame{
		{Stream: Notes, Data: []byte(`{"attempt":1}`)},
		{Stream: Stdout, Data: []byte("epoch 1\r")},
		{Stream: Stderr, Data: []byte("@12 1 o 4\n\x00\xff")},
		{Stream: Stdout, Data: []byte("\n")},
	} {
		f.Offset, f.Time = int64(len(payload)), at
		log = f.Append(log)
		payload += string(f.Data)
	}
	return log, payload
}

func TestFramesAreReadFromAnyOffset(t *testing.T) {
	log, payload := sample()
	for from := range int64(len(payload)) + 1 {
		r := NewFrameReader(iotest.OneByteReader(bytes.NewReader(log)), from)
		var got []byte
		next := from
		for _, f := range readAll(t, r) {
			if f.Offset != next || f.Time.UnixMilli() != 1795428902125 {
				t.Errorf("from %d: a frame at %d of %s, expected at %d", from, f.Offset, f.Time, next)
			}
			got, next = append(got, f.Data...), f.End()
		}
		if string(got) != payload[from:] || r.Offset() != int64(len(payload)) {
			t.Errorf("from %d: %q", from, got)
		}
	}
}

func TestATornFrameIsNotRead(t *testing.T) {
	log, payload := sample()
	for cut := range len(log) {
		r := NewFrameReader(bytes.NewReader(log[:cut]), 0)
		var got []byte
		var err error
		for f := (Frame{}); err == nil; {
			if f, err = r.Next(); err == nil {
				got = append(got, f.Data...)
			}
		}
		whole := err == io.EOF
		if !whole && err != io.ErrUnexpectedEOF || !strings.HasPrefix(payload, string(got)) || r.Offset() != int64(len(got)) {
			t.Errorf("cut at %d: %v, %q", cut, err, got)
		}
	}
}

func TestWhatIsNoFrameIsAnError(t *testing.T) {
	for _, text := range []string{
		"panic: oops\n", "@1 2 o\n", "@-1 2 o 1\nx\n", "@1 2 oo 1\nx\n", "@1 2 o 99999999999\n", "@1 2 o 16777217\n", "@1 2 o 1\nxy\n", strings.Repeat("@", 200),
	} {
		if _, err := NewFrameReader(strings.NewReader(text), 0).Next(); replicate.KindOf(err) != replicate.Corrupt {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	log, _ := sample()
	f.Add(log, int64(3))
	f.Add([]byte("@0 0 o 16777216\n"), int64(0))
	f.Fuzz(func(t *testing.T, text []byte, from int64) {
		r := NewFrameReader(bytes.NewReader(text), max(from, 0))
		for {
			before := r.Offset()
			frame, err := r.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && replicate.KindOf(err) != replicate.Corrupt {
					t.Fatal(err)
				}
				return
			}
			if frame.Offset < before || r.Offset() != frame.End() {
				t.Fatalf("a frame at %d after %d", frame.Offset, before)
			}
			again, err := NewFrameReader(bytes.NewReader(frame.Append(nil)), 0).Next()
			if err != nil || !reflect.DeepEqual(again, frame) && len(frame.Data) > 0 {
				t.Fatalf("%+v is written and read as %+v, %v", frame, again, err)
			}
		}
	})
}

func TestLinesOfDeadClientsAreDropped(t *testing.T) {
	line, err := Line{Job: &Spec{Argv: []string{"a"}}, Secrets: &Secrets{Env: map[string]string{"K": "v"}}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(line) - 1 {
		var got []Line
		in := io.MultiReader(bytes.NewReader(line[:cut]), bytes.NewReader(line), strings.NewReader("\n{}\nnonsense\n{\"replicate\":1}\n{\"replic"))
		if err := ReadLines(iotest.HalfReader(in), func(l Line) { got = append(got, l) }); err != nil {
			t.Fatal(err)
		}
		if len(got) != 1 || got[0].Job == nil || got[0].Secrets.Env["K"] != "v" {
			t.Errorf("cut at %d: %+v", cut, got)
		}
	}
}

func TestALineThatNeverEndsCostsNoMemory(t *testing.T) {
	endless := io.LimitReader(zeros{}, maxLine+1<<20)
	line, _ := Line{Job: &Spec{Argv: []string{"a"}}}.Encode()
	lines := 0
	if err := ReadLines(io.MultiReader(endless, bytes.NewReader(line)), func(Line) { lines++ }); err != nil || lines != 1 {
		t.Errorf("%d lines, %v", lines, err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func FuzzLine(f *testing.F) {
	f.Add([]byte("\n{\"replicate\":1,\"job\":{\"argv\":[\"a\"],\"timeout\":\"12h\"},\"secrets\":{}}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		_ = ReadLines(bytes.NewReader(text), func(l Line) {
			again, err := l.Encode()
			if err != nil {
				t.Fatal(err)
			}
			var got []Line
			l.Replicate = Protocol
			_ = ReadLines(bytes.NewReader(again), func(l Line) { got = append(got, l) })
			if len(got) != 1 || mustJSON(t, got[0]) != mustJSON(t, l) {
				t.Fatalf("%+v is sent and read as %+v", l, got)
			}
		})
	})
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte(`{"phase":"exited","exit_code":3,"started":"2026-11-28T03:16:34Z","unsent":{"bytes":1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := ParseState(text)
		if err != nil {
			return
		}
		again, err := ParseState([]byte(mustJSON(t, s)))
		if err != nil || mustJSON(t, again) != mustJSON(t, s) {
			t.Fatalf("%+v is written and read as %+v, %v", s, again, err)
		}
		if !s.Gone().Ended() {
			t.Fatal("a job without a supervisor has not ended")
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add([]byte("{\"op\":\"signal\",\"signal\":\"stop\"}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := controller{answer: func(Request) Answer { return Answer{State: &State{}} }}
		if a := c.reply(bytes.NewReader(text)); a.State == nil && a.Error == nil {
			t.Fatal("no answer")
		}
		_, _ = ParseNote(text)
	})
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
