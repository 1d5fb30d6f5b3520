package index

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage/repository"
)

// Experiment returns an experiment by whole id, or NotFound.
func (x *Index) Experiment(ctx context.Context, id replicate.ID) (*Experiment, error) {
	return x.oneExperiment(ctx, string(id), "id = ?", idBytes(id))
}

// ByOrd returns an experiment by its ordinal, or NotFound.
func (x *Index) ByOrd(ctx context.Context, ord int64) (*Experiment, error) {
	return x.oneExperiment(ctx, fmt.Sprint("number ", ord), "ord = ?", ord)
}

func (x *Index) oneExperiment(ctx context.Context, name, where string, arg driver.Value) (e *Experiment, err error) {
	err = x.readWhole(ctx, "read experiment", func(t *reading) error {
		states, err := t.states(ctx, living.experiments+" AND "+where, arg)
		if err != nil {
			return err
		}
		if len(states) == 0 {
			return notFound("no experiment %s", name)
		}
		if e, err = t.whole(ctx, states[0]); err != nil {
			return err
		}
		return t.complete()
	})
	return e, err
}

func notFound(format string, args ...any) *replicate.Error {
	return replicate.Errorf(replicate.NotFound, format, args...)
}

// whole returns an experiment with everything that is known of it.
func (t *reading) whole(ctx context.Context, s stored) (*Experiment, error) {
	e, err := t.experiment(ctx, s)
	if err != nil {
		return nil, err
	}
	line, f, err := t.source(ctx, s.ord)
	if err != nil {
		return nil, err
	}
	full, err := compose(s.id, line, f)
	full.Created, full.Status = e.Created, e.Status
	e.Experiment = full
	return e, err
}

// source reads what an experiment is made from. Neither is there if only its commits are known.
func (t *reading) source(ctx context.Context, ord int64) (line []byte, f facts, err error) {
	var blob []byte
	err = t.QueryRowContext(ctx, "SELECT line, facts FROM doc WHERE ord = ?", ord).Scan(&line, &blob)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil, nil
	}
	if err == nil {
		f, err = parseFacts(blob)
	}
	return line, f, err
}

// compareCommits is the order of the commits of an experiment: by (seq, time, id).
func compareCommits(a, b *Commit) int {
	return cmp.Or(cmp.Compare(a.Seq, b.Seq), a.Time.Compare(b.Time), strings.Compare(string(a.ID), string(b.ID)))
}

// fromCommits is where commits are read from.
const fromCommits = "FROM commits JOIN experiment ON experiment.ord = commits.experiment WHERE "

// CommitsOf returns the living commits of an experiment by (seq, time, id).
func (x *Index) CommitsOf(ctx context.Context, experiment replicate.ID) (all []*Commit, err error) {
	err = x.readWhole(ctx, "list commits", func(t *reading) error {
		if err := t.wantAll(ctx, "id = ?", idBytes(experiment)); err != nil {
			return err
		}
		all, err = t.commits(ctx, living.commits+" AND experiment.id = ?", idBytes(experiment))
		return err
	})
	slices.SortFunc(all, compareCommits)
	return all, err
}

// Commit returns a commit by whole id, or NotFound. CommitByOrd by its ordinal.
func (x *Index) Commit(ctx context.Context, id replicate.ID) (*Commit, error) {
	c, err := x.oneCommit(ctx, string(id), "commits.id = ?", idBytes(id))
	if replicate.KindOf(err) != replicate.NotFound {
		return c, err
	}
	if err := x.complete(ctx, id); err != nil {
		return nil, err
	}
	return x.oneCommit(ctx, string(id), "commits.id = ?", idBytes(id))
}
func (x *Index) CommitByOrd(ctx context.Context, ord int64) (*Commit, error) {
	return x.oneCommit(ctx, fmt.Sprint("number ", ord), "commits.ord = ?", ord)
}

func (x *Index) oneCommit(ctx context.Context, name, where string, arg any) (c *Commit, err error) {
	err = x.read(ctx, "read commit", func(t *reading) error {
		all, err := t.commits(ctx, living.commits+" AND "+where, arg)
		if err == nil && len(all) == 0 {
			return notFound("no commit %s", name)
		}
		if err == nil {
			c = all[0]
		}
		return err
	})
	return c, err
}

func (t *reading) commits(ctx context.Context, where string, args ...any) ([]*Commit, error) {
	rows, err := t.query(ctx, "SELECT commits.ord, line, experiment.id "+fromCommits+where, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []*Commit
	for rows.Next() {
		var id []byte
		c, err := scanCommit("", with{rows, []any{&id}})
		if err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, rows.Err()
}

// Row returns what the record of a commit says of its tree and packs.
func (x *Index) Row(ctx context.Context, c *Commit) (row repository.Row, err error) {
	err = x.readWhole(ctx, "read commit", func(t *reading) error {
		var line []byte
		where, args := "ord = ?", []any{c.Ord}
		if c.Ord == 0 { // what a digest said
			if err := t.wantAll(ctx, "id = ?", idBytes(c.Experiment)); err != nil {
				return err
			}
			where, args = "id = ? AND experiment = (SELECT ord FROM experiment WHERE id = ?)", []any{idBytes(c.ID), idBytes(c.Experiment)}
		}
		err := t.QueryRowContext(ctx, "SELECT line FROM commits WHERE "+where, args...).Scan(&line)
		if errors.Is(err, sql.ErrNoRows) {
			return notFound("no commit %s", c.ID)
		}
		if err != nil {
			return err
		}
		r, err := repository.ParseRecord(line)
		if err != nil || r.Commit == nil {
			return errBlob
		}
		row = r.Commit.Row
		return nil
	})
	return row, err
}

// CodeTree returns the row of the tree that init saved.
func (x *Index) CodeTree(ctx context.Context, experiment replicate.ID) (row repository.Row, err error) {
	err = x.read(ctx, "read experiment", func(t *reading) error {
		var line []byte
		err := t.QueryRowContext(ctx, "SELECT line FROM experiment JOIN doc USING (ord) WHERE stands IN (1, 2) AND id = ?", idBytes(experiment)).Scan(&line)
		if errors.Is(err, sql.ErrNoRows) || err == nil && line == nil {
			return notFound("no experiment %s", experiment)
		}
		if err != nil {
			return err
		}
		r, err := repository.ParseRecord(line)
		if err != nil || r.Experiment == nil {
			return errBlob
		}
		row = r.Experiment.Row
		return nil
	})
	return row, err
}

// Streams returns the accepted, living rows of one stream of an experiment.
func (x *Index) Streams(ctx context.Context, experiment replicate.ID, kind repository.StreamKind) (all []repository.StreamRow, err error) {
	err = x.readWhole(ctx, "read stream", func(t *reading) error {
		if err := t.wantAll(ctx, "id = ?", idBytes(experiment)); err != nil {
			return err
		}
		rows, err := t.query(ctx, `SELECT stream.at, line, ifnull(deletion.at, 0) FROM experiment JOIN stream ON experiment.ord = stream.experiment
			LEFT JOIN deletion ON deletion.id = experiment.id WHERE experiment.id = ? AND stands IN (1, 2) AND kind = ?`, idBytes(experiment), string(kind))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var v version
			var line []byte
			var deletedAt int64
			if err := rows.Scan(&v.at, &line, &deletedAt); err != nil {
				return err
			}
			r, err := repository.ParseRecord(line)
			if err != nil || r.Stream == nil {
				return errBlob
			}
			if !v.killed(deletedAt) {
				all = append(all, *r.Stream)
			}
		}
		return rows.Err()
	})
	return all, err
}

// Records returns the newest rows of an experiment, of all its commits and of its streams, or of a commit, dead or alive: what a
// deletion kills, and what is published again to undo it.
func (x *Index) Records(ctx context.Context, id replicate.ID) (all []repository.Record, err error) {
	if err := x.complete(ctx, id); err != nil {
		return nil, err
	}
	err = x.read(ctx, "read records", func(t *reading) error {
		all = nil
		rows, err := t.query(ctx, `SELECT line FROM experiment JOIN doc USING (ord) WHERE id = ?1 AND line IS NOT NULL
			UNION ALL SELECT line FROM commits WHERE id = ?1 OR experiment = (SELECT ord FROM experiment WHERE id = ?1)
			UNION ALL SELECT line FROM stream WHERE experiment = (SELECT ord FROM experiment WHERE id = ?1)`, idBytes(id))
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var line []byte
			if err := rows.Scan(&line); err != nil {
				return err
			}
			r, err := repository.ParseRecord(line)
			if err != nil {
				return errBlob
			}
			all = append(all, r)
		}
		return rows.Err()
	})
	return all, err
}

// Changes returns the ordinals of experiments and commits that changed, came or went after a version.
func (x *Index) Changes(ctx context.Context, since int64) (experiments, commits []int64, err error) {
	// The first sync is not in the indexes of versions, as everything has its version.
	where := "WHERE version > 0"
	if since > 0 {
		where = fmt.Sprintf("WHERE version > 1 AND version > %d", since)
	}
	err = x.read(ctx, "read changes", func(t *reading) error {
		if experiments, err = t.ords(ctx, "SELECT ord FROM experiment "+where); err != nil {
			return err
		}
		commits, err = t.ords(ctx, "SELECT ord FROM commits "+where)
		return err
	})
	return experiments, commits, err
}

func (t *reading) ords(ctx context.Context, text string, args ...any) ([]int64, error) {
	return readOrds(t.query(ctx, text, args...))
}

// readOrds reads rows of one ordinal.
func readOrds(rows *sql.Rows, err error) ([]int64, error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var ords []int64
	for rows.Next() {
		var ord int64
		if err := rows.Scan(&ord); err != nil {
			return nil, err
		}
		ords = append(ords, ord)
	}
	return ords, rows.Err()
}
