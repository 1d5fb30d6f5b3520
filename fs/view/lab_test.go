package view

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage/disk"
	"github.com/replicate/replicate/storage/repository"
)

// A lab is a project with a repository on disk, recorded in by the real writer, and a view of it.
type lab struct {
	t     testing.TB
	root  string
	repo  *repository.Repository
	spool *repository.Spool
	dir   string // of index and cache
	*View
}

// start is when the stories of the tests begin.
var start = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func newLab(t testing.TB) *lab {
	t.Helper()
	l := &lab{t: t, root: t.TempDir(), dir: t.TempDir()}
	store, err := disk.New(filepath.Join(l.root, ".replicate", "storage"))
	l.must(err)
	l.repo, err = repository.Create(l.t.Context(), store)
	l.must(err)
	l.spool = repository.OpenSpool(l.repo, filepath.Join(l.root, ".replicate", "spool"))
	l.reopen()
	t.Cleanup(func() { l.Close() })
	return l
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// reopen makes the view anew, as a server does that was started again.
func (l *lab) reopen() {
	l.t.Helper()
	if l.View != nil {
		l.must(l.Close())
	}
	x, err := index.Open(l.t.Context(), filepath.Join(l.dir, "index"), l.repo, index.Options{Now: func() time.Time { return start }})
	l.must(err)
	l.View, err = New(x, l.repo, filepath.Join(l.dir, "cache"))
	l.must(err)
	l.refresh()
}

func (l *lab) refresh() []Change {
	l.t.Helper()
	changes, err := l.Refresh(l.t.Context())
	l.must(err)
	return changes
}

// write writes files of the project, by path and content.
func (l *lab) write(files ...string) {
	l.t.Helper()
	for i := 0; i < len(files); i += 2 {
		path := filepath.Join(l.root, files[i])
		l.must(os.MkdirAll(filepath.Dir(path), 0o755))
		l.must(os.WriteFile(path, []byte(files[i+1]), 0o644))
	}
}

func (l *lab) begin(e replicate.Experiment) *repository.Writer {
	l.t.Helper()
	if e.ID == "" {
		e.ID = replicate.ID(strings.Repeat(fmt.Sprintf("%04x", time.Now().UnixNano()&0xffff), 8))
	}
	if e.Created.IsZero() {
		e.Created = start
	}
	w, _, err := l.spool.Begin(l.t.Context(), e, repository.WriterOptions{Root: l.root})
	l.must(err)
	return w
}

func (l *lab) commit(w *repository.Writer, step int64, metrics ...any) repository.CommitRow {
	l.t.Helper()
	row, _, err := w.Commit(l.t.Context(), repository.CommitRequest{
		Step: replicate.Step(step), Time: start.Add(time.Duration(step) * time.Second), Metrics: values(metrics...)})
	l.must(err)
	return row
}

func (l *lab) end(w *repository.Writer, s replicate.Status) {
	l.t.Helper()
	l.must(w.End(l.t.Context(), s, nil))
}

// values makes metrics or parameters of names and floats, ints or texts.
func values(pairs ...any) (vs replicate.Values) {
	for i := 0; i < len(pairs); i += 2 {
		var v replicate.Value
		switch x := pairs[i+1].(type) {
		case float64:
			v = replicate.Float(x)
		case int:
			v = replicate.Int(int64(x))
		case string:
			v = replicate.Text(x)
		case replicate.Value:
			v = x
		}
		vs = append(vs, replicate.Member{Name: pairs[i].(string), Value: v})
	}
	return vs
}

func point(step int64, metrics ...any) repository.Point {
	return repository.Point{Step: replicate.Step(step), Time: start.Add(time.Duration(step) * time.Second), Metrics: values(metrics...)}
}

// at finds a path and follows no links.
func (l *lab) at(path string) ID {
	l.t.Helper()
	id := Root
	for name := range strings.SplitSeq(path, "/") {
		next, err := l.Lookup(l.t.Context(), id, name)
		if err != nil {
			l.t.Fatalf("%s of %s: %v", name, path, err)
		}
		id = next
	}
	return id
}

// names lists a directory.
func (l *lab) names(path string) (names []string) {
	l.t.Helper()
	id := Root
	if path != "" {
		id = l.at(path)
	}
	for _, e := range l.list(id) {
		names = append(names, e.Name)
	}
	return names
}

func (l *lab) list(id ID) (entries []Entry) {
	l.t.Helper()
	l.must(l.List(l.t.Context(), id, 0, func(_ uint64, e Entry) bool {
		entries = append(entries, e)
		return true
	}))
	return entries
}

// read returns the content of a node, whole, and checks that its size is what stat says.
func (l *lab) read(id ID) string {
	l.t.Helper()
	a, err := l.Attr(l.t.Context(), id)
	l.must(err)
	r, err := l.Content(l.t.Context(), id)
	l.must(err)
	var b strings.Builder
	_, err = io.Copy(&b, io.NewSectionReader(r, 0, 1<<62))
	l.must(err)
	if int64(b.Len()) != a.Size {
		l.t.Errorf("node %x has %d bytes, stat says %d", uint64(id), b.Len(), a.Size)
	}
	return b.String()
}

func (l *lab) cat(path string) string {
	l.t.Helper()
	return l.read(l.at(path))
}

// walk visits every listed node, depth first.
func (l *lab) walk(visit func(path string, dir ID, e Entry)) {
	l.t.Helper()
	var down func(path string, id ID)
	down = func(path string, id ID) {
		for _, e := range l.list(id) {
			p := strings.TrimPrefix(path+"/"+e.Name, "/")
			visit(p, id, e)
			if e.Mode&TypeMask == TypeDir {
				down(p, e.ID)
			}
		}
	}
	down("", Root)
}

// packPath is the file of a pack.
func (l *lab) packPath(p replicate.Hash) string {
	l.t.Helper()
	found, err := filepath.Glob(filepath.Join(l.root, ".replicate", "storage", "pack", "*", "*"+p.String()[2:]+"*"))
	l.must(err)
	if len(found) != 1 {
		l.t.Fatalf("pack %s is %v", p, found)
	}
	return found[0]
}

// story records two experiments: one that ended, with everything there is, and one that runs.
func (l *lab) story() (first, second *repository.Writer, commits []repository.CommitRow) {
	l.t.Helper()
	l.write("train.py", "print(1)\n", "data/iris.csv", "a,b\n1,2\n")
	exit := 0
	first = l.begin(replicate.Experiment{
		ID: "67386ce1f0c24d5b8a2e7d9c3b6f4a10", Name: "base line", User: "dev", Host: "gpu1", Command: []string{"python", "train.py", "--name=base line"},
		Params: values("learning_rate", 0.01, "epochs", 2, "id", "clash", "optimizer", replicate.Map(values("name", "adam", "beta", 0.9)), "loss", "mse"),
		Metric: &replicate.Metric{Name: "loss", Goal: replicate.Minimize}, Tags: []string{"paper"}, ExitCode: &exit,
		Git:    &replicate.Git{Commit: "4f2a9c1", Branch: "main", Dirty: true, Files: 1, Patch: "--- a\n+++ b\n"},
		Python: &replicate.Python{Version: "3.12", Packages: map[string]string{"torch": "2.3.0", "numpy": "2.0"}},
	})
	l.must(first.Log(point(0, "loss", 2.5)))
	l.must(first.Output([]byte("epoch 0\n")))
	l.write("model.bin", "weights 0\n")
	commits = append(commits, l.commit(first, 0, "loss", 0.5, "train/accuracy", 0.8))
	l.must(first.Log(point(1, "loss", "n/a", "text", "a \"quoted\", cell")))
	l.refresh() // a sync of two commits would number them in any order
	l.write("model.bin", "weights 1\n")
	commits = append(commits, l.commit(first, 1, "loss", 0.25, "train/accuracy", 0.9))
	l.must(first.Output([]byte("epoch 1\n")))
	l.end(first, replicate.Finished)
	l.refresh()

	second = l.begin(replicate.Experiment{ID: "9cce0060f0c24d5b8a2e7d9c3b6f4a10", Created: start.Add(time.Hour), Params: values("learning_rate", 0.2)})
	l.must(second.Log(point(0, "loss", 1.0), point(1, "loss", 0.9)))
	commits = append(commits, l.commit(second, 1, "loss", 0.75))
	l.refresh()
	return first, second, commits
}
