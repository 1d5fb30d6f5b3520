package e2e

import (
	"bytes"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/badnet"
	"github.com/replicate/replicate/storage/storagetest/servers"
)

// readFaults are what a read meets in the tests. Those that need half a minute to be noticed are left out.
var readFaults = []badnet.Fault{badnet.Refused, badnet.Reset, badnet.Lost, badnet.Cut, badnet.Error500, badnet.Error503, badnet.SlowDown}

// stuck is what waits for a network that does not answer takes at least: that is given up after half a minute. A disk does not, also of a busy machine.
const stuck = 20 * time.Second

// readable records a commit of files of all sizes on a machine of its own, and returns it with its id.
func readable(t *testing.T, url string, env map[string]string) (l *lab, commit string) {
	t.Helper()
	l = machine(t, url, env)
	random := rand.NewChaCha8([32]byte{9})
	for name, size := range map[string]int{"data/big.bin": 24 << 20, "data/middle.bin": 700_000, "data/a.txt": 900, "data/b.txt": 30_000, "data/empty": 0} {
		content := make([]byte, size)
		random.Read(content)
		l.write(name, string(content))
	}
	ids, _ := l.commits("1", "data")
	l.uploads()
	return l, ids[0]
}

// TestReadingThroughABadNetwork lists, prints, checks out and reads a mount while requests fail in all ways. Every byte is right.
func TestReadingThroughABadNetwork(t *testing.T) {
	s := storagetest.StartS3(t)
	url := storagetest.Prefix(s.URL)
	writer, commit := readable(t, url, s.Env())
	proxy, env := storagetest.StartProxy(t, s, seeded(t).Uint64())
	proxy.Set(badnet.Weather{RTT: 5 * time.Millisecond, Rate: 0.25, Faults: readFaults})
	for range 3 {
		reader := machine(t, url, env)
		if got := reader.replicate("cat", commit+":data/b.txt"); got != read(t, writer.path("data/b.txt")) {
			t.Errorf("cat: %d bytes are wrong", len(got))
		}
		sameTrees(t, "checkout", writer.path("data"), filepath.Join(reader.checkout(commit), "data"))
		fresh := machine(t, url, env)
		sameTrees(t, "mount", writer.path("data"), filepath.Join(fresh.mount(), "commits", commit[:7], "data"))
	}
	if all, faulty := proxy.Requests(); faulty == 0 {
		t.Errorf("nothing went wrong in %d requests", all)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestListingDoesNotWaitForADownload has a storage that keeps the bytes of packs to itself for a while: names and sizes are there all the same,
// and who reads gets the right bytes in the end, each fetched once however many wait for it.
func TestListingDoesNotWaitForADownload(t *testing.T) {
	s := storagetest.StartS3(t)
	url := storagetest.Prefix(s.URL)
	writer, commit := readable(t, url, s.Env())
	proxy, env := storagetest.StartProxy(t, s, 1)
	reader := machine(t, url, env)
	mnt := reader.mount()
	dir := filepath.Join(mnt, "commits", commit[:7], "data")
	reader.run("ls", "-l", dir) // the list of files
	open := make(chan struct{})
	proxy.Intercept(func(r *http.Request) *badnet.Answer {
		if strings.Contains(r.URL.Path, "/pack/") {
			select {
			case <-open:
			case <-r.Context().Done():
			}
		}
		return nil
	})
	_, before := proxy.Carried()
	var readers sync.WaitGroup
	wanted := []byte(read(t, writer.path("data/big.bin")))
	for range 4 {
		cmd := reader.command("cat", filepath.Join(dir, "big.bin"))
		readers.Go(func() {
			if out, err := cmd.Output(); err != nil || !bytes.Equal(out, wanted) {
				t.Errorf("%d bytes, %v", len(out), err)
			}
		})
	}
	waiting, _ := proxy.Requests()
	reader.within(time.Minute, "a reader waits", func() bool { now, _ := proxy.Requests(); return now > waiting })
	listing := func() time.Duration {
		start := time.Now()
		reader.run("ls", "-l", mnt, filepath.Join(mnt, "experiments"), dir)
		reader.run("cat", filepath.Join(mnt, "experiments.csv"))
		return time.Since(start)
	}
	for took := []time.Duration{listing()}; slices.Min(took) > stuck; took = append(took, listing()) { // others want the machine too
		if len(took) > 3 {
			t.Fatalf("ls took %v while a download hung", took)
		}
	}
	close(open)
	readers.Wait()
	if _, now := proxy.Carried(); now-before > 2*int64(len(wanted)) { // a read that is slow to begin is asked for twice
		t.Errorf("%d bytes were fetched for a file of %d", now-before, len(wanted))
	}
}

// TestOneCacheUnderPressure lets two mounts and checkouts share a cache that is too small for any of them.
func TestOneCacheUnderPressure(t *testing.T) {
	s := storagetest.StartS3(t)
	url := storagetest.Prefix(s.URL)
	writer, commit := readable(t, url, s.Env())
	reader := machine(t, url, s.Env())
	reader.setenv("REPLICATE_CACHE_SIZE", "8MB")
	mounts := []string{reader.mount(), reader.mount()}
	var all sync.WaitGroup
	for _, mnt := range mounts {
		all.Go(func() {
			for range 3 {
				sameTrees(t, "mount", writer.path("data"), filepath.Join(mnt, "commits", commit[:7], "data"))
			}
		})
	}
	out := filepath.Join(reader.home, "out")
	for range 3 {
		reader.replicate("checkout", "-f", "-o", out, commit)
		sameTrees(t, "checkout", writer.path("data"), filepath.Join(out, "data"))
		reader.must(os.RemoveAll(out))
	}
	all.Wait()
	caches, err := filepath.Glob(filepath.Join(reader.home, "cache", "replicate", "*", "chunks"))
	reader.must(err)
	var size int64
	for _, dir := range caches {
		size += reader.size(dir)
	}
	if size == 0 || size > 8_000_000*12/10 {
		t.Errorf("the cache of 8 MB holds %d bytes", size)
	}
}

// TestTrainingNeverWaitsForTheNetwork trains while the weather changes several times a second, to frozen, gone and worse, and uploaders are killed.
// No commit takes longer than a disk, and in the end each is in the bucket, whole.
func TestTrainingNeverWaitsForTheNetwork(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *servers.Server{"s3": storagetest.StartS3, "gs": storagetest.StartGCS} {
		t.Run(name, func(t *testing.T) { trainThroughWeather(t, start(t)) })
	}
}

func trainThroughWeather(t *testing.T, s *servers.Server) {
	chance := seeded(t)
	url := storagetest.Prefix(s.URL)
	proxy, env := storagetest.StartProxy(t, s, chance.Uint64())
	l, reader := machine(t, url, env), machine(t, url, s.Env())
	l.setenv("REPLICATE_EXIT_WAIT", "0.1")
	proxy.Set(badnet.Weather{Rate: 1, Faults: []badnet.Fault{badnet.Frozen}}) // from the first request on
	begun := time.Now()
	tr := l.train("1000000")
	l.awaits(tr, 1)
	if d := time.Since(begun); d > stuck {
		t.Errorf("the first commit took %v", d)
	}
	_, acks := tr.progress()
	killed := 0
	for last, round := time.Now(), 0; round < 2*rounds(t); round++ {
		proxy.Set(badnet.Weather{RTT: time.Duration(chance.IntN(200)) * time.Millisecond, Bandwidth: []int64{0, 20_000, 1_000_000}[chance.IntN(3)],
			Rate: chance.Float64(), Faults: badnet.AllFaults})
		proxy.Down(chance.IntN(4) == 0)
		time.Sleep(time.Duration(50+chance.IntN(300)) * time.Millisecond) // the weather stays so for a while
		if pid := l.uploader(); pid != 0 && chance.IntN(3) == 0 {
			l.must(syscall.Kill(pid, syscall.SIGKILL))
			killed++
		}
		if _, now := tr.progress(); now > acks {
			acks, last = now, time.Now()
		} else if time.Since(last) > stuck {
			t.Fatalf("no commit for %v", time.Since(last))
		}
	}
	tr.stdin.Close()
	start := time.Now()
	stderr, err := tr.wait()
	if err != nil || !tr.done || strings.Contains(stderr, "the recorder died") {
		t.Fatalf("the training did not end well: %v\n%s", err, stderr)
	}
	if d := time.Since(start); d > stuck {
		t.Errorf("the training took %v to end", d)
	}
	if len(tr.acks) != len(tr.tries) {
		t.Errorf("%d commits were acknowledged of %d", len(tr.acks), len(tr.tries))
	}
	all, faulty := proxy.Requests()
	t.Logf("%d commits, %d uploaders killed, %d of %d requests went wrong", len(tr.acks), killed, faulty, all)
	proxy.Set(badnet.Weather{})
	proxy.Down(false)
	if pid := l.uploader(); pid != 0 { // what it froze in would take half a minute
		l.must(syscall.Kill(pid, syscall.SIGKILL))
		l.within(time.Minute, "the uploader is gone", func() bool { return gone(pid) })
	}
	l.uploads()
	reader.verify(tr, "recorder", time.Now())
	reader.check(url)
}
