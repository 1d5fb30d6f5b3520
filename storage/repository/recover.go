package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/replicate/replicate"
)

const (
	// staleWriter is how old the last sign of life of a writer must be, whose lock cannot be asked whether it lives: it is of another
	// machine, and locks over network file systems cannot be trusted.
	staleWriter = 7 * 24 * time.Hour
	// staleStart is how old a folder must be that never was complete, or that was being removed.
	staleStart = time.Hour
)

// Recover finishes what dead processes of this machine left: half-made packs go away, points and output that were written are published,
// and their experiments end as Crashed, unless somebody else records them now or ended them. It returns the experiments that it ended. What
// goes wrong with one writer keeps it from none of the others. Where no writer ever was, nothing is made.
func (s *Spool) Recover(ctx context.Context) ([]replicate.ID, error) {
	names, err := os.ReadDir(s.path())
	if missingIsNil(err) != nil {
		return nil, s.problem("recover what was left in", s.home, err)
	}
	var ended []replicate.ID
	var errs []error
	for _, e := range names {
		if strings.HasPrefix(e.Name(), ".") || !s.isComplete(e.Name()) {
			s.removeStale(e)
			continue
		}
		crashed, err := s.recoverWriter(ctx, e.Name())
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", e.Name(), err))
		}
		if crashed != "" {
			ended = append(ended, crashed)
		}
	}
	return ended, s.problem("recover what was left in", s.home, errors.Join(errs...))
}

// isComplete reports whether a folder has what it had when it appeared. The machine may have stopped in the middle of removing it.
func (s *Spool) isComplete(name string) bool {
	_, err := os.Lstat(s.path(name, metaName))
	return !errors.Is(err, fs.ErrNotExist)
}

// removeStale removes a folder whose making or removing was cut off long ago.
func (s *Spool) removeStale(e fs.DirEntry) {
	if info, err := e.Info(); err == nil && s.now().Sub(info.ModTime()) > staleStart {
		_ = os.RemoveAll(s.path(e.Name())) // the next one tries again
	}
}

// recoverWriter finishes one writer if it is dead, and returns the experiment if that ended with it.
func (s *Spool) recoverWriter(ctx context.Context, name string) (replicate.ID, error) {
	own, err := s.seize(name)
	if own == nil {
		return "", err
	}
	crashed, err := s.finishDead(ctx, own)
	if err != nil {
		own.close()
		return "", err
	}
	return crashed, own.remove()
}

// seize locks the folder of a writer that is dead. It returns nil if the writer lives, or may, or if the folder is gone.
func (s *Spool) seize(name string) (*writerDir, error) {
	dir := s.path(name)
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, os.RemoveAll(dir) // it had a lock when it appeared: it was being removed when the machine stopped, and all of it is published
	}
	if err != nil {
		return nil, err
	}
	own := &writerDir{dir: dir, lock: lock}
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		own.close()
		return nil, nil
	}
	text, err := os.ReadFile(filepath.Join(dir, metaName))
	if err == nil {
		own.meta, err = parseMeta(text)
	}
	if err != nil {
		own.close()
		return nil, missingIsNil(err) // removed by who had the lock before
	}
	if !s.surelyDead(own) {
		own.close()
		return nil, nil
	}
	return own, nil
}

func missingIsNil(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// surelyDead reports whether a free lock means that its process is dead: always on a disk of this machine, and for processes of this start of
// this machine.
func (s *Spool) surelyDead(own *writerDir) bool {
	host, _ := os.Hostname()
	if onLocalDisk(own.dir) || own.meta.Boot != "" && own.meta.Boot == bootID() && own.meta.Host == host {
		return true
	}
	return s.now().Sub(own.lastSeen()) > staleWriter
}

// lastSeen is when the writer did something last.
func (f *writerDir) lastSeen() (last time.Time) {
	for _, name := range []string{lockName, metaName, string(MetricsStream), string(OutputStream)} {
		if info, err := os.Stat(filepath.Join(f.dir, name)); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// finishDead publishes what a dead writer left and ends its experiment.
func (s *Spool) finishDead(ctx context.Context, own *writerDir) (replicate.ID, error) {
	if err := os.RemoveAll(filepath.Join(own.dir, buildName)); err != nil {
		return "", err
	}
	if err := os.Mkdir(filepath.Join(own.dir, buildName), 0o700); err != nil {
		return "", err
	}
	m := own.meta
	if !m.Begun {
		return "", s.dropHeartbeat(ctx, m)
	}
	st, err := openStreams(s, m.Experiment, m.Writer, own.dir)
	if err != nil {
		return "", err
	}
	defer st.close()
	if err := st.finish(ctx); err != nil {
		return "", err
	}
	end, err := os.ReadFile(filepath.Join(own.dir, endName))
	if err == nil {
		if _, err := s.repository.store.Put(ctx, logKey(end), bytes.NewReader(end), int64(len(end))); err != nil {
			return "", err
		}
		return "", s.dropHeartbeat(ctx, m)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return s.crash(ctx, own)
}

// crash ends the experiment of a dead writer as crashed, if it was the last to write the heartbeat: else somebody else records it, or ended it.
func (s *Spool) crash(ctx context.Context, own *writerDir) (replicate.ID, error) {
	m := own.meta
	if m.Guest || s.othersLive(m) {
		return "", nil
	}
	if last, err := s.beatLast(ctx, m); err != nil || !last {
		return "", err
	}
	now, err := s.repository.store.Now(ctx)
	if err != nil {
		return "", err
	}
	fields := map[string]json.RawMessage{}
	setDefault(fields, "status", replicate.Crashed)
	setDefault(fields, "ended", own.lastSeen().UTC())
	if _, err := putRecords(ctx, s.repository.store, []Record{{Set: &Set{Experiment: m.Experiment, At: now, Fields: fields}}}); err != nil {
		return "", err
	}
	return m.Experiment, s.dropHeartbeat(ctx, m)
}

// othersLive reports whether another writer of the experiment holds its lock.
func (s *Spool) othersLive(m meta) bool {
	dirs, err := filepath.Glob(s.path(string(m.Experiment) + "-*"))
	if err != nil {
		return false // the pattern is made of hex digits
	}
	for _, dir := range dirs {
		if strings.HasSuffix(dir, m.Writer) {
			continue
		}
		lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR, 0)
		if err != nil {
			continue
		}
		held := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
		lock.Close()
		if held {
			return true
		}
	}
	return false
}

// dropHeartbeat removes the heartbeat of an experiment if it is the writer's.
func (s *Spool) dropHeartbeat(ctx context.Context, m meta) error {
	if last, err := s.beatLast(ctx, m); err != nil || !last {
		return err
	}
	return s.repository.store.Delete(ctx, liveKey(m.Experiment))
}

// beatLast reports whether a dead writer wrote the last heartbeat of its experiment. A damaged one is taken for its own, as heartbeats are not
// synced: the machine stopped while it was written, and whoever lives writes the next one soon.
func (s *Spool) beatLast(ctx context.Context, m meta) (bool, error) {
	beat, err := s.repository.Heartbeat(ctx, m.Experiment)
	if replicate.KindOf(err) == replicate.Corrupt {
		return true, nil
	}
	return err == nil && beat.Writer == m.Writer, missingIsNil(err)
}
