package repository

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
)

// Names in the spool:
//
//	w/<experiment>-<writer>/   one writer
//	    lock                   locked while its process lives; its mtime is the last heartbeat
//	    meta.json              who that is
//	    build/                 packs in the making
//	    metrics, output        its streams
//	    published              how far these are published
//	    end                    the records of its end, from when that is decided; empty if it left without ending anything
const (
	writersName = "w"
	lockName    = "lock"
	metaName    = "meta.json"
	buildName   = "build"
	endName     = "end"
)

// A Spool is where the processes of this machine put what is not published yet. For a storage.Local it is the folder tmp/ inside
// it, and publishing is renaming.
type Spool struct {
	repository *Repository
	dir        string
	home       string // the folder to name to people: the storage's if it is local, else dir
	random     io.Reader
	now        func() time.Time // this machine's clock: for display and for how long something took, never for order
	hooked     func(path string)
	pause      func(ctx context.Context, d time.Duration) error // sleep, but for tests

	outbox *outbox     // nil: writers publish before they answer
	remote *Repository // of an outbox: reads also what is not in it; else repository
}

// OpenSpool opens the spool of a repository, which the first writer makes. dir is used for storages that are not local; it becomes
// <dir>/<repository id>.
func OpenSpool(r *Repository, dir string) *Spool {
	dir = filepath.Join(dir, r.ID())
	home := dir
	if local, ok := r.store.(storage.Local); ok {
		home = local.Dir()
		dir = filepath.Join(home, "tmp")
	}
	return &Spool{repository: r, remote: r, dir: dir, home: home, random: rand.Reader, now: time.Now, pause: sleep}
}

// path returns a path in the folder of writers.
func (s *Spool) path(names ...string) string {
	return filepath.Join(append([]string{s.dir, writersName}, names...)...)
}

// meta says whose folder a writer's is.
type meta struct {
	Experiment replicate.ID `json:"experiment"`
	Writer     string       `json:"writer"`
	PID        int          `json:"pid"`
	Host       string       `json:"host"`
	Boot       string       `json:"boot"`
	Guest      bool         `json:"guest,omitempty"` // somebody else ends the experiment
	Begun      bool         `json:"begun"`           // the experiment's record may be visible
}

// parseMeta reads meta.json.
func parseMeta(text []byte) (meta, error) {
	var m meta
	if err := json.Unmarshal(text, &m); err != nil {
		return meta{}, err
	}
	if _, err := replicate.ParseID(string(m.Experiment)); err != nil {
		return meta{}, err
	}
	if b, err := hex.DecodeString(m.Writer); err != nil || len(b) != 8 {
		return meta{}, fmt.Errorf("writer %q", m.Writer)
	}
	return m, nil
}

// save replaces meta.json in a writer's folder, and makes that and all other names there durable.
func (m meta) save(dir string) error {
	text, err := json.Marshal(m)
	if err != nil {
		return err
	}
	return replaceDurably(filepath.Join(dir, metaName), append(text, '\n'))
}

// A writerDir is the locked folder of a writer.
type writerDir struct {
	dir  string
	lock *os.File
	meta meta
}

// newWriterDir makes and locks the folder of a new writer. It appears complete: a process that dies before leaves a name with a dot. It is durable
// with the names of all files in it: of what use is a synced file that cannot be found. Each folder is synced once, when all its names are there.
func (s *Spool) newWriterDir(experiment replicate.ID, guest bool) (*writerDir, error) {
	var id [8]byte
	if _, err := io.ReadFull(s.random, id[:]); err != nil {
		return nil, err
	}
	host, _ := os.Hostname() // unknown is a name too
	f := &writerDir{meta: meta{
		Experiment: experiment, Writer: hex.EncodeToString(id[:]), PID: os.Getpid(), Host: host, Boot: bootID(), Guest: guest,
	}}
	name := string(experiment) + "-" + f.meta.Writer
	f.dir = s.path("." + name)
	err := makeDir(s.path())
	if err == nil {
		err = f.make()
	}
	if err == nil {
		err = os.Rename(f.dir, s.path(name))
	}
	if err != nil {
		f.close()
		os.RemoveAll(f.dir)
		return nil, err
	}
	f.dir = s.path(name)
	if err := syncPath(s.path()); err != nil {
		return nil, errors.Join(err, f.remove())
	}
	return f, nil
}

func (f *writerDir) make() (err error) {
	for _, dir := range []string{f.dir, filepath.Join(f.dir, buildName)} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return err
		}
	}
	for _, stream := range []StreamKind{MetricsStream, OutputStream} {
		if err := os.WriteFile(filepath.Join(f.dir, string(stream)), nil, 0o600); err != nil {
			return err
		}
	}
	if f.lock, err = os.OpenFile(filepath.Join(f.dir, lockName), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(f.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return err
	}
	return f.meta.save(f.dir)
}

// close gives the lock back: what is left in the folder is up to Recover.
func (f *writerDir) close() {
	if f.lock != nil {
		f.lock.Close()
	}
}

// remove removes the folder, and gives the lock back when nothing can be found there any more.
func (f *writerDir) remove() error {
	hidden := filepath.Join(filepath.Dir(f.dir), "."+filepath.Base(f.dir))
	err := os.Rename(f.dir, hidden)
	if err == nil {
		err = os.RemoveAll(hidden)
	}
	f.close()
	return err
}

// begun notes that the experiment's record may be visible from now on, so that whoever finds the folder ends it.
func (f *writerDir) begun() error {
	if f.meta.Begun {
		return nil
	}
	f.meta.Begun = true
	return f.meta.save(f.dir)
}

// decide makes the record of the experiment's end durable before it is published: whoever finds the folder publishes the same bytes.
// Without a record it says that there is nothing to end.
func (f *writerDir) decide(end []byte) error {
	if len(end) > 0 {
		end = append(slices.Clip(end), '\n')
	}
	return replaceDurably(filepath.Join(f.dir, endName), end)
}

// makeDir makes a folder and those above it that are missing, durably.
func makeDir(dir string) error {
	err := os.Mkdir(dir, 0o700)
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist) && dir != filepath.Dir(dir):
		if err := makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		return makeDir(dir)
	case err != nil:
		return err
	}
	return syncPath(filepath.Dir(dir))
}

// replaceDurably replaces a file: at every moment it is the old one or the new one, whole, and the new one when it returns.
func replaceDurably(path string, data []byte) error {
	if err := replaceBy(path, data, (*os.File).Sync); err != nil {
		return err
	}
	return syncPath(filepath.Dir(path))
}

// ReplaceFile replaces a file by rename: who reads it finds the old one or the new one, whole, however many replace it at the same time. It is not made
// durable.
func ReplaceFile(path string, data []byte) error {
	return replaceBy(path, data, func(*os.File) error { return nil })
}

// replaceBy writes a file beside path, has finish do what is to be done with it, and renames it. Several processes may do so at the same time: the last one
// counts.
func replaceBy(path string, data []byte, finish func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".new")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = finish(f)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// syncPath makes a file durable, or the names in a directory.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// bootID names this start of this kernel, "" where it cannot be told.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// problem is the error of doing op to path, with what can be done about it. Names of files in the spool say nothing to anybody: they are left out.
func (s *Spool) problem(op, path string, err error) error {
	if err == nil {
		return nil
	}
	e := &replicate.Error{Op: op, Path: path, Kind: replicate.KindOf(err), Err: err, Hint: replicate.HintOf(err)}
	errno, ok := errors.AsType[syscall.Errno](err)
	switch errno {
	case syscall.ENOSPC, syscall.EDQUOT:
		e.Kind, e.Hint = replicate.Full, "free some space on the disk of "+s.home
	case syscall.EACCES, syscall.EPERM, syscall.EROFS:
		e.Kind, e.Hint = replicate.Permission, "check who owns "+s.home+" and that its disk can be written to"
	}
	if path, isPath := errors.AsType[*fs.PathError](err); ok && isPath && strings.HasPrefix(path.Path, s.dir) {
		e.Err = fmt.Errorf("%s in %s: %w", path.Op, s.home, path.Err)
	}
	return e
}
