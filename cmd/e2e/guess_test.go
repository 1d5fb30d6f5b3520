package e2e

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/replicate/replicate/storage/storagetest"
	"github.com/replicate/replicate/storage/storagetest/badnet"
)

// TestFilesAreReadWhileTheStorageSaysWhatIsNew has the listing of what is new answered only after the files of a commit that is known were asked for.
func TestFilesAreReadWhileTheStorageSaysWhatIsNew(t *testing.T) {
	s := storagetest.StartS3(t)
	url := storagetest.Prefix(s.URL)
	writer, commit := readable(t, url, s.Env())
	proxy, env := storagetest.StartProxy(t, s, 1)
	for name, args := range map[string][]string{
		"cat":      {"cat", commit + ":data/b.txt"},
		"checkout": {"checkout", "-o", "out", commit},
		"diff":     {"diff", commit, commit},
	} {
		t.Run(name, func(t *testing.T) {
			reader := machine(t, url, env)
			reader.replicate("ls")
			asked, once := make(chan struct{}), sync.Once{}
			proxy.Intercept(func(r *http.Request) *badnet.Answer {
				if strings.Contains(r.URL.Path, "/pack/") {
					once.Do(func() { close(asked) })
				}
				if strings.HasSuffix(r.URL.Query().Get("prefix"), "/index/") {
					select {
					case <-asked:
					case <-time.After(time.Minute):
						t.Error("the listing is waited for")
					}
				}
				return nil
			})
			out := reader.replicate(args...)
			proxy.Intercept(nil)
			if want := read(t, writer.path("data/b.txt")); name == "cat" && out != want {
				t.Errorf("%d bytes are wrong", len(out))
			}
		})
	}
}

// TestAnotherRepositoryInItsPlace has a URL lead to another repository than before: what was known of that one is not believed.
func TestAnotherRepositoryInItsPlace(t *testing.T) {
	was, is := storagetest.StartS3(t), storagetest.StartS3(t)
	url := storagetest.Prefix(was.URL)
	_, before := readable(t, url, was.Env())
	writer, now := readable(t, url, is.Env())
	reader := machine(t, url, was.Env())
	reader.replicate("cat", before+":data/b.txt")
	for name, value := range is.Env() {
		reader.setenv(name, value)
	}
	if out, stderr, code := reader.try(binary, "cat", before+":data/middle.bin"); code != 3 {
		t.Errorf("exit code %d, %d bytes\n%s", code, len(out), stderr)
	}
	if got := reader.replicate("cat", now+":data/b.txt"); got != read(t, writer.path("data/b.txt")) {
		t.Errorf("%d bytes are wrong", len(got))
	}
}
