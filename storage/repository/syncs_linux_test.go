package repository

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/storagetest"
)

// With these flags the test binary begins an experiment and does nothing else, for TestSyncsOfBegin.
var (
	beginIn = flag.String("begin-in", "", "folder of the storage, or of its outboxes, of the experiment that TestBeginOne begins")
	away    = flag.Bool("away", false, "the storage is out of reach")
)

func TestBeginOne(t *testing.T) {
	if *beginIn == "" {
		return // TestSyncsOfBegin runs it
	}
	store, err := disk.New(*beginIn)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, root: t.TempDir()}
	if *away {
		l.spool = OpenOutbox(store, *beginIn)
	} else if l.repo, err = Create(t.Context(), store); err != nil {
		t.Fatal(err)
	} else {
		l.spool = OpenSpool(l.repo, "")
	}
	if err := os.WriteFile(filepath.Join(l.root, "train.py"), []byte("print()"), 0o600); err != nil { // its pack has a new name each time
		t.Fatal(err)
	}
	l.begin(WriterOptions{})
}

// TestSyncsOfBegin watches the system calls of the beginning of an experiment: what is relied on is durable by then, and nothing is synced twice for one purpose.
func TestSyncsOfBegin(t *testing.T) {
	writer := func(w string) []string {
		return []string{"mkdir " + w + "/.I", "mkdir " + w + "/.I/build", "sync " + w + "/.I/meta", "name " + w + "/.I/meta", "sync " + w + "/.I", "name " + w + "/I",
			"sync " + w}
	}
	begun := func(w string) []string {
		return []string{"sync " + w + "/I/meta", "name " + w + "/I/meta", "sync " + w + "/I"}
	}
	local, far := "tmp/w", "I/w"
	left := slices.Concat(writer(far), []string{"name I/w/I/beat", "sync I/w/I/build/I", "name I/w/I/build/I"}, begun(far),
		[]string{"name I/pack/I", "sync I/pack", "sync I/ready/I", "name I/ready/I", "sync I/ready", "name I/head/I"})
	for _, c := range []struct {
		name         string
		away         bool
		first, later []string
	}{
		{"local", false, slices.Concat(
			[]string{"mkdir tmp", "sync tmp/put", "name replicate.json", "sync .", "mkdir tmp/w", "sync tmp"},
			writer(local), []string{"mkdir live", "name live/I", "sync tmp/w/I/build/I", "mkdir pack", "sync .", "mkdir pack/P", "sync pack", "name pack/P/I", "sync pack/P"},
			begun(local), []string{"sync tmp/put", "mkdir log", "sync .", "name log/I", "sync log"},
		), slices.Concat(
			writer(local), []string{"name live/I", "sync tmp/w/I/build/I", "name pack/P/I", "sync pack/P"},
			begun(local), []string{"sync tmp/put", "name log/I", "sync log"},
		)},
		{"away", true, slices.Concat(
			[]string{"mkdir I", "sync .", "mkdir I/pack", "mkdir I/kept", "mkdir I/ready", "mkdir I/head", "mkdir I/w", "sync I/storage", "name I/storage", "sync I"},
			left,
		), left},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			args := []string{"-begin-in", top, fmt.Sprint("-away=", c.away)}
			expect(t, "the first experiment", storagetest.Syncs(t, top, "TestBeginOne", args...), c.first)
			for i := range 256 { // the folder of the next pack is there
				if err := os.MkdirAll(filepath.Join(top, "pack", fmt.Sprintf("%02x", i)), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			expect(t, "a later one", storagetest.Syncs(t, top, "TestBeginOne", args...), c.later)
		})
	}
}

// expect compares calls whose paths have ids in them, I, and numbers.
func expect(t *testing.T, what string, got, want []string) {
	t.Helper()
	for i := range got {
		for _, name := range []struct{ like, is string }{
			{`\.?\d{20}-[0-9a-f]{32}|[0-9a-f]{32}-[0-9a-f]{16}|[0-9a-f]{62,64}|[0-9a-f]{32}`, "I"}, {`^(.* pack/)[0-9a-f]{2}`, "${1}P"}, {`(put-|\.json\.new)\d+`, "$1"},
			{`(put|meta|storage)(-|\.json\.new|\.json)$`, "$1"},
		} {
			got[i] = regexp.MustCompile(name.like).ReplaceAllString(got[i], name.is)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("%s: got\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
