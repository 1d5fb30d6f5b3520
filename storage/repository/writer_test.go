package repository

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/disk"
)

// A lab is a project and a repository to record it in.
type lab struct {
	t     testing.TB
	root  string
	store storage.Store
	repo  *Repository
	spool *Spool
}

func newLab(t testing.TB, store storage.Store) *lab {
	t.Helper()
	repo, err := Create(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, root: t.TempDir(), store: store, repo: repo}
	l.spool = l.open()
	return l
}

// open opens the spool as another process would.
func (l *lab) open() *Spool {
	l.t.Helper()
	return OpenSpool(l.repo, filepath.Join(l.root, ".replicate", "spool"))
}

func (l *lab) id() replicate.ID {
	l.t.Helper()
	id, err := replicate.NewID(l.spool.random)
	if err != nil {
		l.t.Fatal(err)
	}
	return id
}

func (l *lab) begin(o WriterOptions) (*Writer, Snapshot) {
	l.t.Helper()
	o.Root = l.root
	w, snap, err := l.spool.Begin(l.t.Context(), replicate.Experiment{ID: l.id(), Created: time.Now()}, o)
	if err != nil {
		l.t.Fatal(err)
	}
	return w, snap
}

func (l *lab) commit(w *Writer, c CommitRequest) (CommitRow, Snapshot) {
	l.t.Helper()
	c.Time = time.Now()
	row, snap, err := w.Commit(l.t.Context(), c)
	if err != nil {
		l.t.Fatal(err)
	}
	return row, snap
}

// commits returns what a fresh reader finds, by id.
func (l *lab) commits() map[replicate.ID]*CommitRow {
	l.t.Helper()
	found := map[replicate.ID]*CommitRow{}
	for _, r := range l.records() {
		if r.Commit != nil {
			found[r.Commit.ID] = r.Commit
		}
	}
	return found
}

func (l *lab) records() (list []Record) {
	l.t.Helper()
	for b, err := range l.repo.Sync(context.Background(), func(string) bool { return false }) {
		if err != nil || b.Err != nil {
			l.t.Fatal(err, b.Err)
		}
		list = append(list, b.Records...)
	}
	return list
}

// checkout writes a commit's tree to a new directory.
func (l *lab) checkout(row Row) string {
	l.t.Helper()
	tree, err := l.repo.Tree(l.t.Context(), row)
	if err != nil {
		l.t.Fatal(err)
	}
	dir := l.t.TempDir()
	if _, err := l.repo.Checkout(l.t.Context(), tree, CheckoutOptions{Dir: dir}); err != nil {
		l.t.Fatal(err)
	}
	return dir
}

func TestCommitSmallDirectory(t *testing.T) {
	for name, store := range stores(t) {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, store)
			writeFiles(t, l.root, "train.py", "print()\n", "data/x", "1", "empty/", "", "nothing", "")
			w, snap := l.begin(WriterOptions{})
			if snap.Files != 3 || snap.Changed != 3 {
				t.Errorf("began with %+v", snap)
			}
			writeFiles(t, l.root, "model", "weights")
			row, snap := l.commit(w, CommitRequest{Step: replicate.NoStep})
			if snap.Files != 4 || row.Files != 4 || row.Step != 0 || row.Bytes != 16 {
				t.Errorf("committed %+v, %+v", row.Commit, snap)
			}
			again, snap := l.commit(w, CommitRequest{Step: replicate.NoStep})
			if len(again.Tree) != 1 || again.Tree[0] != row.Tree[0] || snap.Added != 0 || again.Step != 1 || again.Parent != row.ID {
				t.Errorf("the unchanged commit is %+v, %+v", again, snap)
			}
			if err := w.End(t.Context(), replicate.Finished, nil); err != nil {
				t.Fatal(err)
			}
			dir := l.checkout(l.commits()[row.ID].Row)
			if b, err := os.ReadFile(dir + "/model"); err != nil || string(b) != "weights" {
				t.Error(string(b), err)
			}
		})
	}
}

func diskAt(t testing.TB, dir string) *disk.Store {
	t.Helper()
	s, err := disk.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func diskStoreB(t testing.TB) *disk.Store { return diskAt(t, t.TempDir()) }
