package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path"
	"path/filepath"
	"runtime/debug"
	"slices"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/index"
	"github.com/replicate/replicate/storage"
	_ "github.com/replicate/replicate/storage/disk" // file: URLs and paths
	_ "github.com/replicate/replicate/storage/gcs"  // gs: URLs
	"github.com/replicate/replicate/storage/project"
	"github.com/replicate/replicate/storage/repository"
	_ "github.com/replicate/replicate/storage/s3" // s3: URLs
)

// storageFlags are the flags of every command that needs a repository.
func storageFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "storage-url", Aliases: []string{"S"}, Usage: "the storage at `URL` instead of that of replicate.yaml"},
		&cli.StringFlag{Name: "source-directory", Aliases: []string{"D"}, Usage: "look for replicate.yaml from `DIR` upward"},
	}
}

// wantArgs checks the number of arguments; most < 0 is any number.
func wantArgs(c *cli.Context, least, most int, what string) error {
	if n := c.NArg(); n >= least && (most < 0 || n <= most) {
		return nil
	}
	e := replicate.Errorf(replicate.Usage, "%s wants %s", c.Command.Name, what)
	if c.NArg() > least {
		e = replicate.Errorf(replicate.Usage, "%s wants %s, got %q too", c.Command.Name, what, c.Args().Get(most))
	}
	return e.WithHint("replicate %s -h shows how", c.Command.Name)
}

// A session is an open repository with its index, brought up to date.
type session struct {
	w       *world
	ctx     context.Context
	stop    context.CancelFunc
	project *project.Project
	repo    *repository.Repository // nil: nothing was recorded here yet
	index   *index.Index
	cache   *repository.Cache // of what was read from afar
	guesses guesses
}

// open finds the project and the storage of a command, and syncs the index. The files of refs will be read.
func (w *world) open(c *cli.Context, refs ...string) (*session, error) {
	p, err := w.project(c)
	if err != nil {
		return nil, err
	}
	startUploaders(p)
	s := &session{w: w, project: p}
	s.ctx, s.stop = signal.NotifyContext(c.Context, os.Interrupt, syscall.SIGTERM)
	r, offline, err := w.openRepository(s.ctx, p.StorageURL, storage.Person.Patience, p.Cache, func(before *repository.Repository) { s.guess(before, refs) })
	switch {
	case replicate.KindOf(err) == replicate.NotFound && c.String("storage-url") == "":
		s.leave()
		return s, nil
	case err == nil:
		err = s.use(r)
	}
	if err == nil && !offline {
		err = s.sync()
	}
	if err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// use makes r the repository of the session, unless it is.
func (s *session) use(r *repository.Repository) (err error) {
	if s.repo == r && s.index != nil {
		return nil
	}
	s.leave()
	s.repo = r
	if err := s.useCache(); err != nil {
		return err
	}
	s.index, err = index.Open(s.ctx, s.project.Cache(r.ID()), r, indexOptions(s.project.Config, s.w.now))
	return err
}

// leave ends what use began.
func (s *session) leave() {
	s.stopGuessing()
	if s.index != nil {
		s.index.Close() // nothing is lost: the index can be rebuilt
	}
	if s.cache != nil {
		s.cache.Wait()
	}
	s.repo, s.index, s.cache = nil, nil, nil
}

// sync brings the index up to date.
func (s *session) sync() error {
	s.finishDead()
	warnings, err := s.index.Sync(s.ctx)
	if err != nil {
		return err
	}
	s.w.remember(s.project.StorageURL, s.repo)
	startMerger(s.repo)
	for _, warning := range warnings {
		s.w.warn(warning)
	}
	return nil
}

// project finds the project of a command by its flags and the environment.
func (w *world) project(c *cli.Context) (*project.Project, error) {
	dir := w.dir
	if d := c.String("source-directory"); d != "" {
		dir = w.abs(d)
	}
	return project.Find(dir, project.Options{
		StorageFlag: c.String("storage-url"),
		StorageEnv:  w.getenv("REPLICATE_STORAGE"),
		WorkingDir:  w.dir,
		Home:        w.getenv("HOME"),
		UserCache:   w.cacheDir(),
	})
}

// cacheDir is where the user's caches are: $XDG_CACHE_HOME, else ~/.cache, else the temporary directory.
func (w *world) cacheDir() string {
	if dir := w.getenv("XDG_CACHE_HOME"); filepath.IsAbs(dir) {
		return dir
	}
	if home := w.getenv("HOME"); home != "" {
		return filepath.Join(home, ".cache")
	}
	return filepath.Join(os.TempDir(), fmt.Sprintf("cache-%d", os.Getuid()))
}

// useCache lets the repository keep what it fetches from afar.
func (s *session) useCache() error {
	size, err := s.w.cacheSize()
	if err != nil {
		return err
	}
	warn := func(err error) { s.w.report("warning", err) }
	s.cache = repository.NewCache(s.project.Cache(s.repo.ID()), size, warn)
	s.repo.UseCache(s.cache)
	return nil
}

// cacheSize is how many bytes REPLICATE_CACHE_SIZE allows a cache, 0 if it says nothing.
func (w *world) cacheSize() (int64, error) {
	text := w.getenv("REPLICATE_CACHE_SIZE")
	if text == "" {
		return 0, nil
	}
	size, ok := index.ParseSize(text)
	if !ok || size < 1 {
		return 0, replicate.Errorf(replicate.Usage, "REPLICATE_CACHE_SIZE is %q, expected a size", text).WithHint("such as 20GB")
	}
	return int64(size), nil
}

// indexOptions are the goals that the reader's replicate.yaml declares, the primary metric first.
func indexOptions(config *replicate.Config, now func() time.Time) index.Options {
	o := index.Options{Now: now}
	if primary := config.Primary(); primary != nil {
		o.Metrics, o.Primary = append(o.Metrics, *primary), true
	}
	for _, m := range config.Metrics {
		if !m.Primary {
			o.Metrics = append(o.Metrics, replicate.Metric{Name: m.Name, Goal: m.Goal})
		}
	}
	return o
}

// finishDead ends the experiments of processes of this machine that died with their recorder. Who may only read leaves that to others.
func (s *session) finishDead() {
	if _, local := s.repo.Store().(storage.Local); !local {
		return // the uploader does
	}
	_, err := repository.OpenSpool(s.repo, s.project.Spool()).Recover(s.ctx)
	if err != nil && replicate.KindOf(err) != replicate.Permission {
		s.w.report("warning", err)
	}
}

// lazyGC lets the heap grow to this many percent of what is alive before it is collected. Commands that answer a question live for
// less than a second: with the default a quarter of the time of a large ls goes into collecting.
// Beyond lazyHeap bytes it is collected as often as it takes to stay there.
const (
	lazyGC   = 800
	lazyHeap = 512 << 20
)

// with runs f in a session, for a command that answers and ends. The files of refs will be read.
func (w *world) with(c *cli.Context, f func(*session) error, refs ...string) error {
	debug.SetGCPercent(lazyGC)
	debug.SetMemoryLimit(lazyHeap)
	s, err := w.open(c, refs...)
	if err != nil {
		return err
	}
	defer s.close()
	return f(s)
}

// print runs f with a buffer in front of stdout.
func (w *world) print(f func(*bufio.Writer) error) error {
	out := bufio.NewWriter(w.stdout)
	if err := f(out); err != nil {
		return err
	}
	return out.Flush()
}

func (s *session) close() {
	s.leave()
	s.stop()
}

func (s *session) list(q index.Query) ([]*index.Experiment, error) {
	if s.index == nil {
		return nil, nil
	}
	experiments, notes, err := s.index.List(s.ctx, q)
	for _, note := range notes {
		s.w.say("replicate: %s", note)
	}
	return experiments, err
}

// resolve finds what a person typed.
func (s *session) resolve(ref string) (index.Target, error) {
	if s.index == nil {
		return index.Target{}, replicate.Errorf(replicate.NotFound, "%s: there are no experiments in %s", ref, s.project.StorageURL).
			WithHint("a script makes one with replicate.init(), or name another storage with -S")
	}
	return s.index.Resolve(s.ctx, ref)
}

// rowOf returns where the files of a target are.
func (s *session) rowOf(t index.Target) (repository.Row, error) {
	row, _, err := s.rowAndCommit(t)
	return row, err
}

// rowAndCommit returns the commit that a target stands for and where its files are: an experiment stands for its best commit,
// else its latest, else (with no commit) the code it started with. What was taken is said on stderr.
func (s *session) rowAndCommit(t index.Target) (repository.Row, *index.Commit, error) {
	commit, taken := stoodFor(t)
	if taken != "" {
		s.w.say("%s", taken)
	}
	row, err := s.rowFor(s.ctx, t, commit)
	return row, commit, err
}

// stoodFor returns the commit that a target stands for, nil if there is none, and what is to be said of that.
func stoodFor(t index.Target) (commit *index.Commit, taken string) {
	switch e := t.Experiment; {
	case t.Commit != nil:
		return t.Commit, ""
	case e.Best != nil:
		return e.Best, fmt.Sprintf("%s is an experiment, taking its best commit %s", e.ID.Short(), e.Best.ID.Short())
	case e.Latest != nil:
		return e.Latest, fmt.Sprintf("%s is an experiment, taking its latest commit %s", e.ID.Short(), e.Latest.ID.Short())
	default:
		return nil, fmt.Sprintf("%s has no commits, taking the code it started with", e.ID.Short())
	}
}

// rowFor returns where the files of a commit of a target are, or with none those of its code.
func (s *session) rowFor(ctx context.Context, t index.Target, commit *index.Commit) (repository.Row, error) {
	if commit == nil {
		return s.index.CodeTree(ctx, t.Experiment.ID)
	}
	return s.index.Row(ctx, commit)
}

// tree returns the files of a row, and says on stderr what of them is missing.
func (s *session) tree(row repository.Row) (*repository.Tree, error) {
	tree, err := s.repo.TreeNear(s.ctx, row)
	if err == nil {
		for _, note := range tree.Notes {
			s.w.report("warning", errors.New(note))
		}
	}
	return tree, err
}

// find returns the regular file at a path of a tree. Symlinks that stay inside the tree are followed.
func find(tree *repository.Tree, name string) (*repository.Entry, error) {
	at := path.Clean(name)
	for range 40 { // as the kernel does
		e := tree.Lookup(at)
		switch {
		case e == nil:
			return nil, noSuchPath(tree, name)
		case e.Kind == repository.Dir:
			return nil, replicate.Errorf(replicate.Usage, "is a directory").WithHint("replicate checkout --path copies directories")
		case e.Kind == repository.File:
			return e, nil
		}
		at = path.Join(path.Dir(at), e.Target)
	}
	return nil, replicate.Errorf(replicate.Usage, "too many symlinks")
}

func noSuchPath(tree *repository.Tree, name string) error {
	paths := make([]string, len(tree.Entries))
	for i := range tree.Entries {
		paths[i] = tree.Entries[i].Path
	}
	e := replicate.Errorf(replicate.NotFound, "no such file in the commit")
	return e.WithHint("%s", cmp.Or(replicate.DidYouMean(name, paths), "replicate show --files lists them"))
}

// noteCheckout leaves in dir which commit was checked out there: the parent of the next experiment of that directory.
func noteCheckout(dir string, commit replicate.ID, at time.Time) error {
	note, err := json.Marshal(struct {
		Commit replicate.ID `json:"commit"`
		At     time.Time    `json:"at"`
	}{commit, at.UTC()})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, ".replicate", "checkout")
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("note the checkout: %w", err)
	}
	if err := os.WriteFile(file, append(note, '\n'), 0o600); err != nil {
		return fmt.Errorf("note the checkout: %w", err)
	}
	return nil
}

// abs makes a path as typed absolute.
func (w *world) abs(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(w.dir, p)
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
