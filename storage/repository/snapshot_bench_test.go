package repository

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"testing"

	"github.com/replicate/replicate"
)

// benchTree is the data set of the bars: two files of 100 MB that cannot be compressed and 2,000 small files, 225 MB.
func benchTree(t testing.TB, root string) {
	t.Helper()
	src := rand.NewChaCha8([32]byte{1})
	buf := make([]byte, 100_000_000)
	for i := range 2 {
		src.Read(buf)
		if err := os.WriteFile(fmt.Sprintf("%s/weights-%d.bin", root, i), buf, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 2000 {
		dir := fmt.Sprintf("%s/src/d%02d", root, i/100)
		os.MkdirAll(dir, 0o755)
		src.Read(buf[:6250])
		text := fmt.Sprintf("%x", buf[:6250])
		if err := os.WriteFile(fmt.Sprintf("%s/f%04d.txt", dir, i), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkFirstCommit225MB(b *testing.B) {
	root := b.TempDir()
	benchTree(b, root)
	b.Run("cp -a", func(b *testing.B) {
		for b.Loop() {
			to := b.TempDir() + "/copy"
			if out, err := exec.Command("cp", "-a", root, to).CombinedOutput(); err != nil {
				b.Fatal(string(out))
			}
			b.StopTimer()
			os.RemoveAll(to)
			b.StartTimer()
		}
	})
	b.Run("commit", func(b *testing.B) {
		for b.Loop() {
			b.StopTimer()
			l := newLab(b, diskStoreB(b))
			l.root = root
			os.RemoveAll(root + "/.replicate")
			b.StartTimer()
			l.begin(WriterOptions{})
			b.StopTimer()
			os.RemoveAll(l.repo.local.Dir())
			b.StartTimer()
		}
	})
}

func BenchmarkUnchangedCommit(b *testing.B) {
	for _, n := range []int{2000, 5000, 20000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := newLab(b, diskStoreB(b))
			for i := range n {
				writeFiles(b, l.root, fmt.Sprintf("d%02d/f%d", i%50, i), fmt.Sprint(i))
			}
			w, _ := l.begin(WriterOptions{})
			l.commit(w, CommitRequest{Step: replicate.NoStep})
			for b.Loop() {
				l.commit(w, CommitRequest{Step: replicate.NoStep})
			}
		})
	}
}
