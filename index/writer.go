package index

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"sync"
)

// writer is a transaction that writes beside its caller: statements are queued and run in order by a goroutine of its own, so that folding
// and SQLite share the cores. Reading waits for everything before it. It serves one goroutine.
type writer struct {
	conn       *sql.Conn
	statements map[string]*sql.Stmt // that read
	writes     map[string]driver.StmtExecContext
	queue      []call
	calls      chan []call
	left       sync.WaitGroup // calls that were sent and not run
	ended      chan struct{}  // the goroutine has
	failed     error          // of the first call that went wrong; read it when nothing is left
}

// call is a statement to run. It goes around database/sql, which takes a sixth of the time of a short one.
type call struct {
	statement driver.StmtExecContext
	args      []driver.NamedValue
}

// maxQueue is how many statements are sent at once: enough that sending costs nothing beside them.
const maxQueue = 256

// beginWrite starts a transaction, when no other process writes.
func beginWrite(ctx context.Context, db *sql.DB) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	w := &writer{conn: conn, statements: map[string]*sql.Stmt{}, writes: map[string]driver.StmtExecContext{}, calls: make(chan []call, 2), ended: make(chan struct{})}
	go w.run(unwatched(ctx))
	return w, nil
}

// unwatched is a context for single statements that take microseconds. For one that can be cancelled the driver starts a goroutine
// each time, which costs more than most statements; so ctx is asked before instead.
func unwatched(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }

func (w *writer) run(ctx context.Context) {
	defer close(w.ended)
	for calls := range w.calls {
		if w.failed == nil {
			w.failed = w.conn.Raw(func(any) error { return execAll(ctx, calls) })
		}
		w.left.Done()
	}
}

func execAll(ctx context.Context, calls []call) error {
	for _, c := range calls {
		if _, err := c.statement.ExecContext(ctx, c.args); err != nil {
			return err
		}
	}
	return nil
}

// exec runs a statement before whatever is asked for next. Its error is that of a later call. args must not change.
func (w *writer) exec(ctx context.Context, text string, args ...any) error {
	s, err := w.write(ctx, text)
	if err != nil {
		return err
	}
	values := make([]driver.NamedValue, len(args))
	for i, arg := range args {
		values[i].Ordinal = i + 1
		if values[i].Value, err = driver.DefaultParameterConverter.ConvertValue(arg); err != nil {
			return err
		}
	}
	w.queue = append(w.queue, call{s, values})
	if len(w.queue) == maxQueue {
		w.send()
	}
	return nil
}

func (w *writer) send() {
	w.left.Add(1)
	w.calls <- w.queue
	w.queue = nil
}

// settle waits until everything was run.
func (w *writer) settle() error {
	if len(w.queue) > 0 {
		w.send()
	}
	w.left.Wait()
	return w.failed
}

// write prepares a statement that writes, once.
func (w *writer) write(ctx context.Context, text string) (s driver.StmtExecContext, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s := w.writes[text]; s != nil {
		return s, nil
	}
	if err := w.settle(); err != nil {
		return nil, err
	}
	err = w.conn.Raw(func(c any) error {
		prepared, err := c.(driver.ConnPrepareContext).PrepareContext(unwatched(ctx), text)
		if err == nil {
			s = prepared.(driver.StmtExecContext)
			w.writes[text] = s
		}
		return err
	})
	return s, err
}

// statement prepares a statement that reads, once.
func (w *writer) statement(ctx context.Context, text string) (*sql.Stmt, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if s := w.statements[text]; s != nil {
		return s, nil
	}
	if err := w.settle(); err != nil {
		return nil, err
	}
	s, err := w.conn.PrepareContext(ctx, text)
	if err == nil {
		w.statements[text] = s
	}
	return s, err
}

// scanner is a row, or the error that there is none.
type scanner interface{ Scan(dest ...any) error }

type failed struct{ err error }

func (f failed) Scan(...any) error { return f.err }

func (w *writer) get(ctx context.Context, text string, args ...any) scanner {
	s, err := w.statement(ctx, text)
	if err == nil {
		err = w.settle()
	}
	if err != nil {
		return failed{err}
	}
	return s.QueryRowContext(unwatched(ctx), args...)
}

func (w *writer) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	s, err := w.statement(ctx, text)
	if err == nil {
		err = w.settle()
	}
	if err != nil {
		return nil, err
	}
	return s.QueryContext(unwatched(ctx), args...)
}

// commit ends the transaction, if everything went well.
func (w *writer) commit(ctx context.Context) error {
	err := w.settle()
	if err == nil {
		_, err = w.conn.ExecContext(unwatched(ctx), "COMMIT")
	}
	if err != nil {
		w.rollback(ctx)
		return err
	}
	return w.close()
}

// rollback undoes everything.
func (w *writer) rollback(ctx context.Context) {
	w.settle()                                     // what it says no longer matters
	w.conn.ExecContext(unwatched(ctx), "ROLLBACK") // fails if SQLite did it by itself
	w.close()
}

func (w *writer) close() error {
	close(w.calls)
	<-w.ended
	for _, s := range w.statements {
		s.Close()
	}
	w.conn.Raw(func(any) error {
		for _, s := range w.writes {
			s.(driver.Stmt).Close()
		}
		return nil
	})
	return w.conn.Close()
}
