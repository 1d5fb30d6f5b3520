package repository

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// simVariants are the rules that the simulation can break, each with a seed that catches it. A change of the simulation, or of the number of store
// operations that the code makes, moves the seeds: REPLICATE_SIM_BREAK finds new ones.
var simVariants = []struct {
	name, breaks string
	seed         int64
}{
	{"listorder", "readers list index/ before log/", 28},
	{"samegen", "a merge writes into the generation that it reads", 90},
	{"delfirst", "a merge deletes its inputs before writing the output", 0},
	{"dropfar", "a merge drops a stretch superseded by one it does not write", 29},
	{"nocheck", "writers do not look at gc/ nor whether packs exist", 19},
	{"staleown", "writers never check their own pack, however old", 68},
	{"nolate", "records are believed however late they landed", 438},
	{"soundorder", "the packs of a late record are looked for before the check for doom", 637},
	{"noreread", "collectors sentence without the second look", 130},
	{"revoke", "sentences never lapse, condemned lists do", 309},
	{"lastonly", "collectors count packs per commit id, not per record", 30},
	{"sealtie", "stretches of equal range supersede each other", 2},
	{"undelnow", "an undelete republishes without checking", 95},
	{"oldrows", "rows older than a deletion count again after an undelete", 2766},
}

// unchecked reports whether the actor is told that no pack is doomed and all exist.
func (a *simActor) unchecked() bool {
	return a.w.mut == "nocheck" && a.is("writer", "streamer") || a.w.mut == "undelnow" && a.is("undeleter")
}

// stall lets an actor pause, often, where that hurts: without it some holes open once in thousands of schedules.
func (a *simActor) stall() {
	if a.w.r.Intn(3) == 0 {
		a.frozen = a.w.now + a.w.r.Int63n(4*int64(simWait/simTick))
	}
}

// brokenList lists a prefix, or does not.
func (s *simStore) brokenList(ctx context.Context, prefix string) ([]simListing, error) {
	a := s.a
	switch {
	case a.unchecked() && prefix == gcPrefix:
		return nil, nil
	case a.w.mut == "dropfar" && prefix == indexPrefix && a.is("reader", "streamer"):
		a.stall()
	case a.w.mut == "soundorder" && prefix == gcPrefix && a.is("reader", "merger"):
		if err := a.lookEarly(); err != nil {
			return nil, err
		}
	case a.w.mut == "listorder" && prefix == logPrefix:
		early, err := s.pages(indexPrefix)
		if err != nil {
			return nil, err
		}
		a.stash = map[string][]simListing{indexPrefix: early}
	case a.w.mut == "listorder" && prefix == indexPrefix && a.stash != nil:
		early := a.stash[prefix]
		a.stash = nil
		return early, nil
	}
	return s.pages(prefix)
}

// lookEarly notes which packs exist: whoever judges late records asks for that next.
func (a *simActor) lookEarly() error {
	if err := a.turn(); err != nil {
		return err
	}
	a.early = map[string]bool{}
	for key := range a.w.objects {
		if strings.HasPrefix(key, packPrefix) {
			a.early[key] = true
		}
	}
	a.stall()
	return nil
}

// listTime is the time that listings show of an object.
func (s *simStore) listTime(key string, o simObject) time.Time {
	switch {
	case s.a.w.mut == "nolate" && strings.HasPrefix(key, logPrefix):
		return simEpoch
	case s.a.w.mut == "revoke" && strings.HasSuffix(key, sentenceSuffix):
		return simEpoch
	}
	return simTime(o.mod)
}

// putTime is the time that a Put returns.
func (s *simStore) putTime(key string, data []byte) time.Time {
	return s.listTime(key, simObject{mod: s.a.w.now})
}

// brokenPut returns what is put instead, and under which key.
func (s *simStore) brokenPut(ctx context.Context, key string, data []byte) (string, []byte, error) {
	a := s.a
	_, _, isSegment := parseIndexKey(key)
	if (a.w.mut == "lastonly" || a.w.mut == "soundorder") && a.is("writer") && isLogKey(key) {
		a.stall()
	}
	switch {
	case a.w.mut == "delfirst" && isSegment:
		inputs, _, err := parseSegment(key, data)
		if err != nil {
			return "", nil, err
		}
		return key, data, s.Delete(ctx, inputs...)
	case a.w.mut == "samegen" && isSegment:
		return s.sameGeneration(key, data)
	case a.w.mut == "dropfar" && isSegment:
		return s.dropFar(ctx, key, data)
	case a.w.mut == "noreread" && strings.HasSuffix(key, sentenceSuffix),
		(a.w.mut == "lastonly" || a.w.mut == "sealtie") && strings.HasPrefix(key, gcPrefix):
		return s.alterList(key, data)
	}
	return key, data, nil
}

// brokenDelete reports whether a deletion is forgotten: that of an altered sentence, so that whoever comes next carries it out as it is.
func (s *simStore) brokenDelete(key string) bool {
	if own, ok := s.a.alias[key]; ok && strings.HasPrefix(own, gcPrefix) {
		delete(s.a.alias, key)
		return true
	}
	return false
}

// sameGeneration puts what segments were merged to where they are.
func (s *simStore) sameGeneration(key string, data []byte) (string, []byte, error) {
	inputs, _, err := parseSegment(key, data)
	if err != nil {
		return "", nil, err
	}
	if from, _, ok := parseIndexKey(inputs[0]); ok {
		s.a.alias[key] = generationPrefix(from) + strings.TrimPrefix(key, generationPrefix(from+1))
	}
	return s.key(key), data, nil
}

// dropFar drops what anything anywhere supersedes.
func (s *simStore) dropFar(ctx context.Context, key string, data []byte) (string, []byte, error) {
	whole := data
	generation, _, _ := parseIndexKey(key)
	inputs, records, err := parseSegment(key, data)
	if err != nil {
		return "", nil, err
	}
	var all []Record
	for batch, err := range s.a.repository().Sync(ctx, nothingKnown) {
		if err != nil {
			return "", nil, err
		}
		all = append(all, batch.Records...)
	}
	kept := slices.DeleteFunc(records, func(r Record) bool {
		return r.Stream != nil && slices.ContainsFunc(all, func(s Record) bool { return supersedes(&s, &r) })
	})
	other, data, err := encodeSegment(generation, kept, inputs)
	s.a.alias[key] = other
	if s.a.shown == nil {
		s.a.shown = map[string][]byte{}
	}
	s.a.shown[key] = whole
	return other, data, err
}

// supersedes is what doc.go says.
func supersedes(s, r *Record) bool {
	if s.Stream == nil || r.Stream == nil || s.Stream.key() != r.Stream.key() || s.Stream.From > r.Stream.From || s.Stream.To < r.Stream.To {
		return false
	}
	return s.Stream.From != r.Stream.From || s.Stream.To != r.Stream.To || bytes.Compare(s.Hash[:], r.Hash[:]) < 0
}

// alterList makes a list of gc name what the broken rule makes it name.
func (s *simStore) alterList(key string, data []byte) (string, []byte, error) {
	list, err := parseGCList(data)
	if err != nil {
		return "", nil, err
	}
	w := s.a.w
	names := map[replicate.Hash]bool{}
	for _, p := range list.packs {
		names[p] = true
	}
	sentence := strings.HasSuffix(key, sentenceSuffix)
	condemned := w.condemnedAt(list.Condemned)
	for p := range w.wronglyDead() {
		o, ok := w.objects[packKey(p)]
		old := ok && simTime(o.mod).Before(simTime(w.now).Add(-simAge))
		if old && (!sentence || condemned[p]) {
			names[p] = true
		}
	}
	if w.mut == "noreread" {
		names = condemned
	}
	list.packs = nil
	for p := range names {
		list.packs = append(list.packs, p)
	}
	slices.SortFunc(list.packs, func(a, b replicate.Hash) int { return bytes.Compare(a[:], b[:]) })
	if sentence {
		s.a.alias[key] = key // see brokenDelete
	}
	data, err = list.encode()
	return key, data, err
}

// condemnedAt returns what was condemned at some time.
func (w *simWorld) condemnedAt(at time.Time) map[replicate.Hash]bool {
	names := map[replicate.Hash]bool{}
	for key, o := range w.objects {
		if strings.HasSuffix(key, condemnedSuffix) && simTime(o.mod).Equal(at) {
			list, _ := parseGCList(o.data)
			for _, p := range list.packs {
				names[p] = true
			}
		}
	}
	return names
}

// wronglyDead returns the packs that a broken rule takes for dead.
func (w *simWorld) wronglyDead() map[replicate.Hash]bool {
	var rows, deletes []Record
	for _, records := range w.records {
		for _, r := range records {
			if r.row() != nil {
				rows = append(rows, r)
			} else if r.Delete != nil {
				deletes = append(deletes, r)
			}
		}
	}
	rows = alive(rows, deletes)
	dead, needed := map[replicate.Hash]bool{}, map[replicate.Hash]bool{}
	for i := range rows {
		of := needed
		if slices.ContainsFunc(rows, func(s Record) bool { return w.wronglyOutdoes(&s, &rows[i]) }) {
			of = dead
		}
		for _, p := range rows[i].row().Packs {
			of[p] = true
		}
	}
	for p := range needed {
		delete(dead, p)
	}
	return dead
}

func (w *simWorld) wronglyOutdoes(s, r *Record) bool {
	switch {
	case w.mut == "lastonly":
		return s.Commit != nil && r.Commit != nil && s.Commit.ID == r.Commit.ID && later(*s, *r)
	case w.mut == "sealtie" && s.Stream != nil && r.Stream != nil:
		equal := s.Stream.key() == r.Stream.key() && s.Stream.From == r.Stream.From && s.Stream.To == r.Stream.To && s.Hash != r.Hash
		return equal || supersedes(s, r)
	}
	return false
}
