package repository

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/disk"
)

// weights is the tree that commits and checkouts are measured on: 2 × 100 MB that do not compress and 2,000 small files.
func weights() []fake {
	fakes := []fake{fakeDir("small")}
	for i := range 2 {
		f := fakeFile(fmt.Sprintf("weights-%d.pt", i), string(noise(uint64(20+i), 100_000_000)))
		f.apart = true
		fakes = append(fakes, f)
	}
	text := prose(12 << 10)
	for i := range 20 {
		fakes = append(fakes, fakeDir(fmt.Sprintf("small/%d", i)))
		for j := range 100 {
			n := 500 + (i*100+j)*7919%len(text)
			f := fakeFile(fmt.Sprintf("small/%d/%d.txt", i, j), string(text[:min(n, len(text))]))
			fakes = append(fakes, f)
		}
	}
	return fakes
}

// BenchmarkCheckout checks the tree out into a new folder, everything being in the page cache, beside `cp -a` of the result.
func BenchmarkCheckout(b *testing.B) {
	build := newBuilder(b, diskStore(b))
	row := build.tree(weights()...)
	r, tree := build.opened(row)
	top := b.TempDir()
	b.Run("ours", func(b *testing.B) {
		b.SetBytes(tree.Bytes)
		for b.Loop() {
			dir := filepath.Join(top, "out")
			if _, err := r.Checkout(b.Context(), tree, CheckoutOptions{Dir: dir}); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			os.RemoveAll(filepath.Join(top, "from"))
			os.Rename(dir, filepath.Join(top, "from"))
			b.StartTimer()
		}
	})
	b.Run("cp", func(b *testing.B) {
		b.SetBytes(tree.Bytes)
		for b.Loop() {
			dir := filepath.Join(top, "copy")
			if err := exec.Command("cp", "-a", filepath.Join(top, "from"), dir).Run(); err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			os.RemoveAll(dir)
			b.StartTimer()
		}
	})
}

// BenchmarkFile reads a large file from front to end in pieces of 128 KiB, as the kernel does.
func BenchmarkFile(b *testing.B) {
	build := newBuilder(b, diskStore(b))
	row := build.tree(weights()[1])
	_, tree := build.opened(row)
	e := tree.Lookup("weights-0.pt")
	buf := make([]byte, 128<<10)
	b.SetBytes(e.Size)
	for b.Loop() {
		r, err := Open(b.Context(), build.store)
		if err != nil {
			b.Fatal(err)
		}
		f, err := r.File(b.Context(), e)
		if err != nil {
			b.Fatal(err)
		}
		for off := int64(0); off < e.Size; off += int64(len(buf)) {
			if _, err := f.ReadAt(buf, off); err != nil && err != io.EOF {
				b.Fatal(err)
			}
		}
	}
}

// experiments returns the rows of n experiments with 8 parameters, as a fresh index reads them.
func experiments(b *builder, n int) []Record {
	records := make([]Record, n)
	for i := range records {
		var params replicate.Values
		for j := range 8 {
			params = append(params, replicate.Member{Name: fmt.Sprintf("parameter_%d", j), Value: replicate.Float(float64(i*j) / 7)})
		}
		records[i] = b.record(Record{Experiment: &ExperimentRow{Experiment: replicate.Experiment{ID: b.newID(), Created: b.now, User: "dev", Host: "gpu1",
			Command: []string{"python", "train.py"}, Params: params}, Row: Row{Before: b.now}}})
	}
	return records
}

// BenchmarkSync reads all records of a local storage: of a segment, and of objects of one record each.
func BenchmarkSync(b *testing.B) {
	run := func(name string, records int, arrange func(*builder, []Record)) {
		b.Run(name, func(b *testing.B) {
			build := newBuilder(b, diskStore(b))
			arrange(build, experiments(build, records))
			for b.Loop() {
				n := 0
				for batch, err := range build.repo.Sync(b.Context(), nothingKnown) {
					if n += len(batch.Records); err != nil || batch.Err != nil {
						b.Fatal(err, batch.Err)
					}
				}
				if n != records {
					b.Fatal(n)
				}
			}
			b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
		})
	}
	run("segment", 100_000, func(build *builder, records []Record) {
		key, object, err := encodeSegment(1, records, nil)
		if err != nil {
			b.Fatal(err)
		}
		build.put(key, object)
	})
	run("objects", 10_000, func(build *builder, records []Record) {
		dir := build.store.(*disk.Store).Dir()
		if err := os.MkdirAll(filepath.Join(dir, "log"), 0o700); err != nil {
			b.Fatal(err)
		}
		for _, r := range records {
			key, object := encodeLog([]Record{r})
			if err := os.WriteFile(filepath.Join(dir, key), object, 0o600); err != nil { // a Put syncs
				b.Fatal(err)
			}
		}
	})
}
