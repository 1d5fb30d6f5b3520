package remote_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/replicate/replicate/remote/remotetest"
)

// maxMemory bounds what a command and a supervisor may take at their most while they move what does not fit into it: a few chunks of 16 MB for each
// processor, and what is known of each file.
const maxMemory = 512 << 20

// telling prints the most memory that the supervisor has had, behind what a shell prints.
const telling = `; grep VmHWM /proc/1/status`

// moves runs a shell command where the project is sent, and holds both ends to maxMemory. It returns what the command printed.
func (d *desk) moves(script string) outcome {
	d.t.Helper()
	o := d.try("run", "-H", "rh1", "sh", "-c", script+telling)
	if o.code != 0 {
		d.t.Fatalf("exit code %d\n%s", o.code, o.stderr)
	}
	most := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindStringSubmatch(o.stdout)
	if most == nil {
		d.t.Fatalf("nothing tells the memory of the supervisor: %q", o.stdout)
	}
	supervisor, err := strconv.ParseInt(most[1], 10, 64)
	d.must(err)
	for name, size := range map[string]int64{"command": o.memory, "supervisor": supervisor << 10} {
		d.t.Logf("the %s took %d MB", name, size>>20)
		if size > maxMemory {
			d.t.Errorf("the %s took %d MB of memory", name, size>>20)
		}
	}
	return o
}

// sends returns how many megabytes a run said were not there yet.
func sends(o outcome) float64 {
	found := regexp.MustCompile(`of which ([0-9.]+) (B|kB|MB|GB) were not there yet`).FindStringSubmatch(o.stderr)
	if found == nil {
		return -1
	}
	n, _ := strconv.ParseFloat(found[1], 64)
	return n * map[string]float64{"B": 1e-6, "kB": 1e-3, "MB": 1, "GB": 1e3}[found[2]]
}

// TestLargeFileArrives sends a file of 5 GB: blocks that nothing compresses, of which each comes often, at other places, and holes.
func TestLargeFileArrives(t *testing.T) {
	d := newDesk(t)
	path := filepath.Join(d.dir, "large.bin")
	want := writeLarge(t, path, 5<<30)
	o := d.moves("sha256sum large.bin")
	if !strings.HasPrefix(o.stdout, want+"  ") {
		t.Errorf("what arrived has another hash than %s: %s", want, o.stdout)
	}
	again := d.moves("stat -c %s large.bin")
	if sent := sends(again); sent < 0 || sent > 1 {
		t.Errorf("%v MB were sent again", sent)
	}
}

// writeLarge writes a file of some size that takes little room, and returns its SHA-256.
func writeLarge(t *testing.T, path string, size int64) string {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const each, kinds, every = 32 << 20, 8, 8
	sum, block, hole := sha256.New(), make([]byte, each), make([]byte, each)
	for n := int64(0); n*each < size; n++ {
		if n%every != 0 {
			sum.Write(hole)
			continue
		}
		rand.NewChaCha8([32]byte{byte(n / every % kinds)}).Read(block)
		sum.Write(block)
		if _, err := f.WriteAt(block, n*each); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// TestManyFilesArrive sends 100000 small files, from memory into memory: a disk that others use takes a minute to make so many.
func TestManyFilesArrive(t *testing.T) {
	d := newDeskIn(t, remotetest.Options{Disk: 3 << 30})
	d.must(syscall.Mount("tmpfs", d.dir, "tmpfs", 0, "mode=755"))
	t.Cleanup(func() { d.must(syscall.Unmount(d.dir, syscall.MNT_DETACH)) })
	d.write("replicate.yaml", "image: "+remotetest.Image+"\n")
	const folders, each = 500, 200
	sum := sha256.New()
	for i := range folders {
		dir := filepath.Join(d.dir, "many", fmt.Sprintf("%03d", i))
		d.must(os.MkdirAll(dir, 0o755))
		for j := range each {
			content := fmt.Appendf(nil, "file %d of folder %d\n", j, i)
			sum.Write(content)
			d.must(os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03d", j)), content, 0o644))
		}
	}
	const count = `find many -type f | sort | xargs cat | sha256sum`
	want := hex.EncodeToString(sum.Sum(nil))
	if o := d.moves(count); !strings.HasPrefix(o.stdout, want) || !strings.Contains(o.stderr, "Sent 100001 files") {
		t.Errorf("what arrived has another hash than %s: %s", want, o.stdout)
	}
	d.write("many/000/000", "changed\n")
	again := d.moves("cat many/000/000")
	if sent := sends(again); sent < 0 || sent > 0.1 || !strings.HasPrefix(again.stdout, "changed\n") {
		t.Errorf("%v MB were sent again, and the changed file is %q", sent, again.stdout)
	}
}
