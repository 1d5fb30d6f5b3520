package repository

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/replicate/replicate"
)

// filesName is the folder of an importer that holds the files of the next row.
const filesName = "files"

// An importer makes rows of files that come from another format. They are put into its folder first, and everything there is taken: no rule
// leaves anything out.
type importer struct {
	spool   *Spool
	own     *writerDir
	project *project
	state
}

// newImporter makes an importer for the rows of one experiment. It begins with an empty folder.
func (s *Spool) newImporter(experiment replicate.ID) (*importer, error) {
	if err := os.MkdirAll(s.path(), 0o700); err != nil {
		return nil, err
	}
	own, err := s.newWriterDir(experiment, true)
	if err != nil {
		return nil, err
	}
	im := &importer{spool: s, own: own, project: &project{
		root: filepath.Join(own.dir, filesName), everything: true, build: filepath.Join(own.dir, buildName),
		repository: s.repository, random: s.random, clock: func() time.Time { return time.Time{} },
	}}
	im.tree, im.recipes, im.recent = &Tree{}, map[Ref]*recipe{}, &recentChunks{}
	if err := os.Mkdir(im.files(), 0o700); err != nil {
		return nil, errors.Join(err, own.remove())
	}
	return im, nil
}

// files is the folder for the files of the next row.
func (im *importer) files() string { return im.project.root }

// follow makes the next row build on another: what they have in common is stored once.
func (im *importer) follow(ctx context.Context, row Row) (err error) {
	im.row = row
	im.tree, err = im.spool.repository.Tree(ctx, row)
	return err
}

// take stores what is in the folder and empties that. note makes the record for the pack. Packs to avoid are those that were removed.
func (im *importer) take(ctx context.Context, note func(t *Tree, added int64) Record, avoid map[replicate.Hash]bool) (*taken, error) {
	s := &snapshot{project: im.project, parent: &im.state, paths: []string{""}, avoid: avoid}
	t, err := s.take(ctx, note)
	if err == nil && len(t.leftOut) > 0 {
		t.discard()
		err = replicate.Errorf(replicate.Internal, "%s: %s", t.leftOut[0].Path, t.leftOut[0].Why)
	}
	return t, err
}

// next makes the folder ready for the next row, which builds on the one that was taken.
func (im *importer) next(t *taken) error {
	im.state = t.state
	im.state.files = nil // they are others from now on
	for _, x := range t.chunks {
		im.recent.add(x)
	}
	return im.clear()
}

// clear empties the folder.
func (im *importer) clear() error {
	if err := os.RemoveAll(im.files()); err != nil {
		return err
	}
	return os.Mkdir(im.files(), 0o700)
}

func (im *importer) close() { _ = im.own.remove() }
