package index

import (
	"context"
	"slices"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// Of large segments a sync reads the head alone: what it says of the commits and streams of an experiment is a digest, and the rows are fetched
// when somebody asks for one of them. Until then the experiment has a part for every such segment.
//
// Digests add up where they speak of different commits and where no deletion kills some of them. What could be otherwise is fetched at once, and the
// experiment is counted from its rows: commits in two places may be the same if their numbers lie in one range.

// part is what a segment has of an experiment and the tables do not.
type part struct {
	segment         int64 // number
	commits         int64
	from, to        int64 // the lowest and the highest seq of its commits
	earliest, after int64 // of Before of its rows
}

// isDead reports whether a deletion of the experiment kills all rows of the part.
func (p part) isDead(deletedAt int64) bool { return version{at: p.after}.killed(deletedAt) }

// isTorn reports whether it kills some.
func (p part) isTorn(deletedAt int64) bool {
	return !p.isDead(deletedAt) && version{at: p.earliest}.killed(deletedAt)
}

// seqs is a range of the numbers of commits.
type seqs struct {
	some     bool
	from, to int64
}

func (s *seqs) add(seq int64) {
	if !s.some {
		*s = seqs{true, seq, seq}
		return
	}
	s.from, s.to = min(s.from, seq), max(s.to, seq)
}

func (s seqs) meets(p part) bool { return s.some && p.commits > 0 && s.from <= p.to && p.from <= s.to }

// hasParts reports whether rows are missing that count.
func (s *state) hasParts() bool {
	return slices.ContainsFunc(s.parts, func(p part) bool { return !p.isDead(s.deletedAt) })
}

// mustFetch reports whether the digests of the parts do not add up.
func (s *state) mustFetch() bool {
	if s.hasDeletes && s.hasParts() {
		return true
	}
	seen := s.rowSeqs
	parts := slices.Clone(s.parts)
	slices.SortFunc(parts, func(a, b part) int { return int(a.from - b.from) })
	for i, p := range parts {
		switch {
		case p.isTorn(s.deletedAt):
			return true
		case p.isDead(s.deletedAt):
		case seen.meets(p), i > 0 && (seqs{true, parts[i-1].from, parts[i-1].to}).meets(p) && parts[i-1].commits > 0:
			return true
		}
	}
	return false
}

// addDigest takes in what a segment says of commits and streams that are not here.
func (s *state) addDigest(d *repository.Digest) {
	s.commits += d.Commits
	s.byCommit.Join(d.Metrics)
	s.byStream.Join(d.Streams)
	if d.Latest != nil {
		if c := (&Commit{Commit: *d.Latest}); s.latest == nil || compareCommits(s.latest, c) < 0 {
			s.latest = c
		}
	}
}

// reading of the head of one segment
type head struct {
	number   int64
	ignored  bool           // what it was merged into was read
	covered  bool           // all that it was made of is known: only what is digested of that is new
	replaces map[int64]bool // segments whose parts it stands for
}

// open finds out what the head of a segment is to the tables.
func (f *fold) open(ctx context.Context, b *repository.Body) (*head, error) {
	if h := f.heads[b.Key]; h != nil {
		return h, nil
	}
	h := &head{ignored: f.merged[b.Key], covered: len(b.Inputs) > 0, replaces: map[int64]bool{}}
	f.heads[b.Key] = h
	if !b.Part {
		for _, key := range b.Inputs {
			f.merged[key] = true
			if n, ok := f.segments[key]; ok {
				h.replaces[n] = true
			}
		}
	}
	for _, key := range b.Inputs {
		h.covered = h.covered && f.knows(key)
	}
	if n, ok := f.segments[b.Key]; ok {
		h.number = n
		return h, nil
	}
	f.lastSegment++
	h.number = f.lastSegment
	f.segments[b.Key] = h.number
	return h, f.exec(ctx, "INSERT INTO segment (number, key, body, parts) VALUES (?, ?, ?, 0)", h.number, b.Key, b.Data)
}

// digest takes in what the head of a segment says of an experiment.
func (f *fold) digest(ctx context.Context, h *head, d *repository.Digest) error {
	if h.ignored {
		return nil
	}
	p, err := f.touch(ctx, d.Experiment)
	if err != nil {
		return err
	}
	isHere := func(q part) bool { return q.segment == h.number }
	kept := slices.DeleteFunc(slices.Clone(p.parts), func(q part) bool { return h.replaces[q.segment] })
	replaced := len(kept) < len(p.parts)
	if h.covered && !replaced || slices.ContainsFunc(p.parts, isHere) {
		return nil
	}
	q := part{h.number, d.Commits, d.Seq[0], d.Seq[1], d.Before[0], d.Before[1]}
	p.parts = append(kept, q)
	p.touched = true
	if replaced {
		if p.hasRows || len(kept) > 0 {
			f.want(p)
			return nil
		}
		p.forgetCommits()
		p.byStream = spans{}
	}
	if p.mustFetch() {
		f.want(p)
	}
	if !q.isDead(p.deletedAt) {
		p.addDigest(d)
		if d.Best != nil {
			p.candidates = append(p.candidates, &Commit{Commit: *d.Best})
		}
	}
	return nil
}

// want notes that the rows of an experiment are needed before the sync ends.
func (f *fold) want(p *pending) { f.wanted[p.id] = true }

// fetchAtOnce is how many experiments' rows are in memory at a time.
const fetchAtOnce = 1000

// fetchWanted fetches the rows of what is wanted. If a segment is there no more, missing is true and what it has is still wanted, unless a
// sync has looked meanwhile for what became of it.
func (f *fold) fetchWanted(ctx context.Context, looked bool) (missing bool, err error) {
	if f.writer == nil {
		return false, nil
	}
	if err := f.flush(ctx); err != nil {
		return false, err
	}
	for len(f.wanted) > 0 {
		all := make([]replicate.ID, 0, len(f.wanted))
		for id := range f.wanted {
			all = append(all, id)
		}
		slices.Sort(all)
		clear(f.wanted)
		for some := range slices.Chunk(all, fetchAtOnce) {
			gone, err := f.fetch(ctx, some, looked)
			if err != nil {
				return false, err
			}
			if gone {
				missing = true
				f.later = append(f.later, some...)
			}
		}
	}
	for _, id := range f.later {
		f.wanted[id] = true
	}
	f.later = nil
	return missing, nil
}

// fetch fetches the rows of experiments.
func (f *fold) fetch(ctx context.Context, experiments []replicate.ID, looked bool) (missing bool, err error) {
	bodies := map[int64]*repository.Body{}
	var ids []replicate.ID
	for _, id := range experiments {
		p, err := f.touch(ctx, id)
		if err != nil {
			return false, err
		}
		if len(p.parts) > 0 {
			ids = append(ids, id)
		}
		for _, q := range p.parts {
			if bodies[q.segment] != nil {
				continue
			}
			b, err := f.body(ctx, q.segment)
			if err != nil {
				return false, err
			}
			if b != nil {
				bodies[q.segment] = b
			}
		}
	}
	list := make([]*repository.Body, 0, len(bodies))
	for _, b := range bodies {
		list = append(list, b)
	}
	var records []repository.Record
	gone, damage, err := f.repository.Rows(ctx, list, ids, func(some []repository.Record) { records = append(records, some...) })
	if err != nil {
		return false, err
	}
	f.damage = append(f.damage, damage...)
	if len(gone) > 0 && !looked {
		return true, nil
	}
	for _, id := range ids {
		p, err := f.touch(ctx, id)
		if err != nil {
			return false, err
		}
		p.parts, p.rescan = nil, true
	}
	for i := range records {
		if _, err := f.record(ctx, &records[i]); err != nil {
			return false, err
		}
	}
	return false, f.flush(ctx)
}

// body returns where the rows of a segment are, nil if what replaced it was read.
func (f *fold) body(ctx context.Context, number int64) (*repository.Body, error) {
	return readBody(f.get(ctx, "SELECT key, body FROM (SELECT 1) LEFT JOIN segment ON number = ?", number))
}

func readBody(row scanner) (*repository.Body, error) {
	var key *string
	var data []byte
	if err := row.Scan(&key, &data); err != nil || key == nil {
		return nil, err
	}
	b, err := repository.OpenBody(*key, data)
	if err != nil {
		return nil, errBlob
	}
	return b, nil
}

// countParts notes how many parts of segments an experiment has now rather than in the tables.
func (f *fold) countParts(p *pending) {
	for _, q := range p.oldParts {
		f.partCounts[q.segment]--
	}
	for _, q := range p.parts {
		f.partCounts[q.segment]++
	}
	p.oldParts = slices.Clone(p.parts)
}

// writeSegments forgets segments of which nothing is missing.
func (f *fold) writeSegments(ctx context.Context) error {
	for number, n := range f.partCounts {
		if n == 0 {
			continue
		}
		if err := f.exec(ctx, "UPDATE segment SET parts = parts + ? WHERE number = ?", n, number); err != nil {
			return err
		}
	}
	return f.exec(ctx, "DELETE FROM segment WHERE parts <= 0")
}
