package repository

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// restore stores again what a batch needs of packs that are condemned or gone: the same bytes, from the project if a file still is what it
// was, else from the pack itself, which is readable for as long as it is condemned. The ready files are rewritten and get published with the next batch.
func (u *uploader) restore(ctx context.Context, b *batch, packs []replicate.Hash) error {
	if err := u.addDoubt(packs); err != nil {
		return err
	}
	avoid := u.spool.doubtful()
	for i, name := range b.names {
		changed := false
		for k := range b.records[i] {
			r := &b.records[i][k]
			row := r.row()
			if row == nil || !slices.ContainsFunc(row.Packs, func(p replicate.Hash) bool { return avoid[p] }) {
				continue
			}
			if err := u.restoreRecord(ctx, r, avoid); err != nil {
				return err
			}
			changed = true
		}
		if !changed {
			continue
		}
		if err := u.rewriteReady(name, b.records[i]); err != nil {
			return err
		}
	}
	return nil
}

// addDoubt makes writers avoid packs.
func (u *uploader) addDoubt(packs []replicate.Hash) error {
	known := u.spool.doubtful()
	for _, p := range packs {
		known[p] = true
		u.puts.forget(p)
		delete(u.seen, p)
	}
	u.saveSeen(u.seen)
	var text []byte
	for p := range known {
		text = fmt.Appendf(text, "%s\n", p)
	}
	return ReplaceFile(u.path(doubtName), text)
}

// restoreRecord replaces the row of a record by one that needs none of the packs to be avoided.
func (u *uploader) restoreRecord(ctx context.Context, r *Record, avoid map[replicate.Hash]bool) error {
	row := r.row()
	tree, err := u.repo.Tree(ctx, *row)
	if replicate.KindOf(err) == replicate.Unavailable || ctx.Err() != nil {
		return err
	}
	if err != nil {
		u.report.warn(fmt.Sprintf("the files of %s are lost: %v", nameOf(r), err))
		row.Tree, row.Packs, row.Lost = nil, nil, []string{"/"}
		return nil
	}
	build := u.path("." + readyName + "-build")
	if err := os.MkdirAll(build, 0o700); err != nil {
		return err
	}
	info, err := ReadOutbox(u.dir)
	if err != nil {
		return err
	}
	s := &snapshot{
		project: &project{root: info.Root, build: build, repository: u.repo, random: u.spool.random, clock: func() time.Time { return time.Time{} }},
		parent:  &state{row: *row, tree: tree, recipes: map[Ref]*recipe{}, recent: &recentChunks{}},
		paths:   []string{}, avoid: avoid,
	}
	t, err := s.take(ctx, func(t *Tree, added int64) Record { return r.noted(t, added) })
	if err != nil {
		return err
	}
	for _, p := range t.packs {
		if err := os.Rename(p.path, u.path(packsName, p.name.String())); err != nil {
			return err
		}
	}
	*r = r.noted(t.tree, t.added)
	row = r.row()
	row.Tree, row.Packs, row.Before = t.row.Tree, t.row.Packs, time.Time{}
	for _, l := range t.leftOut {
		row.Lost = append(row.Lost, l.Path)
	}
	if len(row.Lost) > 0 {
		u.report.warn(fmt.Sprintf("%s of %s are lost: the packs were deleted, and the files have changed", strings.Join(row.Lost, ", "), nameOf(r)))
	}
	return errors.Join(syncPath(u.path(packsName)), os.RemoveAll(build))
}

// noted is the record with what a tree says of itself.
func (r *Record) noted(t *Tree, added int64) Record {
	copied := Record{Experiment: r.Experiment, Commit: r.Commit}
	copied.copyRow()
	if c := copied.Commit; c != nil {
		c.Files, c.Bytes, c.Added = t.Files, t.Bytes, c.Added+added
	}
	return copied
}

// nameOf is what people call what a record is about.
func nameOf(r *Record) string {
	switch {
	case r.Commit != nil:
		return "commit " + r.Commit.ID.Short()
	case r.Experiment != nil:
		return "experiment " + r.Experiment.ID.Short()
	}
	return "a stream"
}

// rewriteReady replaces a ready file, durably, and keeps its name.
func (u *uploader) rewriteReady(name string, records []Record) error {
	for i := range records {
		records[i].Line = nil
	}
	_, object, err := encodeAll(records)
	if err != nil {
		return err
	}
	return replaceDurably(u.path(readyName, name), object)
}
