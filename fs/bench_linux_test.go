package fs

import (
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// coldMount mounts a commit of a folder with a server that has read nothing yet.
func coldMount(b *testing.B, fill func(dir string)) (commit string) {
	needsMount(b)
	root := tempDir(b)
	fill(root)
	p := newProject(b, root)
	w, _ := p.begin()
	id := p.commit(w, 0)
	p.end(w)
	v, err := openHere(b.Context(), p.options())
	check(b, err)
	b.Cleanup(func() { v.Close() })
	_, err = v.Refresh(b.Context())
	check(b, err)
	mnt, _ := serveHere(b, v, false)
	return filepath.Join(mnt, "commits", id.Short())
}

func BenchmarkFirstReadOf100MB(b *testing.B) {
	const size = 100 << 20
	b.SetBytes(size)
	for b.Loop() {
		b.StopTimer()
		dir := coldMount(b, func(dir string) {
			data := make([]byte, size)
			_, err := rand.Read(data)
			check(b, err)
			check(b, os.WriteFile(filepath.Join(dir, "weights"), data, 0o644))
		})
		must(b, "/", "stat", dir+"/weights")
		b.StartTimer()
		must(b, "/", "cp", dir+"/weights", "/dev/null")
	}
}

func BenchmarkFirstFindOf2000(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		dir := coldMount(b, func(dir string) {
			for i := range 2000 {
				sub := filepath.Join(dir, fmt.Sprint(i%20))
				check(b, os.MkdirAll(sub, 0o755))
				check(b, os.WriteFile(filepath.Join(sub, fmt.Sprint(i)), make([]byte, i%3000), 0o644))
			}
		})
		b.StartTimer()
		must(b, "/", "find", dir, "-ls")
	}
}
