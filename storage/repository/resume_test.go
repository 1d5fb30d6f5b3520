package repository

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/replicate/replicate"
)

// resumed goes on with an experiment in another writer, as a recorder does.
func (l *lab) resumed(id replicate.ID) *Writer {
	l.t.Helper()
	st, ok := l.spool.Standing(id)
	if !ok {
		l.t.Fatal("it is not known here")
	}
	w, err := l.outbox(unreachable(l.t, l.store)).Attach(l.t.Context(), id, Resume{Parent: st.Experiment.Row, Standing: st}, WriterOptions{Root: l.root})
	must(l.t, err)
	must(l.t, w.Set(l.t.Context(), map[string]json.RawMessage{"status": json.RawMessage(`"running"`)}))
	must(l.t, w.Beat(l.t.Context()))
	return w
}

// TestTheLastEndCounts ends an experiment, goes on and ends it again, all before anything is sent. Which writer's folder comes first is chance.
func TestTheLastEndCounts(t *testing.T) {
	for range 8 {
		l := newOutboxLab(t, memStore(t))
		w, _ := l.begin(WriterOptions{})
		id := w.own.meta.Experiment
		must(t, w.End(t.Context(), replicate.Interrupted, map[string]json.RawMessage{"note": json.RawMessage(`"kept"`)}))
		must(t, l.resumed(id).End(t.Context(), replicate.Failed, nil))
		l.resumed(id).die()
		must(t, l.resumed(id).End(t.Context(), replicate.Finished, nil))
		l.upload()
		if s := l.status(id); s != "finished" {
			t.Errorf("it is %q", s)
		}
		kept := false
		for _, r := range l.records() {
			kept = kept || r.Set != nil && string(r.Set.Fields["note"]) == `"kept"`
		}
		if !kept {
			t.Error("what the first end says beside the status is lost")
		}
		l.checkEmpty()
	}
}

// TestResumedBeforeItsEndIsSent goes on with an experiment whose end waits: once that is sent, it runs and has a heartbeat.
func TestResumedBeforeItsEndIsSent(t *testing.T) {
	l := newOutboxLab(t, memStore(t))
	first, _ := l.begin(WriterOptions{})
	id := first.own.meta.Experiment
	must(t, first.End(t.Context(), replicate.Interrupted, nil))
	w := l.resumed(id)
	done := make(chan error, 1)
	go func() {
		_, err := l.outbox(l.store).Upload(context.Background())
		done <- err
	}()
	eventually(t, "the first writer is finished", func() bool { return !exists(first.own.dir, lockName) })
	eventually(t, "a heartbeat", func() bool {
		beat, err := l.repo.Heartbeat(t.Context(), id)
		return err == nil && beat.Writer == w.own.meta.Writer
	})
	if s := l.status(id); s != "running" {
		t.Errorf("it is %q", s)
	}
	must(t, w.End(t.Context(), replicate.Finished, nil))
	must(t, <-done)
	if s := l.status(id); s != "finished" {
		t.Errorf("it is %q in the end", s)
	}
	l.checkEmpty()
}
