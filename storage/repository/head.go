package repository

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"

	"github.com/replicate/replicate"
)

// A Standing is where an experiment stands, as far as this machine knows: what another process of it needs in order to take part, without asking the
// storage.
type Standing struct {
	Experiment *ExperimentRow // nil: nothing is known
	Newest     *CommitRow     // nil: there is no commit
	Last       replicate.Step // the last step that was recorded, NoStep if there is none
}

// headFile is a Standing in head/.
type headFile struct {
	Experiment json.RawMessage `json:"experiment"`
	Commit     json.RawMessage `json:"commit,omitempty"`
	Step       replicate.Step  `json:"step"`
}

// Standing returns what is known of an experiment that goes on. Only an outbox knows any.
func (s *Spool) Standing(experiment replicate.ID) (Standing, bool) {
	if s.outbox == nil {
		return Standing{}, false
	}
	st, err := s.outbox.standing(experiment)
	if err != nil {
		return Standing{}, false
	}
	beats, _ := filepath.Glob(s.path(string(experiment)+"-*", beatName)) // of hex digits
	for _, path := range beats {
		if h, err := readBeat(path); err == nil {
			st.Last = max(st.Last, h.Step)
		}
	}
	return st, true
}

// Standings returns the experiments that are known to go on.
func (s *Spool) Standings() []Standing {
	if s.outbox == nil {
		return nil
	}
	var list []Standing
	entries, _ := os.ReadDir(s.outbox.path(headName)) // no folder: none
	for _, e := range entries {
		id, err := replicate.ParseID(e.Name())
		if err != nil {
			continue // in the making
		}
		if st, ok := s.Standing(id); ok {
			list = append(list, st)
		}
	}
	return list
}

func (o *outbox) standing(experiment replicate.ID) (Standing, error) {
	text, err := os.ReadFile(o.path(headName, string(experiment)))
	if err != nil {
		return Standing{}, err
	}
	var h headFile
	if err := json.Unmarshal(text, &h); err != nil {
		return Standing{}, err
	}
	r, err := ParseRecord(h.Experiment)
	if err != nil || r.Experiment == nil {
		return Standing{}, errors.Join(err, errors.New("no experiment"))
	}
	st := Standing{Experiment: r.Experiment, Last: h.Step}
	if len(h.Commit) > 0 {
		if r, err = ParseRecord(h.Commit); err != nil {
			return Standing{}, err
		}
		st.Newest = r.Commit
	}
	return st, nil
}

// save replaces the file of a standing. It is not synced: what it says can be read from the storage too.
func (o *outbox) save(st Standing) error {
	r, err := Record{Experiment: st.Experiment}.Encode()
	if err != nil {
		return err
	}
	h := headFile{Experiment: r.Line, Step: st.Last}
	if st.Newest != nil {
		if r, err = (Record{Commit: st.Newest}).Encode(); err != nil {
			return err
		}
		h.Commit = r.Line
	}
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return ReplaceFile(o.path(headName, string(st.Experiment.ID)), text)
}

// introduce keeps what is known of an experiment that the outbox does not know.
func (o *outbox) introduce(st Standing) {
	if st.Experiment == nil {
		return
	}
	if _, err := o.standing(st.Experiment.ID); err != nil {
		_ = o.save(st) // without it others ask the storage
	}
}

// note keeps what records say of where their experiment stands. Two processes that do so at the same time can lose one: then there are two commits with one
// parent, as with writers on two machines.
func (o *outbox) note(experiment replicate.ID, records []Record) {
	o.heads.Lock()
	defer o.heads.Unlock()
	st, err := o.standing(experiment)
	for _, r := range records {
		switch {
		case r.Experiment != nil:
			st, err = Standing{Experiment: r.Experiment, Last: replicate.NoStep}, nil
		case r.Commit != nil && (st.Newest == nil || r.Commit.Seq >= st.Newest.Seq):
			st.Newest, st.Last = r.Commit, max(st.Last, r.Commit.Step)
		case r.Set != nil && st.Experiment != nil:
			for name, value := range r.Set.Fields {
				_ = SetField(&st.Experiment.Experiment, name, value) // as readers do
			}
		}
	}
	if err == nil && st.Experiment != nil {
		_ = o.save(st)
	}
}

// append adds records that need no packs.
func (s *Spool) append(ctx context.Context, experiment replicate.ID, records ...Record) error {
	if s.outbox == nil {
		_, err := putRecords(ctx, s.repository.store, records)
		return err
	}
	if err := s.outbox.put(experiment, nil, records); err != nil {
		return err
	}
	s.outbox.note(experiment, records)
	return nil
}

// leave makes durable how a writer of an outbox ends, and gives its folder to the uploader. With the experiment all its other writers of this machine
// learn that it is over.
func (w *Writer) leave(end *Record) error {
	if err := w.streams.sync(); err != nil {
		return err
	}
	o, experiment := w.spool.outbox, w.own.meta.Experiment
	w.mu.Lock()
	step := w.step
	w.mu.Unlock()
	if st, err := o.standing(experiment); err == nil && step > st.Last {
		st.Last = step
		_ = o.save(st)
	}
	defer o.tell()
	if end == nil {
		return w.own.decide(nil)
	}
	if err := w.own.decide(end.Line); err != nil {
		return err
	}
	w.markOthers(overName)
	o.note(experiment, []Record{*end})
	return nil
}

// markOthers makes a file in the folders of all other writers of the experiment.
func (w *Writer) markOthers(name string) {
	dirs, _ := filepath.Glob(w.spool.path(string(w.own.meta.Experiment) + "-*")) // of hex digits
	for _, dir := range dirs {
		if dir != w.own.dir {
			_ = os.WriteFile(filepath.Join(dir, name), nil, 0o600) // it may be gone
		}
	}
}

// Over reports whether another process of this machine has ended the experiment. Only an outbox tells.
func (w *Writer) Over() bool {
	_, err := os.Stat(filepath.Join(w.own.dir, overName))
	return err == nil
}
