package job

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// smallLimits make a log of a few kB have everything that a large one has.
var smallLimits = logLimits{segment: 1000, first: 3000, last: 5000}

func openSmallLog(t *testing.T, dir string) *logWriter {
	t.Helper()
	w, err := openLogWriter(dir, smallLimits, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// write adds output to a log.
func write(w *logWriter, text string) {
	w.write(Stdout, append(make([]byte, headroom, headroom+len(text)+1), text...))
}

// readLog returns the output in a log from an offset on, and where it begins after each gap.
func readLog(t *testing.T, dir string, from int64) (text string, starts []int64) {
	t.Helper()
	in, err := OpenLog(os.DirFS(dir), from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	next := int64(-1)
	for _, f := range readAll(t, NewFrameReader(in, from)) {
		if f.Offset != next {
			starts = append(starts, f.Offset)
		}
		text, next = text+string(f.Data), f.End()
	}
	return text, starts
}

func TestALogKeepsItsBeginningAndItsEnd(t *testing.T) {
	dir := t.TempDir()
	w := openSmallLog(t, dir)
	var all strings.Builder
	for i := range 300 {
		line := strings.Repeat(string(rune('a'+i%26)), 100)
		all.WriteString(line)
		write(w, line)
	}
	waitFor(t, "sealed", func() bool { // the tidier is behind
		list, _ := listSegments(os.DirFS(dir))
		return len(list) == 9 && slices.IndexFunc(list, func(s segment) bool { return s.raw && s.sealed != "" }) < 0
	})
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	text, starts := readLog(t, dir, 0)
	if want := all.String(); text != want[:3000]+want[24000:] || !slices.Equal(starts, []int64{0, 24000}) {
		t.Errorf("it has %d bytes from %v", len(text), starts)
	}
	for _, from := range []int64{0, 1, 999, 1000, 1001, 2999, 3000, 20000, 24000, 24001, 29999, 30000, 40000} {
		want := ""
		if from < 30000 {
			want = all.String()[max(from, 24000):]
		}
		if from < 3000 {
			want = all.String()[from:3000] + want
		}
		if text, _ := readLog(t, dir, from); text != want {
			t.Errorf("from %d: %d bytes, want %d", from, len(text), len(want))
		}
	}
}

// TestALogOfAnOlderSupervisorIsRead has gzip where zstd is written now, and goes on with such a log.
func TestALogOfAnOlderSupervisorIsRead(t *testing.T) {
	dir := t.TempDir()
	w := openSmallLog(t, dir)
	var all strings.Builder
	add := func(lines int) {
		for range lines {
			line := strings.Repeat(string(rune('a'+all.Len()/100%26)), 100)
			all.WriteString(line)
			write(w, line)
		}
	}
	add(55)
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	w = openSmallLog(t, dir) // seals what the one before had no time for
	waitFor(t, "sealed", func() bool {
		sealed, _ := filepath.Glob(filepath.Join(dir, logName, "*"+sealedSuffix))
		return len(sealed) == 5
	})
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	for _, first := range []int64{0, 2000, 3000} {
		asOlder(t, filepath.Join(dir, logName, segmentName(first)))
	}
	for _, from := range []int64{0, 1500, 2000, 2500, 5499} {
		if text, starts := readLog(t, dir, from); text != all.String()[from:] || len(starts) != 1 {
			t.Errorf("from %d: %d bytes from %v", from, len(text), starts)
		}
	}
	w = openSmallLog(t, dir)
	add(45) // the fourth segment is too much now
	waitFor(t, "dropped", func() bool {
		left, _ := filepath.Glob(filepath.Join(dir, logName, segmentName(3000)+"*"))
		return len(left) == 0
	})
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	if text, _ := readLog(t, dir, 0); text != all.String()[:3000]+all.String()[4000:] {
		t.Errorf("it has %d bytes", len(text))
	}
}

// asOlder seals a segment as supervisors did before.
func asOlder(t *testing.T, name string) {
	t.Helper()
	file, err := os.Open(name + sealedSuffix)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	in, err := repository.Decompress(file)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	out := gzip.NewWriter(&packed)
	_, err = io.Copy(out, in)
	err = errors.Join(err, out.Close(), os.WriteFile(name+olderSuffix, packed.Bytes(), 0o600), os.Remove(name+sealedSuffix))
	if err != nil {
		t.Fatal(err)
	}
}

// waitFor waits until something is so.
func waitFor(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if so() {
			return
		}
	}
	t.Fatalf("never %s", what)
}

// TestALogGoesOnBehindItsLastWholeFrame cuts the last segment at every byte.
func TestALogGoesOnBehindItsLastWholeFrame(t *testing.T) {
	dir := t.TempDir()
	w := openSmallLog(t, dir)
	for _, text := range []string{strings.Repeat("x", 1100), "first", "second"} {
		write(w, text)
	}
	if err := w.close(); err != nil {
		t.Fatal(err)
	}
	last := filepath.Join(dir, logName, segmentName(1100))
	whole, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) + 1 {
		if err := os.WriteFile(last, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		w := openSmallLog(t, dir)
		write(w, "again")
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		text, starts := readLog(t, dir, 1100)
		if text != "again" && text != "firstagain" && text != "firstsecondagain" || len(starts) != 1 {
			t.Fatalf("cut at %d: %q from %v", cut, text, starts)
		}
	}
}

func TestALogKnowsTheEndOfTheJob(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		note  Note
		ended bool
	}{{Note{Attempt: 1}, false}, {Note{End: &State{ExitCode: 3}}, true}, {Note{Say: "more"}, true}, {Note{Attempt: 2}, false}} {
		w := openSmallLog(t, dir)
		w.note(tt.note)
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		w = openSmallLog(t, dir)
		if w.end != nil != tt.ended {
			t.Errorf("after %+v it says %+v", tt.note, w.end)
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAFollowerSeesEverythingOnce(t *testing.T) {
	dir := t.TempDir()
	lock, err := hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	w, err := openLogWriter(dir, logLimits{segment: 1000, first: 1 << 30, last: 0}, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	follow, err := FollowLog(t.Context(), dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close()
	const size = 200000
	text := make([]byte, size)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(text)
	go func() {
		r := rand.New(rng)
		for rest := text; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(400))
			write(w, string(rest[:n]))
			rest = rest[n:]
		}
		_ = w.close()
		_ = replace(filepath.Join(dir, statusName), State{Status: replicate.Finished})
	}()
	var got []byte
	for _, f := range readAll(t, NewFrameReader(follow, 0)) { // ends with the job
		if f.Offset != int64(len(got)) {
			t.Fatalf("a frame at %d, expected at %d", f.Offset, len(got))
		}
		got = append(got, f.Data...)
	}
	if !bytes.Equal(got, text) {
		t.Errorf("%d bytes are not those written", len(got))
	}
}

func TestWhatIsThereIsReadAtOnce(t *testing.T) {
	dir := t.TempDir()
	lock, err := hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	w := openSmallLog(t, dir)
	for range 20 { // over several segments, of which some may be sealed by now
		write(w, strings.Repeat("x", 100))
	}
	follow, err := FollowLog(t.Context(), dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer follow.Close()
	buf := make([]byte, readAhead)
	n, err := follow.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if frames := readAll(t, NewFrameReader(bytes.NewReader(buf[:n]), 0)); len(frames) != 20 {
		t.Errorf("%d frames came at once", len(frames))
	}
	write(w, "more")
	if n, err = follow.Read(buf); err != nil || !bytes.Contains(buf[:n], []byte("more")) {
		t.Errorf("%q, %v", buf[:n], err)
	}
	_ = w.close()
}

func TestAFollowerEndsWithItsContextAndWithTheSupervisor(t *testing.T) {
	dir := t.TempDir()
	lock, err := hold(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	follow, err := FollowLog(ctx, dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(follow); err != context.Canceled {
		t.Error(err)
	}
	if follow, err = FollowLog(t.Context(), dir, 0); err != nil {
		t.Fatal(err)
	}
	lock.Close()
	if _, err := io.ReadAll(follow); err != nil {
		t.Error(err)
	}
}

func TestAFollowerIsWaitedForUntilItHasTheEnd(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, followersName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := openSmallLog(t, dir)
	defer w.close()
	w.note(Note{Attempt: 1})
	w.note(Note{End: &State{Status: replicate.Finished}})
	w.note(Note{Say: "more"})
	follow, err := FollowLog(t.Context(), dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if waitForFollowers(dir, time.Millisecond) {
		t.Error("a follower is not seen")
	}
	frames := readAll(t, NewFrameReader(follow, 0))
	if len(frames) != 2 || !isEnd(frames[1].Data) {
		t.Errorf("it has %d frames", len(frames))
	}
	follow.Close()
	if !waitForFollowers(dir, time.Minute) {
		t.Error("a follower that is gone is seen")
	}
}

// TestAReaderWhoDoesNotReadIsLeft has a pipe that nobody reads.
func TestAReaderWhoDoesNotReadIsLeft(t *testing.T) {
	r, w := io.Pipe()
	defer r.Close()
	err := CopyWhileRead(w, strings.NewReader("text"), 20*time.Millisecond)
	if replicate.KindOf(err) != replicate.Unavailable {
		t.Error(err)
	}
	var b bytes.Buffer
	if err := CopyWhileRead(&b, strings.NewReader("text"), time.Minute); err != nil || b.String() != "text" {
		t.Errorf("%q, %v", b.String(), err)
	}
}

func BenchmarkLogWriter(b *testing.B) {
	w, err := openLogWriter(b.TempDir(), usualLimits, time.Now, nil)
	if err != nil {
		b.Fatal(err)
	}
	buf := append(make([]byte, headroom, headroom+readSize+1), bytes.Repeat([]byte("a line of a log that says something\n"), readSize/36)...)
	b.SetBytes(int64(len(buf) - headroom))
	for b.Loop() {
		w.write(Stdout, buf)
	}
	if err := w.close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkSeal compresses a full segment of what a training prints.
func BenchmarkSeal(b *testing.B) {
	t := &tidier{dir: b.TempDir(), quit: make(chan struct{})}
	name := filepath.Join(t.dir, segmentName(0))
	var text []byte
	chance := rand.New(rand.NewPCG(1, 2))
	for next := int64(0); int64(len(text)) < usualLimits.segment; {
		line := fmt.Sprintf("epoch %d step %d/5000 loss=%.6f acc=%.4f grad_norm=%.4f %.1f it/s\n", next>>18, next>>6%5000, 2*chance.ExpFloat64(), chance.Float64(), chance.Float64(), 80+9*chance.Float64())
		f := Frame{Offset: next, Time: time.UnixMilli(1764325000000 + next), Stream: Stdout, Data: []byte(line)}
		text, next = f.Append(text), f.End()
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if err := t.compress(name); err != nil {
			b.Fatal(err)
		}
	}
	info, err := os.Stat(name + sealedSuffix)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size())/1e6, "MB")
}

func TestWhoFetchesIsWaitedForUntilEverythingIsFetched(t *testing.T) {
	dir := t.TempDir()
	if waitForFetch(dir, time.Millisecond) {
		t.Error("nobody has fetched anything")
	}
	if err := os.WriteFile(filepath.Join(dir, FetchedName), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if !waitForFetch(dir, time.Minute) {
		t.Error("it is not seen that everything is fetched")
	}
}
