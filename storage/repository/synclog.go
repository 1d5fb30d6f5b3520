package repository

import (
	"context"
	"fmt"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// readLog reads an object of new records and emits it with those that are accepted. With no way to ask for doomed packs it emits the late ones apart.
func (r *Repository) readLog(ctx context.Context, o storage.Object, doomed doomedPacks, emit func(Batch)) error {
	data, err := r.readWhole(ctx, o)
	if err != nil {
		return err
	}
	records, damage := parseLog(o.Key, data)
	batch := Batch{Key: o.Key, Records: records[:0], Err: damage, Settled: damage == nil}
	for _, record := range records {
		verdict := sound
		switch late := record.isLate(o); {
		case late && doomed == nil:
			batch.late = append(batch.late, record)
			continue
		case late:
			if verdict, err = r.judge(ctx, doomed, record.row().Packs); err != nil {
				return r.failed("read", o.Key, err)
			}
		}
		if verdict == sound {
			batch.Records = append(batch.Records, record)
		}
		batch.Settled = batch.Settled && verdict != doubtful
	}
	emit(batch)
	return nil
}

// isLate reports whether a record of the log object o landed later than it should have, so that its packs may be gone.
func (r *Record) isLate(o storage.Object) bool {
	row := r.row()
	return row != nil && len(row.Packs) > 0 && o.Time.After(row.Before)
}

// row returns what a record that carries data has in common with others of its kind, nil for all other records.
func (r *Record) row() *Row {
	switch {
	case r.Experiment != nil:
		return &r.Experiment.Row
	case r.Commit != nil:
		return &r.Commit.Row
	case r.Stream != nil:
		return &r.Stream.Row
	}
	return nil
}

// readWhole reads an object of records.
func (r *Repository) readWhole(ctx context.Context, o storage.Object) ([]byte, error) {
	data, err := readSized(ctx, r.store, o.Key, 0, MaxObject+1, min(o.Size, MaxObject))
	if err == nil && len(data) > MaxObject {
		err = &replicate.Error{Op: "read", Path: o.Key, Kind: replicate.Corrupt, Err: fmt.Errorf("larger than %d bytes", MaxObject)}
	}
	return data, err
}
