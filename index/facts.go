package index

import (
	"cmp"
	"encoding/json"
	"iter"
	"slices"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// facts are the winners among the Sets of an experiment, per field and per tag, in the order of their keys.
type facts []fact

type fact struct {
	factKey
	version version
	value   json.RawMessage
}

type factKey struct{ name, tag string }

func (k factKey) compare(o factKey) int {
	return cmp.Or(strings.Compare(k.name, o.name), strings.Compare(k.tag, o.tag))
}

// find returns where a fact is or belongs.
func (f facts) find(k factKey) (i int, known bool) {
	return slices.BinarySearchFunc(f, k, func(one fact, k factKey) int { return one.compare(k) })
}

const tagsField = "tags"

// factsOf yields the fields of a Set, each tag for itself.
func factsOf(s *repository.Set) iter.Seq2[factKey, json.RawMessage] {
	return func(yield func(factKey, json.RawMessage) bool) {
		for name, value := range s.Fields {
			if name != tagsField {
				if !yield(factKey{name: name}, value) {
					return
				}
				continue
			}
			tags, err := replicate.ParseValue(value)
			if (err != nil || tags.Kind() != replicate.MapKind) && !tags.IsNull() {
				if !yield(factKey{name: name}, value) { // nonsense, for others to say so
					return
				}
				continue
			}
			for _, tag := range tags.Map() {
				if !yield(factKey{name, tag.Name}, replicate.Values{tag}.AppendJSON(nil)) {
					return
				}
			}
		}
	}
}

func (f facts) appendTo(dst []byte) []byte {
	w := &blobWriter{dst}
	for _, one := range f {
		w.text(one.name)
		w.text(one.tag)
		w.varint(one.version.at)
		w.varint(int64(one.version.hash))
		w.text(string(one.value))
	}
	return w.dst
}

func parseFacts(blob []byte) (f facts, err error) {
	for r := (&blobReader{data: blob}); len(r.data) > 0; {
		f = append(f, fact{factKey{r.text(), r.text()}, version{r.varint(), uint64(r.varint())}, json.RawMessage(r.text())})
		if r.err != nil {
			return nil, r.err
		}
	}
	return f, nil
}

// compose makes an experiment from its record, which may be missing, and the facts learnt later.
func compose(id replicate.ID, line []byte, f facts) (replicate.Experiment, error) {
	e := replicate.Experiment{ID: id}
	if line != nil {
		r, err := repository.ParseRecord(line)
		if err != nil || r.Experiment == nil {
			return e, errBlob
		}
		e = r.Experiment.Experiment
	}
	for _, one := range f {
		if err := repository.SetField(&e, one.name, one.value); err != nil {
			return e, errBlob
		}
	}
	return e, nil
}

// lighten drops what tables do not show.
func lighten(e *replicate.Experiment) {
	e.Environment = nil
	if e.Failure != nil {
		e.Failure = &replicate.Failure{Type: e.Failure.Type, Message: e.Failure.Message}
	}
	if g := e.Git; g != nil {
		e.Git = &replicate.Git{Commit: g.Commit, Branch: g.Branch, Remote: g.Remote, Dirty: g.Dirty, Files: g.Files}
	}
	if p := e.Python; p != nil {
		e.Python = &replicate.Python{Version: p.Version, Executable: p.Executable}
	}
}
