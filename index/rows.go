package index

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
)

// batchRows is how many rows change hands at once.
const batchRows = 256

// each calls f with every row of a statement. One goroutine reads rows while f works on those before. f may keep the blobs, not the row.
func (t *reading) each(ctx context.Context, columns int, text string, f func(row []driver.Value) error, args ...driver.Value) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	batches := make(chan []driver.Value, 2)
	done := make(chan error, 1)
	go func() {
		defer close(batches)
		done <- t.send(ctx, columns, text, batches, args...)
	}()
	var failed error
	for batch := range batches {
		for ; failed == nil && len(batch) > 0; batch = batch[columns:] {
			if failed = f(batch[:columns]); failed != nil {
				stop()
			}
		}
	}
	if err := <-done; failed == nil {
		failed = err
	}
	return failed
}

// send reads all rows of a statement into batches.
func (t *reading) send(ctx context.Context, columns int, text string, to chan<- []driver.Value, args ...driver.Value) error {
	var batch []driver.Value
	put := func() error {
		select {
		case to <- batch:
			batch = nil
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	err := t.rows(ctx, columns, text, func(row []driver.Value) error {
		if batch == nil {
			batch = make([]driver.Value, 0, batchRows*columns)
		}
		if batch = append(batch, row...); len(batch) < cap(batch) {
			return nil
		}
		return put()
	}, args...)
	if err != nil || batch == nil {
		return err
	}
	return put()
}

// rows calls f with every row of a statement. It goes around database/sql, which costs as much as SQLite. f may keep the blobs, not the row.
func (t *reading) rows(ctx context.Context, columns int, text string, f func(row []driver.Value) error, args ...driver.Value) error {
	named := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	return t.Raw(func(c any) error {
		rows, err := c.(driver.QueryerContext).QueryContext(unwatched(ctx), text, named)
		if err != nil {
			return err
		}
		defer rows.Close()
		row := make([]driver.Value, columns)
		for {
			if err := rows.Next(row); errors.Is(err, io.EOF) {
				return nil
			} else if err != nil {
				return err
			}
			if err := f(row); err != nil {
				return err
			}
		}
	})
}
