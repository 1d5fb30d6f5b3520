package index

import (
	"context"
	"database/sql/driver"
	"errors"
	"io"
)

// batchRows is how many rows change hands at once.
const batchRows = 256

// each calls f with every row of a statement. It goes around database/sql, which costs as much as SQLite, and one goroutine reads rows
// while f works on those before. f may keep the blobs, not the row.
func (t *reading) each(ctx context.Context, columns int, text string, f func(row []driver.Value) error, args ...driver.Value) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	batches := make(chan []driver.Value, 2)
	done := make(chan error, 1)
	go func() {
		defer close(batches)
		done <- t.Raw(func(c any) error { return send(ctx, c.(driver.QueryerContext), columns, text, args, batches) })
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
func send(ctx context.Context, c driver.QueryerContext, columns int, text string, args []driver.Value, to chan<- []driver.Value) error {
	named := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		named[i] = driver.NamedValue{Ordinal: i + 1, Value: arg}
	}
	rows, err := c.QueryContext(unwatched(ctx), text, named)
	if err != nil {
		return err
	}
	defer rows.Close()
	for {
		batch := make([]driver.Value, batchRows*columns)
		n := 0
		for n < len(batch) && err == nil {
			if err = rows.Next(batch[n : n+columns]); err == nil {
				n += columns
			}
		}
		select {
		case to <- batch[:n]:
		case <-ctx.Done():
			return ctx.Err()
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
