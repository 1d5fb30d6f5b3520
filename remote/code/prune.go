package code

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/replicate/replicate"
)

// treesDir is where a directory of chunks keeps the manifests of trees that were received, by name.
const treesDir = "trees"

// keepTree keeps a manifest, from before its chunks are asked for. It replaces an earlier one of the name.
func (c chunks) keepTree(name string, manifest []byte) error {
	dir := filepath.Join(c.dir, treesDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return writeWhole(filepath.Join(dir, name), manifest)
}

// PruneOptions say what to delete from a directory of chunks.
type PruneOptions struct {
	Now    time.Time         // by the clock of the machine that has the directory
	Unused time.Duration     // how long no Receive has used what is deleted
	Keep   func(string) bool // reports whether a tree is needed: its chunks stay however old they are. nil: none is
	DryRun bool              // delete nothing, and return what would be
}

// Pruned is what Prune deleted.
type Pruned struct {
	Chunks int   `json:"chunks"`
	Bytes  int64 `json:"bytes"`
}

// Prune deletes chunks that are in no tree that is needed or was begun within a day, and that no Receive has used for long; trees that are
// neither; and what killed ones left half written.
//
// It may run beside a Receive, and takes no lock that one would wait for. Who says that it has a chunk has made that chunk young by then (has), and Prune
// looks at the age of each just before it deletes it. Between these two lies a moment, and in it a Receive may say that it has what is gone when it
// wants to read it: that one finds out, as it reads every byte before the tree is in place, and asks again. One Prune can take a chunk from it once,
// and it asks maxRounds times.
func Prune(dir string, o PruneOptions) (Pruned, error) {
	p := pruning{PruneOptions: o, chunks: chunks{dir}, needed: map[replicate.Hash]bool{}}
	err := p.trees()
	if err == nil {
		err = filepath.WalkDir(dir, p.visit)
	}
	return p.pruned, problem("prune", dir, err)
}

type pruning struct {
	PruneOptions
	chunks chunks
	needed map[replicate.Hash]bool
	pruned Pruned
}

// trees notes the chunks of the trees that stay.
func (p *pruning) trees() error {
	dir := filepath.Join(p.chunks.dir, treesDir)
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range list {
		path := filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil {
			continue // another one deleted it
		}
		begun := p.Now.Sub(info.ModTime()) < freshFor // by a run that whoever calls may not know yet
		if !begun && (p.Keep == nil || !p.Keep(e.Name())) {
			if err := p.remove(path); err != nil {
				return err
			}
			continue
		}
		if err := p.need(path); err != nil {
			return err
		}
	}
	return err
}

// need notes the chunks of a tree. One that is damaged says nothing: its chunks stay while they are young, and are sent again when they are not there.
func (p *pruning) need(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	tree, err := ParseManifest(data)
	if err != nil {
		return nil
	}
	for i := range tree.Entries {
		for _, piece := range tree.Entries[i].Pieces {
			p.needed[piece.Hash] = true
		}
	}
	return nil
}

// visit deletes a file that is a chunk nobody needs, or half of something.
func (p *pruning) visit(path string, e fs.DirEntry, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case e.IsDir() && path == filepath.Join(p.chunks.dir, treesDir):
		return fs.SkipDir
	case !e.Type().IsRegular():
		return nil
	}
	info, err := e.Info()
	if err != nil {
		return nil // another one deleted it
	}
	age := p.Now.Sub(info.ModTime())
	if strings.HasPrefix(e.Name(), tempName) {
		if age < freshFor {
			return nil
		}
	} else if h, err := replicate.ParseHash(e.Name()); age < p.Unused+freshFor || err == nil && p.needed[h] {
		return nil
	}
	if err := p.remove(path); err != nil {
		return err
	}
	p.pruned.Chunks, p.pruned.Bytes = p.pruned.Chunks+1, p.pruned.Bytes+info.Size()
	return nil
}

func (p *pruning) remove(path string) error {
	if p.DryRun {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete a chunk: %w", err)
	}
	return nil
}
