package recorder

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// memoName is a file in the folder of the writer that keeps an experiment on this machine, and goes away with it. It has what the last look at the
// experiment found, so that the next one, of another command of the shell way, reads only the records that are new since.
const memoName = "standing"

// A memo is the content of that file.
type memo struct {
	Known      []string            `json:"known"` // keys of the objects that were read
	Experiment json.RawMessage     `json:"experiment"`
	Newest     json.RawMessage     `json:"newest,omitempty"` // commit
	Facts      map[string]memoFact `json:"facts,omitempty"`
	Last       time.Time           `json:"last"`
	Step       replicate.Step      `json:"step"` // of the newest commit too
}

type memoFact struct {
	Value json.RawMessage `json:"value"`
	At    time.Time       `json:"at"`
	Hash  replicate.Hash  `json:"hash"`
}

// recall returns how an experiment stands. Of its commits only the newest is sure to be there.
func recall(ctx context.Context, r *repository.Repository, id replicate.ID) (*standing, error) {
	file := ""
	if dir := r.Keeper(id); dir != "" {
		file = filepath.Join(dir, memoName)
	}
	s, known := readMemo(file, id)
	if s != nil {
		if deleted, err := s.update(ctx, r, id, file, known); err != nil || !deleted {
			return s, err
		}
	}
	s = newStanding()
	if _, err := s.update(ctx, r, id, file, nil); err != nil {
		return nil, err
	}
	if s.row.ID == "" {
		return nil, notFound(string(id))
	}
	return s, nil
}

// update reads what is not known yet, and writes it down. It reports whether something of s is deleted: what then comes to light is not in a memo.
func (s *standing) update(ctx context.Context, r *repository.Repository, id replicate.ID, file string, known []string) (deleted bool, err error) {
	has := map[string]bool{}
	for _, key := range known {
		has[key] = true
	}
	found, err := gather(ctx, r, func(key string) bool { return has[key] }, func(other replicate.ID) *standing {
		if other != id {
			return nil
		}
		return s
	})
	if err != nil {
		return false, err
	}
	deleted = slices.ContainsFunc(found.deletes, s.concerns)
	plain := s.row
	s.bury(found.deletes)
	if s.row.ID != "" && file != "" && len(found.settled) > 0 {
		_ = s.writeMemo(file, plain, append(known, found.settled...)) // without it the next one reads more
	}
	return deleted, nil
}

// concerns reports whether a deletion is of the experiment or one of the commits that are known.
func (s *standing) concerns(d repository.Delete) bool {
	return d.ID == s.row.ID || slices.ContainsFunc(s.commits, func(c repository.CommitRow) bool { return d.ID == c.ID })
}

// writeMemo writes a memo. row is that of the experiment, without facts.
func (s *standing) writeMemo(file string, row repository.ExperimentRow, known []string) error {
	m := memo{Known: known, Facts: map[string]memoFact{}, Last: s.last, Step: s.resume().Step}
	experiment, err := repository.Record{Experiment: &row}.Encode()
	if err != nil {
		return err
	}
	m.Experiment = experiment.Line
	if newest := s.newest(); newest != nil {
		commit, err := repository.Record{Commit: newest}.Encode()
		if err != nil {
			return err
		}
		m.Newest = commit.Line
	}
	for name, f := range s.facts {
		m.Facts[name] = memoFact{f.value, f.at, f.hash}
	}
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(file), memoName+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// readMemo returns what a memo says, nil if there is none, or none of this experiment.
func readMemo(file string, id replicate.ID) (*standing, []string) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil
	}
	s, known, err := parseMemo(text)
	if err != nil || s.row.ID != id || len(known) == 0 {
		return nil, nil
	}
	return s, known
}

func parseMemo(text []byte) (*standing, []string, error) {
	var m memo
	if err := json.Unmarshal(text, &m); err != nil {
		return nil, nil, err
	}
	s := newStanding()
	s.last, s.step = m.Last, m.Step
	for _, line := range []json.RawMessage{m.Experiment, m.Newest} {
		if line == nil {
			continue
		}
		record, err := repository.ParseRecord(line)
		if err != nil {
			return nil, nil, err
		}
		s.add(&record)
	}
	for name, f := range m.Facts {
		s.facts[name] = fact{f.Value, f.At, f.Hash}
	}
	return s, m.Known, nil
}
