package repository

import (
	"bytes"
	"cmp"
	"slices"
	"time"

	"github.com/replicate/replicate"
)

// drop removes what nobody needs any more: rows that a deletion before old, in the same merge, has killed; stretches of streams that another one
// of the same merge supersedes; digests, which are made anew. Deletions stay for ever.
//
// That the reason is in the same merge is essential: a reader that listed log/ before the reason was there, and index/ after it was merged
// elsewhere, would see neither.
func (m *merger) drop(old time.Time) {
	var deletes, rows, others []Record
	for _, r := range m.records {
		switch {
		case r.row() != nil:
			rows = append(rows, r)
			continue
		case r.Delete != nil && r.Delete.At.Before(old):
			deletes = append(deletes, r)
		case r.Digest != nil:
			continue
		}
		others = append(others, r)
	}
	m.records = append(others, m.unsuperseded(alive(rows, deletes))...)
}

// unsuperseded drops the stretches of streams that another row supersedes for good: one that did not land late, as that supersedes nothing before it is
// merged, and that no deletion can kill without killing both.
func (m *merger) unsuperseded(rows []Record) (kept []Record) {
	streams := map[streamKey][]Record{}
	for _, r := range rows {
		if r.Stream == nil {
			kept = append(kept, r)
			continue
		}
		streams[r.Stream.key()] = append(streams[r.Stream.key()], r)
	}
	for _, rows := range streams {
		slices.SortFunc(rows, widestFirst)
		var wide []Record // those that can supersede what follows: none of them reaches further and is younger than another
		for _, r := range rows {
			outdoes := func(s Record) bool { return s.Stream.To >= r.Stream.To && !s.Stream.Before.Before(r.Stream.Before) }
			if slices.ContainsFunc(wide, outdoes) {
				continue
			}
			kept = append(kept, r)
			if !m.late[r.Hash] {
				wide = slices.DeleteFunc(wide, func(s Record) bool {
					return s.Stream.To <= r.Stream.To && !s.Stream.Before.After(r.Stream.Before)
				})
				wide = append(wide, r)
			}
		}
	}
	return kept
}

// A streamKey says whose stream a row is of.
type streamKey struct {
	experiment replicate.ID
	stream     StreamKind
	writer     string
}

func (s *StreamRow) key() streamKey { return streamKey{s.Experiment, s.Stream, s.Writer} }

// widestFirst sorts the rows of one writer's stream so that none is superseded by one that follows.
func widestFirst(a, b Record) int {
	return cmp.Or(cmp.Compare(a.Stream.From, b.Stream.From), cmp.Compare(b.Stream.To, a.Stream.To), bytes.Compare(a.Hash[:], b.Hash[:]))
}

// halves sorts records into two parts: by experiment, if there are several.
func halves(records []Record) (a, b []Record) {
	all := placed(records)
	slices.SortStableFunc(all, func(p, q position) int { return cmp.Compare(p.experiment, q.experiment) })
	at := len(all) / 2
	for _, step := range []int{-1, 1} { // to the nearest border below the middle, else above
		for i := at; i > 0 && i < len(all); i += step {
			if all[i].experiment != all[i-1].experiment {
				return recordsOf(all[:i]), recordsOf(all[i:])
			}
		}
	}
	return recordsOf(all[:at]), recordsOf(all[at:])
}

func recordsOf(all []position) []Record {
	records := make([]Record, len(all))
	for i, p := range all {
		records[i] = *p.Record
	}
	return records
}
