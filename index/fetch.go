package index

import (
	"context"
	"database/sql"
	"errors"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// needs is the error of a reading that needs rows which are not here.
type needs struct{ experiments []replicate.ID }

func (*needs) Error() string { return "rows are to be fetched" }

// fetchAgain is how often a reading may need more: once or twice, and again if others sync meanwhile.
const fetchAgain = 8

// readWhole is read for an f that may say what it needs: then that is fetched, and f runs again.
func (x *Index) readWhole(ctx context.Context, op string, f func(t *reading) error) error {
	for again := 0; ; again++ {
		err := x.read(ctx, op, f)
		var n *needs
		if !errors.As(err, &n) {
			return err
		}
		if again == fetchAgain {
			return wrap(op, errors.New("rows go missing again and again"))
		}
		if err := x.fetch(ctx, n.experiments); err != nil {
			return wrap(op, err)
		}
	}
}

// fetch fetches the rows of experiments that are not here. A segment that is gone was merged, and Sync finds into what.
func (x *Index) fetch(ctx context.Context, experiments []replicate.ID) error {
	missing, err := x.fetchOnce(ctx, experiments, false)
	if err != nil || !missing {
		return err
	}
	if _, err := x.Sync(ctx); err != nil {
		return err
	}
	_, err = x.fetchOnce(ctx, experiments, true)
	return err
}

func (x *Index) fetchOnce(ctx context.Context, experiments []replicate.ID, looked bool) (missing bool, err error) {
	x.syncing.Lock()
	defer x.syncing.Unlock()
	err = x.use(ctx, func(db *sql.DB) error {
		f := &fold{db: db, repository: x.repository, options: &x.options, still: true}
		defer f.rollback(ctx)
		if err := f.begin(ctx); err != nil {
			return err
		}
		for _, id := range experiments {
			f.wanted[id] = true
		}
		if missing, err = f.fetchWanted(ctx, looked); err != nil {
			return err
		}
		if err := f.commit(ctx, nil); err != nil {
			return err
		}
		x.version.Store(f.version)
		x.damage = append(x.damage, f.damage...)
		return nil
	})
	return missing, err
}

// complete makes sure that the rows of an experiment, or of that of a commit, are here. An id of neither is searched for.
func (x *Index) complete(ctx context.Context, id replicate.ID) error {
	known := false
	err := x.readWhole(ctx, "read rows", func(t *reading) error {
		err := t.wantAll(ctx, "id = ?1 OR ord IN (SELECT experiment FROM commits WHERE id = ?1)", idBytes(id))
		if err != nil {
			return err
		}
		return t.QueryRowContext(ctx, "SELECT EXISTS (SELECT 1 FROM experiment WHERE id = ?1) OR EXISTS (SELECT 1 FROM commits WHERE id = ?1)", idBytes(id)).Scan(&known)
	})
	if err != nil || known {
		return err
	}
	return x.search(ctx, string(id))
}

// wantAll returns needs if rows of experiments are not here.
func (t *reading) wantAll(ctx context.Context, where string, args ...any) error {
	rows, err := t.query(ctx, "SELECT id FROM experiment WHERE parts > 0 AND ("+where+")", args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	n := &needs{}
	for rows.Next() {
		var id []byte
		if err := rows.Scan(&id); err != nil {
			return err
		}
		n.experiments = append(n.experiments, idOf(id))
	}
	if err := rows.Err(); err != nil || len(n.experiments) == 0 {
		return err
	}
	return n
}

// Complete fetches all rows that are not here: for who lists every commit there is.
func (x *Index) Complete(ctx context.Context) error {
	return x.readWhole(ctx, "read rows", func(t *reading) error { return t.wantAll(ctx, "1") })
}

// search fetches what has a commit whose id begins with a prefix, as far as it is not here.
func (x *Index) search(ctx context.Context, prefix string) error {
	for looked := false; ; looked = true {
		bodies, err := x.bodies(ctx)
		if err != nil || len(bodies) == 0 {
			return err
		}
		meant := make(chan error, 1)
		go func() { meant <- x.fetchMeant(ctx, prefix) }()
		found, gone, _, err := x.repository.Named(ctx, bodies, prefix)
		if err = errors.Join(err, <-meant); err != nil {
			return err
		}
		if len(gone) == 0 || looked {
			return x.fetchNamed(ctx, found)
		}
		if _, err := x.Sync(ctx); err != nil {
			return err
		}
	}
}

// fetchMeant fetches the rows of the experiment whose own id begins with a prefix, if there is one only. It is the one that is probably meant: a
// search that waits for an answer has them a round trip earlier.
func (x *Index) fetchMeant(ctx context.Context, prefix string) error {
	from, to, ok := idRange(prefix)
	if !ok {
		return nil
	}
	var n *needs
	err := x.read(ctx, "find", func(t *reading) error { return t.wantAll(ctx, "id BETWEEN ? AND ?", from, to) })
	if !errors.As(err, &n) {
		return err
	}
	if len(n.experiments) > 1 {
		return nil
	}
	return x.fetch(ctx, n.experiments)
}

// fetchNamed fetches the rows of experiments, given the beginnings of their ids.
func (x *Index) fetchNamed(ctx context.Context, beginnings []string) error {
	var all []replicate.ID
	err := x.read(ctx, "find", func(t *reading) error {
		all = nil
		for _, beginning := range beginnings[:min(len(beginnings), maxCandidates)] {
			from, to, ok := idRange(beginning)
			if !ok {
				return errBlob
			}
			var n *needs
			if err := t.wantAll(ctx, "id BETWEEN ? AND ?", from, to); errors.As(err, &n) {
				all = append(all, n.experiments...)
			} else if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || len(all) == 0 {
		return err
	}
	return x.fetch(ctx, all)
}

// bodies returns where the rows are that are not here.
func (x *Index) bodies(ctx context.Context) (all []*repository.Body, err error) {
	err = x.read(ctx, "find", func(t *reading) error {
		all = nil
		rows, err := t.query(ctx, "SELECT key, body FROM segment")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			b, err := readBody(rows)
			if err != nil {
				return err
			}
			all = append(all, b)
		}
		return rows.Err()
	})
	return all, err
}

// searchFor fetches what a person may mean: what has a commit of that prefix, unless the whole id is known.
func (x *Index) searchFor(ctx context.Context, ref string) error {
	if !replicate.IsPrefix(ref) {
		return nil
	}
	if id, err := replicate.ParseID(ref); err == nil {
		return x.complete(ctx, id)
	}
	return x.search(ctx, ref)
}
