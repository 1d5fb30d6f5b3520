package repository

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/replicate/replicate"
)

// Now returns the store's clock, for a record to be appended. Where none can be, it says so.
func (r *Repository) Now(ctx context.Context) (time.Time, error) {
	if err := r.writable(); err != nil {
		return time.Time{}, err
	}
	return r.store.Now(ctx)
}

// writable refuses where there is no repository of this format.
func (r *Repository) writable() error {
	if !r.readOnly {
		return nil
	}
	return &replicate.Error{Op: "write to", Path: r.store.URL(), Kind: replicate.Permission,
		Err: errors.New("an old format, which is only read"), Hint: "replicate copy OLD NEW makes a repository of it that can be changed"}
}

// Append publishes records that need no packs, as one object: facts about experiments, deletions, rows without files. All of
// them are visible when it returns, or none. Each must have been made by Record.Encode.
func (r *Repository) Append(ctx context.Context, records ...Record) error {
	if err := r.writable(); err != nil {
		return err
	}
	for _, record := range records {
		if row := record.row(); row != nil && len(row.Packs) > 0 {
			return &replicate.Error{Op: "append", Path: string(record.Line[:min(60, len(record.Line))]), Kind: replicate.Internal,
				Err: replicate.Errorf(replicate.Internal, "the record needs packs")}
		}
	}
	key, object := encodeLog(records)
	_, err := r.store.Put(ctx, key, bytes.NewReader(object), int64(len(object)))
	return err
}
