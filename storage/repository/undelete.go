package repository

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/replicate/replicate"
)

// republishAtOnce bounds the lines that one object publishes again.
const republishAtOnce = 8 << 20

// Undelete publishes rows again that a deletion at some time killed, with a new Before that it does not kill. Each row needs its Line, and the
// order is kept. The error is of kind Conflict if gc has deleted packs that a row needs, or is about to; then nothing of what is left to
// publish is. To call it again does no harm.
func (r *Repository) Undelete(ctx context.Context, rows []Record, deleted time.Time) error {
	for len(rows) > 0 {
		n, size := 0, 0
		for n < len(rows) && (n == 0 || size+len(rows[n].Line) <= republishAtOnce) {
			size += len(rows[n].Line)
			n++
		}
		if err := r.republish(ctx, rows[:n], deleted); err != nil {
			return r.failed("undelete", "", err)
		}
		rows = rows[n:]
	}
	return nil
}

func (r *Repository) republish(ctx context.Context, rows []Record, deleted time.Time) error {
	seen := map[replicate.Hash]bool{}
	var needs []replicate.Hash
	for _, row := range rows {
		for _, p := range row.row().Packs {
			if !seen[p] {
				seen[p] = true
				needs = append(needs, p)
			}
		}
	}
	err := publish(ctx, r, nil, needs, func(before time.Time) ([]Record, error) {
		if (&Delete{At: deleted}).Kills(Row{Before: before}) {
			return nil, replicate.Errorf(replicate.Unavailable, "by the clock of the storage it is deleted in the future").WithHint("try again in some minutes")
		}
		again := make([]Record, len(rows))
		for i := range rows {
			var err error
			if again[i], err = rows[i].withBefore(before); err != nil {
				return nil, err
			}
		}
		return again, nil
	})
	if gone, ok := errors.AsType[errDoubtful](err); ok {
		return replicate.Errorf(replicate.Conflict, "gc has removed what it needs, or is about to: %w", gone).
			WithHint("undelete commits one by one: some may be whole")
	}
	return err
}

// withBefore returns a row with another Before and everything else as it is, also what this version does not know.
func (r *Record) withBefore(before time.Time) (Record, error) {
	const key = `"before":"`
	at := bytes.LastIndex(r.Line, []byte(key)) + len(key)
	end := bytes.IndexByte(r.Line[at:], '"')
	if at < len(key) || end < 0 {
		return Record{}, replicate.Errorf(replicate.Corrupt, "a row without a time")
	}
	line := append([]byte{}, r.Line[:at]...)
	line = before.UTC().AppendFormat(line, time.RFC3339Nano)
	again, err := ParseRecord(append(line, r.Line[at+end:]...))
	if err == nil && (again.row() == nil || !again.row().Before.Equal(before)) {
		err = replicate.Errorf(replicate.Corrupt, "the time of a row is not where it should be")
	}
	return again, err
}
