package repository

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/replicate/replicate"
)

// TestNewRunSendsWhatChanged changes a little of a large file between two runs for a bucket: the first commit of the second has the rest from the
// first, though all packs of that are sent and gone.
func TestNewRunSendsWhatChanged(t *testing.T) {
	const size = 24 << 20
	l := newOutboxLab(t, memStore(t))
	data := noise(7, size)
	run := func() (sent int64) {
		must(t, os.WriteFile(filepath.Join(l.root, "weights"), data, 0o600))
		l.spool = l.outbox(l.store)
		w, _ := l.begin(WriterOptions{})
		must(t, w.End(t.Context(), replicate.Finished, nil))
		sent = l.spool.Waiting().Bytes
		l.upload()
		l.checkEmpty()
		return sent
	}
	if sent := run(); sent < size {
		t.Fatalf("%d bytes of %d are sent first", sent, size)
	}
	copy(data[size/2:], noise(8, 1000))
	sent := run()
	t.Logf("%d bytes sent for 1,000 that changed of %d", sent, size)
	if most := int64(2 * maxChunk); sent > most {
		t.Errorf("want at most %d", most)
	}
	for _, r := range l.records() {
		if r.Experiment != nil {
			l.checkout(r.Experiment.Row) // which verifies every byte
		}
	}
}
