// Package require says what a test needs from the machine it runs on.
//
// A test whose requirement is missing calls Missing, directly or through the functions below: it is skipped by the name of
// what is missing, or fails when the environment variable REPLICATE_TEST_REQUIRE is all, as in continuous integration:
// a skipped test must never be counted as one that passed.
package require

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Missing ends a test that cannot run on this machine because what is not there.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("REPLICATE_TEST_REQUIRE") == "all" {
		t.Fatalf("needs %s, which is missing, and REPLICATE_TEST_REQUIRE=all", what)
	}
	t.Skipf("needs %s, which is missing", what)
}

// Program returns the path of a program, or ends the test.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, name)
	}
	return path
}

// Tool returns the path of a server that .ci/tool built, or ends the test.
func Tool(t testing.TB, name string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(Caches(t), name+"-v*"))
	if err != nil || len(found) == 0 {
		Missing(t, name+" (.ci/tool "+name+" builds it)")
	}
	return found[len(found)-1]
}

// Caches returns a directory for what is made once per machine, outside of the tree: where .ci/tool puts its servers.
func Caches(t testing.TB) string {
	t.Helper()
	caches, err := os.UserCacheDir()
	if err != nil {
		Missing(t, "a directory for caches: "+err.Error())
	}
	return filepath.Join(caches, "replicate-test")
}

// Bucket returns the real bucket of a scheme, s3 or gs, that tests may use as well: one of the URLs in the environment variable
// REPLICATE_TEST_STORAGE, separated by spaces. They write below prefixes of their own.
func Bucket(scheme string) (url string, ok bool) {
	for url := range strings.FieldsSeq(os.Getenv("REPLICATE_TEST_STORAGE")) {
		if strings.HasPrefix(url, scheme+"://") {
			return url, true
		}
	}
	return "", false
}

// Root ends a test that is not run by root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root")
	}
}

// Unprivileged runs f with the rights of somebody whom permissions stop: the present user, or nobody if that is root. What f does
// to files must happen in its own goroutine, and it must not end the test. A t.TempDir is closed to nobody until the folder it is in is opened.
func Unprivileged(t testing.TB, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	done := make(chan error)
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlock: the thread ends with the goroutine
		if err := becomeNobody(); err != nil {
			done <- err
			return
		}
		f()
	}()
	if err := <-done; err != nil {
		Missing(t, "a user other than root: "+err.Error())
	}
}

// Fuse ends a test on a machine where nothing can be mounted by FUSE.
func Fuse(t testing.TB) {
	t.Helper()
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		Missing(t, "/dev/fuse")
	}
	f.Close()
}
