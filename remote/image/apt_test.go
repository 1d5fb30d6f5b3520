package image

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/replicate/replicate/remote/remotetest"
	"github.com/replicate/replicate/storage/storagetest/require"
)

// packageOf makes a package of Debian that has nothing in it, and the index of a repository with it.
func packageOf(t *testing.T, name string) (deb []byte, index string) {
	t.Helper()
	require.Program(t, "dpkg-deb")
	dir := filepath.Join(t.TempDir(), name)
	control := "Package: " + name + "\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@localhost>\nDescription: nothing\n"
	must(t, os.MkdirAll(filepath.Join(dir, "DEBIAN"), 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "DEBIAN", "control"), []byte(control), 0o644))
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "--build", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	deb, err := os.ReadFile(dir + ".deb")
	must(t, err)
	return deb, fmt.Sprintf("%sFilename: ./%s.deb\nSize: %d\nSHA256: %x\n", control, name, len(deb), sha256.Sum256(deb))
}

// TestPackagesOfDebianAreDownloadedOnce builds an environment, then another with the same package.
func TestPackagesOfDebianAreDownloadedOnce(t *testing.T) {
	b := newBench(t)
	lab := remotetest.Start(t, remotetest.Options{})
	name := fmt.Sprintf("petal%d", os.Getpid()) // the cache outlives the test
	deb, index := packageOf(t, name)
	var downloads atomic.Int32
	listener, err := net.Listen("tcp", lab.Gateway+":0")
	must(t, err)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch strings.TrimPrefix(r.URL.Path, "/./") {
		case "Packages":
			fmt.Fprint(w, index)
		case name + ".deb":
			downloads.Add(1)
			w.Write(deb)
		default:
			http.NotFound(w, r)
		}
	})}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	b.Network = ""
	for _, round := range []string{"one", "two"} {
		b.in.Install = []string{fmt.Sprintf("echo round %s && rm -rf /etc/apt/sources.list* && echo 'deb [trusted=yes] http://%s ./' >/etc/apt/sources.list && "+
			"apt-get update && apt-get install -y %s", round, listener.Addr(), name)}
		env := b.build()
		if got := b.run(env, "sh", "-c", "dpkg-query -W -f '${Version}' "+name+"; ls /var/cache/apt/archives /replicate"); !strings.HasPrefix(got, "1.0") || strings.Contains(got, ".deb") {
			t.Errorf("in the image there is %s", got)
		}
	}
	if n := downloads.Load(); n != 1 {
		t.Errorf("the package was downloaded %d times", n)
	}
}
