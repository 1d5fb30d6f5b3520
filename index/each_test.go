package index

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/replicate/replicate"
)

func TestEachIsListByWhatChanged(t *testing.T) {
	w := newWorld(t)
	for i := range 3 * batchRows / 2 { // the newest first
		e := replicate.Experiment{ID: numbered(i), Created: start.Add(-time.Duration(i) * time.Second), Params: values(t, `{"lr":0.1}`)}
		w.add(experimentRecord(e))
	}
	each := func(since int64) (all []*Experiment, gone []int64) {
		gone, version, err := w.Each(t.Context(), since, func(e *Experiment) error { all = append(all, e); return nil })
		w.must(err)
		if version != w.Version() {
			t.Errorf("it is of version %d, not %d", version, w.Version())
		}
		return all, gone
	}
	want, _, err := w.List(t.Context(), Query{})
	w.must(err)
	got, gone := each(0)
	if !reflect.DeepEqual(got, want) || len(gone) > 0 {
		t.Errorf("%d experiments and %d gone are not the %d of List", len(got), len(gone), len(want))
	}
	before := w.Version()
	if got, gone := each(before); len(got)+len(gone) != 0 {
		t.Errorf("nothing changed, but %d and %d", len(got), len(gone))
	}
	w.add(setRecord(numbered(3), start.Add(time.Minute), map[string]string{"status": `"finished"`}), deleteRecord(numbered(5), start.Add(time.Hour)))
	got, gone = each(before)
	if len(got) != 1 || got[0].ID != numbered(3) || got[0].Status != replicate.Finished || len(gone) != 1 {
		t.Errorf("changed: %v, gone: %v", got, gone)
	}
	stop := errors.New("enough")
	if _, _, err := w.Each(t.Context(), 0, func(*Experiment) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("ended with %v", err)
	}
}

// numbered is an id that differs from others in its last digits.
func numbered(i int) replicate.ID { return id(fmt.Sprintf("%08x", i*2654435761%(1<<32))) }
