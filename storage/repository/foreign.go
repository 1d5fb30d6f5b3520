package repository

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// A Foreign reads what lies in a storage in another format than this one: its experiments are listed, and its files read, as if they were
// of this format. Nothing is ever written to it.
//
// Its rows have a ForeignTree: where the files are, for Stamp and Extract alone. The first time that somebody wants the files of such a row, all of
// them are extracted, cut, hashed and put into packs in a folder of this machine, from which they are read like all others.
type Foreign interface {
	// ID is 32 hex digits, the same whenever the same storage is opened.
	ID() string
	// Sync is like Repository.Sync. Keys end in 32 hex digits that change with what is yielded for them.
	Sync(ctx context.Context, known func(key string) bool) iter.Seq2[Batch, error]
	// Heartbeats returns the age of the last sign of life of every experiment that counts as running.
	Heartbeats(ctx context.Context) (map[replicate.ID]time.Duration, error)
	// Stamp returns a text that changes whenever the files of a row do.
	Stamp(ctx context.Context, row Row) (string, error)
	// Extract writes the files of a row into an empty folder. The notes name what is missing there, a sentence each.
	Extract(ctx context.Context, row Row, dir string) (notes []string, err error)
}

// ForeignTree returns what a row of a Foreign has for a tree: the commit, or the experiment for the files that it began with. Both ids
// have 64 digits.
func ForeignTree(experiment, id replicate.ID) ([]Ref, error) {
	pack, err := replicate.ParseHash(string(experiment))
	if err != nil {
		return nil, err
	}
	hash, err := replicate.ParseHash(string(id))
	return []Ref{{Pack: pack, Off: uint32(packHead), Len: 1, Hash: hash}}, err
}

// Foreign returns what the row's ForeignTree was made of. No other row has a frame of a tree without bytes.
func (r Row) Foreign() (experiment, id replicate.ID, ok bool) {
	if len(r.Tree) != 1 || r.Tree[0].Raw != 0 {
		return "", "", false
	}
	return replicate.ID(r.Tree[0].Pack.String()), replicate.ID(r.Tree[0].Hash.String()), true
}

// OpenForeign opens a storage that holds another format, with what it may hold in this format beside. Files are kept below dir, which
// is made when it is needed, in a store that open returns.
func OpenForeign(ctx context.Context, store storage.Store, f Foreign, keep func(id string) (storage.Local, error)) (*Repository, error) {
	r, err := Open(ctx, store)
	if _, missing := store.Stat(ctx, configKey); errors.Is(missing, fs.ErrNotExist) {
		r, err = newRepository(store, config{ID: f.ID()}), nil
		r.readOnly = true
	}
	if err != nil {
		return nil, err
	}
	kept, err := keep(r.id)
	if err != nil {
		return nil, openError(store, err)
	}
	r.foreign = &foreign{Foreign: f, kept: kept, last: map[replicate.ID]Row{}}
	return r, nil
}

const (
	// keptRows begins the keys of rows whose files are kept.
	keptRows = "row/"
	// keptBudget is how many bytes of foreign files are kept, all copies of one file being one. Beyond it everything goes, as soon as
	// no process reads from it.
	keptBudget = 20 << 30
)

// foreign is another format of a storage, and the files of it that are kept on this machine: the packs of a repository, and rows by
// the stamp of what they were made of.
type foreign struct {
	Foreign
	kept storage.Local

	open  sync.Mutex // held while spool is made
	spool *Spool     // of kept
	lock  *os.File   // shared, for as long as files are read

	mu   sync.Mutex           // guards last
	last map[replicate.ID]Row // of each experiment, the row whose files were kept last: what the next one has in common with it is stored once
}

// tree returns the tree of a foreign row, whose files are kept when it returns.
func (f *foreign) tree(ctx context.Context, row Row) (*Tree, int64, error) {
	kept, home, notes, err := f.home(ctx, row)
	if err != nil {
		return nil, 0, err
	}
	t, err := kept.Tree(ctx, home)
	if err != nil {
		return nil, 0, err
	}
	t = &Tree{Entries: t.Entries, Files: t.Files, Bytes: t.Bytes, Notes: notes}
	return t, int64(len(t.Entries)) * treeCost * 100, nil
}

// home returns where the files of a foreign row are kept, which they are when it returns: the row that they have there, and what is missing.
func (f *foreign) home(ctx context.Context, row Row) (kept *Repository, home Row, notes []string, err error) {
	spool, err := f.keeper(ctx)
	if err != nil {
		return nil, Row{}, nil, err
	}
	stamp, err := f.Stamp(ctx, row)
	if err != nil {
		return nil, Row{}, nil, err
	}
	name := hashOf([]byte(stamp))
	key := keptRows + hex.EncodeToString(name[:])
	home, notes, err = f.find(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		if home, notes, err = f.keep(ctx, spool, row); err == nil {
			err = f.note(ctx, key, home, notes)
		}
	}
	if err != nil {
		return nil, Row{}, nil, err
	}
	experiment, _, _ := row.Foreign()
	f.mu.Lock()
	f.last[experiment] = home
	f.mu.Unlock()
	return spool.repository, home, notes, nil
}

// keep extracts the files of a row and puts them into packs.
func (f *foreign) keep(ctx context.Context, spool *Spool, row Row) (home Row, notes []string, err error) {
	experiment, id, _ := row.Foreign()
	im, err := spool.newImporter(experiment)
	if err != nil {
		return Row{}, nil, err
	}
	defer im.close()
	f.mu.Lock()
	last := f.last[experiment]
	f.mu.Unlock()
	if err := im.follow(ctx, last); err != nil {
		return Row{}, nil, err
	}
	if notes, err = f.Extract(ctx, row, im.files()); err != nil {
		return Row{}, nil, err
	}
	note := func(t *Tree, added int64) Record {
		return Record{Commit: &CommitRow{Commit: replicate.Commit{ID: id, Experiment: experiment, Files: t.Files, Bytes: t.Bytes, Added: added}}}
	}
	t, err := im.take(ctx, note, nil)
	if err != nil {
		return Row{}, nil, err
	}
	return t.row, notes, putPacks(ctx, f.kept, t.packs)
}

// note remembers where the files of a stamp are: a record, then one note a line.
func (f *foreign) note(ctx context.Context, key string, home Row, notes []string) error {
	record, err := Record{Experiment: &ExperimentRow{Experiment: replicate.Experiment{ID: replicate.ID(strings.Repeat("0", 32))}, Row: home}}.Encode()
	if err != nil {
		return err
	}
	text := string(record.Line) + "\n"
	for _, n := range notes {
		text += strings.ReplaceAll(n, "\n", " ") + "\n"
	}
	_, err = f.kept.Put(ctx, key, strings.NewReader(text), int64(len(text)))
	return err
}

// find returns where the files of a stamp are.
func (f *foreign) find(ctx context.Context, key string) (home Row, notes []string, err error) {
	text, err := readObject(ctx, f.kept, key, 0, -1)
	if err != nil {
		return Row{}, nil, err
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	record, err := ParseRecord([]byte(lines[0]))
	if err != nil || record.Experiment == nil {
		return Row{}, nil, fs.ErrNotExist // it is made again
	}
	for _, pack := range record.Experiment.Packs {
		if _, err := f.kept.Stat(ctx, packKey(pack)); err != nil {
			return Row{}, nil, err
		}
	}
	return record.Experiment.Row, slices.Clip(lines[1:]), nil
}

// keeper returns the spool of what is kept. Where too much is kept and nobody reads from it, it begins anew.
func (f *foreign) keeper(ctx context.Context) (*Spool, error) {
	f.open.Lock()
	defer f.open.Unlock()
	if f.spool != nil {
		return f.spool, nil
	}
	dir := f.kept.Dir()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil && folderSize(dir) > keptBudget {
		for _, name := range []string{keptRows, packPrefix, "tmp"} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				lock.Close()
				return nil, err
			}
		}
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_SH)
	var r *Repository
	if err == nil {
		r, err = Create(ctx, f.kept)
	}
	if err != nil {
		lock.Close()
		return nil, fmt.Errorf("keep files in %s: %w", dir, err)
	}
	f.lock, f.spool = lock, OpenSpool(r, "")
	_, _ = f.spool.Recover(ctx) // what processes left that died; it is tried again
	return f.spool, nil
}

func folderSize(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil {
			if info, err := e.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}

// keptPack opens a pack of foreign files, nil if there is no such pack.
func (r *Repository) keptPack(key string) *os.File {
	if r.foreign == nil {
		return nil
	}
	file, err := os.Open(r.foreign.kept.Path(key))
	if err != nil {
		return nil
	}
	return file
}

// syncForeign yields what is new in the other format, with the keys that known knows.
func (r *Repository) syncForeign(ctx context.Context, known func(key string) bool, yield func(Batch, error) bool) {
	for batch, err := range r.foreign.Sync(ctx, known) {
		if err != nil {
			err = &replicate.Error{Op: "read", Path: r.store.URL(), Kind: replicate.KindOf(err), Err: err}
		}
		if !yield(batch, err) || err != nil {
			return
		}
	}
}
