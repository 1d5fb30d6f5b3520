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
	inserts    map[string]*insertion
	queue      *queue
	queues     chan *queue
	spare      chan *queue    // those that were run
	left       sync.WaitGroup // those that were sent and not run
	ended      chan struct{}  // the goroutine has
	failed     error          // of the first call that went wrong; read it when nothing is left
}

// queue is statements to run. They go around database/sql, which takes a sixth of the time of a short one.
type queue struct {
	calls []call
	args  []driver.NamedValue // of all calls
}

type call struct {
	statement driver.StmtExecContext
	from, to  int // where its args are
}

// maxQueue is how many statements are sent at once: enough that sending costs nothing beside them. queuesAtOnce is how many times that may wait, so
// that SQLite need not rest while an experiment is folded.
const (
	maxQueue     = 64
	queuesAtOnce = 8
)

// beginWrite starts a transaction, when no other process writes.
func beginWrite(ctx context.Context, db *sql.DB) (*writer, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	w := &writer{conn: conn, statements: map[string]*sql.Stmt{}, writes: map[string]driver.StmtExecContext{},
		inserts: map[string]*insertion{}, queue: &queue{}, queues: make(chan *queue, queuesAtOnce), spare: make(chan *queue, queuesAtOnce), ended: make(chan struct{})}
	go w.run(unwatched(ctx))
	return w, nil
}

// unwatched is a context for single statements that take microseconds. For one that can be cancelled the driver starts a goroutine
// each time, which costs more than most statements; so ctx is asked before instead.
func unwatched(ctx context.Context) context.Context { return context.WithoutCancel(ctx) }

func (w *writer) run(ctx context.Context) {
	defer close(w.ended)
	for q := range w.queues {
		if w.failed == nil {
			w.failed = w.conn.Raw(func(any) error { return q.exec(ctx) })
		}
		q.calls, q.args = q.calls[:0], q.args[:0]
		select {
		case w.spare <- q:
		default:
		}
		w.left.Done()
	}
}

func (q *queue) exec(ctx context.Context) error {
	for _, c := range q.calls {
		if _, err := c.statement.ExecContext(ctx, q.args[c.from:c.to]); err != nil {
			return err
		}
	}
	return nil
}

// exec runs a statement before whatever is asked for next. Its error is that of a later call. args must not change.
func (w *writer) exec(ctx context.Context, text string, args ...any) error {
	if err := w.insertRest(ctx); err != nil {
		return err
	}
	values, err := appendValues(nil, args)
	if err != nil {
		return err
	}
	return w.enqueue(ctx, text, values)
}

// enqueue runs a statement some time.
func (w *writer) enqueue(ctx context.Context, text string, values []driver.Value) error {
	s, err := w.write(ctx, text)
	if err != nil {
		return err
	}
	q := w.queue
	from := len(q.args)
	for i, v := range values {
		q.args = append(q.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	q.calls = append(q.calls, call{s, from, len(q.args)})
	if len(q.calls) == maxQueue {
		w.send()
	}
	return nil
}

func appendValues(values []driver.Value, args []any) ([]driver.Value, error) {
	for _, arg := range args {
		v, err := driver.DefaultParameterConverter.ConvertValue(arg)
		if err != nil {
			return nil, err
		}
		values = append(values, v)
	}
	return values, nil
}

func (w *writer) send() {
	w.left.Add(1)
	w.queues <- w.queue
	select {
	case w.queue = <-w.spare:
	default:
		w.queue = &queue{}
	}
}

// settle waits until everything was run.
func (w *writer) settle(ctx context.Context) error {
	if err := w.insertRest(ctx); err != nil {
		return err
	}
	return w.drain()
}

// drain waits until everything in the queue was run.
func (w *writer) drain() error {
	if len(w.queue.calls) > 0 {
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
	if err := w.drain(); err != nil {
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
	if err := w.settle(ctx); err != nil {
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
		err = w.settle(ctx)
	}
	if err != nil {
		return failed{err}
	}
	return s.QueryRowContext(unwatched(ctx), args...)
}

func (w *writer) query(ctx context.Context, text string, args ...any) (*sql.Rows, error) {
	s, err := w.statement(ctx, text)
	if err == nil {
		err = w.settle(ctx)
	}
	if err != nil {
		return nil, err
	}
	return s.QueryContext(unwatched(ctx), args...)
}

// commit ends the transaction, if everything went well.
func (w *writer) commit(ctx context.Context) error {
	err := w.settle(ctx)
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
	w.drain()                                      // what it says no longer matters
	w.conn.ExecContext(unwatched(ctx), "ROLLBACK") // fails if SQLite did it by itself
	w.close()
}

func (w *writer) close() error {
	close(w.queues)
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
