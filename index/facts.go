package index

import (
	"cmp"
	"encoding/json"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// facts are the winners among the Sets of an experiment, per field and per tag.
type facts map[factKey]fact

type factKey struct{ name, tag string }

type fact struct {
	version version
	value   json.RawMessage
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
	keys := slices.SortedFunc(maps.Keys(f), func(a, b factKey) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.tag, b.tag))
	})
	for _, k := range keys {
		w.text(k.name)
		w.text(k.tag)
		w.varint(f[k].version.at)
		w.varint(int64(f[k].version.hash))
		w.text(string(f[k].value))
	}
	return w.dst
}

func parseFacts(blob []byte) (facts, error) {
	f := facts{}
	for r := (&blobReader{data: blob}); len(r.data) > 0; {
		k := factKey{r.text(), r.text()}
		f[k] = fact{version{r.varint(), uint64(r.varint())}, json.RawMessage(r.text())}
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
	for k, fact := range f {
		if err := repository.SetField(&e, k.name, fact.value); err != nil {
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
