package index

import (
	"context"
	"database/sql/driver"
	"strings"
)

// insertion is rows of one table that wait for more, as one statement for many rows costs SQLite half of what one for each does.
type insertion struct {
	one, many string // statements for a row and for rowsAtOnce of them
	columns   int
	values    []driver.Value
}

// rowsAtOnce is how many rows one statement inserts.
const rowsAtOnce = 16

// insert adds a row to a table, given as "name (column, …)", before whatever is asked for next. Rows are numbered in the order of insert, on from the
// last one of the table. One that is there is an error of all that the writer does: so, and as no number is given that might be none, the statement for
// many need not be able to undo some of them, for which SQLite would copy every page that it changes.
func (w *writer) insert(ctx context.Context, into string, args ...any) (err error) {
	n := w.inserts[into]
	if n == nil {
		one := "(?" + strings.Repeat(", ?", len(args)-1) + ")"
		text := "INSERT OR ROLLBACK INTO " + into + " VALUES " + one
		n = &insertion{one: text, many: text + strings.Repeat(", "+one, rowsAtOnce-1), columns: len(args)}
		w.inserts[into] = n
	}
	if n.values, err = appendValues(n.values, args); err != nil || len(n.values) < rowsAtOnce*n.columns {
		return err
	}
	err = w.enqueue(ctx, n.many, n.values)
	n.values = n.values[:0]
	return err
}

// insertRest inserts the rows that wait.
func (w *writer) insertRest(ctx context.Context) error {
	for _, n := range w.inserts {
		for values := n.values; len(values) > 0; values = values[n.columns:] {
			if err := w.enqueue(ctx, n.one, values[:n.columns]); err != nil {
				return err
			}
		}
		n.values = n.values[:0]
	}
	return nil
}
