package recorder

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestTranscript replays the transcript of docs/protocol.md.
func TestTranscript(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocol.md")
	if err != nil {
		t.Fatal(err)
	}
	_, transcript, _ := strings.Cut(string(doc), "```transcript\n")
	transcript, _, ok := strings.Cut(transcript, "```")
	if !ok {
		t.Fatal("docs/protocol.md has no transcript")
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "replicate.yaml"), "")
	write(t, filepath.Join(dir, "train.awk"), "{print 1}")
	transcript = strings.ReplaceAll(transcript, "PROJECT", dir)

	in, to := pipe(t)
	from, out := pipe(t)
	served := make(chan error, 1)
	go func() { served <- Serve(context.Background(), in, out, testOptions()) }()
	answers := bufio.NewReader(from)
	if err := from.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(transcript) {
		if request, ok := strings.CutPrefix(line, "> "); ok {
			if _, err := to.WriteString(request); err != nil {
				t.Fatal(err)
			}
			continue
		}
		answer, err := answers.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var want, got any
		if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "< ")), &want); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if err := json.Unmarshal([]byte(answer), &got); err != nil {
			t.Fatalf("%s: %v", answer, err)
		}
		if !matches(want, got) {
			t.Errorf("got  %swant %s", answer, strings.TrimPrefix(line, "< "))
		}
	}
	to.Close()
	if err := <-served; err != nil {
		t.Fatal(err)
	}
}

// matches compares two JSON values; the text … is equal to everything.
func matches(want, got any) bool {
	if want == "…" {
		return true
	}
	w, ok := want.(map[string]any)
	g, also := got.(map[string]any)
	if !ok || !also {
		return reflect.DeepEqual(want, got)
	}
	for name, value := range w {
		if other, ok := g[name]; !ok || !matches(value, other) {
			return false
		}
	}
	return len(w) == len(g)
}
