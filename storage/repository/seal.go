package repository

import (
	"context"
	"encoding/json"
)

// Sealing writes the pieces of a stream again, in as few frames as possible: a run of a week publishes 20,000 pieces, and a reader should not
// have to fetch them one by one. The new rows supersede those whose ranges they contain, so they begin and end where pieces do.

// sealAfter is how many pieces of a stream may be unsealed.
const sealAfter = 256

// An edge is where a piece of a stream ends and the next begins.
type edge struct{ position, offset int64 }

// MarshalJSON writes [position,offset].
func (e edge) MarshalJSON() ([]byte, error) { return json.Marshal([2]int64{e.position, e.offset}) }

// UnmarshalJSON reads it.
func (e *edge) UnmarshalJSON(text []byte) error {
	var pair [2]int64
	err := json.Unmarshal(text, &pair)
	*e = edge{pair[0], pair[1]}
	return err
}

// seal publishes the unsealed pieces of both streams again, as far as that makes less of them. The caller has the turn.
func (s *streams) seal(ctx context.Context) error {
	for _, st := range s.list {
		for len(st.published.Edges) > 2 {
			pieces, done, err := st.merge()
			if err == nil && len(pieces) > 0 {
				err = s.publish(ctx, pieces)
			}
			if err != nil {
				return err
			}
			st.published.Seq += int64(len(pieces))
			st.published.Edges = st.published.Edges[done:]
		}
		if n := len(st.published.Edges); n > 1 {
			st.published.Edges = st.published.Edges[n-1:] // what is left is one piece
		}
	}
	s.remember()
	return nil
}

// merge reads some of the unsealed pieces together, and returns how many edges that passes. Pieces that are alone need nothing.
func (s *stream) merge() (pieces []*piece, done int, err error) {
	edges := s.published.Edges
	for total := int64(0); done+1 < len(edges) && total < flushAtOnce; {
		from, next := edges[done], done+1
		for next+1 < len(edges) && edges[next+1].offset-from.offset <= maxPiece {
			next++
		}
		if next > done+1 {
			p, err := s.between(from, edges[next], s.published.Seq+int64(len(pieces)))
			if err != nil {
				return nil, 0, err
			}
			pieces = append(pieces, p)
			total += int64(len(p.raw))
		}
		done = next
	}
	return pieces, done, nil
}

// between reads the piece between two edges.
func (s *stream) between(from, to edge, seq int64) (*piece, error) {
	raw := make([]byte, to.offset-from.offset)
	if _, err := s.file.ReadAt(raw, from.offset); err != nil {
		return nil, err
	}
	m := mark{Position: from.position, Offset: from.offset, Seq: seq}
	if s.kind == OutputStream {
		return newPiece(s.kind, raw, m, int64(len(raw)), nil), nil
	}
	points, summary := summarizeLines(raw, from.position)
	return newPiece(s.kind, raw, m, points, summary), nil
}
