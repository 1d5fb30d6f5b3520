package legacy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/replicate/replicate"
	"github.com/replicate/replicate/storage"
	"github.com/replicate/replicate/storage/repository"
)

// The prefixes of metadata.
const (
	experimentsPrefix = "metadata/experiments/"
	heartbeatsPrefix  = "metadata/heartbeats/"
	commitsPrefix     = "metadata/commits/"     // F1, F2
	checkpointsPrefix = "metadata/checkpoints/" // F3, F4
)

const (
	// runningFor is the age of a heartbeat from which an experiment has finished: what the old programs took.
	runningFor = 30 * time.Second
	// aheadBy is how much a client's clock may be ahead of ours. A heartbeat from a later time says nothing.
	aheadBy = time.Hour
	// getsAtOnce is how many objects are asked for at the same time: enough to hide a round trip of 30 ms.
	getsAtOnce = 64
)

// A listing is what metadata there is, by the ids in keys.
type listing struct {
	experiments map[replicate.ID]storage.Object
	heartbeats  map[replicate.ID]storage.Object
	commits     []storage.Object // those that have objects of their own
}

// list lists all metadata.
func (r *Repository) list(ctx context.Context) (*listing, error) {
	l := &listing{}
	var err error
	if l.experiments, err = r.listIDs(ctx, experimentsPrefix); err != nil {
		return nil, err
	}
	if l.heartbeats, err = r.listIDs(ctx, heartbeatsPrefix); err != nil {
		return nil, err
	}
	for _, prefix := range []string{commitsPrefix, checkpointsPrefix} {
		commits, err := r.listIDs(ctx, prefix)
		if err != nil {
			return nil, err
		}
		l.commits = slices.AppendSeq(l.commits, maps.Values(commits))
	}
	return l, nil
}

// listIDs returns the objects <prefix><id>.json. Other objects are somebody else's.
func (r *Repository) listIDs(ctx context.Context, prefix string) (map[replicate.ID]storage.Object, error) {
	objects := map[replicate.ID]storage.Object{}
	for o, err := range r.store.List(ctx, prefix, "") {
		if err != nil {
			return nil, err
		}
		if id, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, prefix), ".json"); ok && isID(id) {
			objects[replicate.ID(id)] = o
		}
	}
	return objects, nil
}

// Heartbeats returns the age of the heartbeat of every experiment that is running.
func (r *Repository) Heartbeats(ctx context.Context) (map[replicate.ID]time.Duration, error) {
	beats, err := r.listIDs(ctx, heartbeatsPrefix)
	if err != nil {
		return nil, err
	}
	return r.running(ctx, beats)
}

// running returns the ages of the heartbeats that are young. One whose object is older than the clocks of clients may be wrong is not
// read.
func (r *Repository) running(ctx context.Context, beats map[replicate.ID]storage.Object) (map[replicate.ID]time.Duration, error) {
	ages := map[replicate.ID]time.Duration{}
	now := r.now()
	var young []storage.Object
	for _, o := range beats {
		if now.Sub(o.Time) < aheadBy {
			young = append(young, o)
		}
	}
	for got := range r.readAll(ctx, young) {
		at, id, err := parseHeartbeat(got.data)
		switch {
		case replicate.KindOf(got.err) == replicate.Unavailable, ctx.Err() != nil:
			return nil, errors.Join(got.err, ctx.Err())
		case got.err != nil, err != nil:
			continue // an old program that died while it wrote: its experiment has finished
		}
		if age := now.Sub(at); age < runningFor && age > -aheadBy {
			ages[id] = max(0, age)
		}
	}
	return ages, nil
}

func parseHeartbeat(data []byte) (at time.Time, id replicate.ID, err error) {
	v, err := parse(data)
	if err != nil {
		return at, "", err
	}
	r, err := readObject(v)
	if err != nil {
		return at, "", err
	}
	at, id = r.time("last_heartbeat"), r.id("experiment_id")
	return at, id, r.err
}

// got is an object of metadata that was read.
type got struct {
	object storage.Object
	data   []byte
	err    error
}

// readAll reads objects side by side and yields them in their order.
func (r *Repository) readAll(ctx context.Context, objects []storage.Object) iter.Seq[got] {
	return func(yield func(got) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		pending := make(chan chan got, getsAtOnce)
		wg.Go(func() {
			defer close(pending)
			for _, o := range objects {
				answer := make(chan got, 1)
				select {
				case pending <- answer:
				case <-ctx.Done():
					return
				}
				wg.Go(func() {
					data, err := r.read(ctx, o.Key)
					answer <- got{o, data, err}
				})
			}
		})
		for answer := range pending {
			if !yield(<-answer) {
				return
			}
		}
	}
}

// batchKey names what is yielded for an object: another name whenever that may be something else.
func batchKey(o storage.Object, status string) string {
	return o.Key + "-" + stamp(o.Key, fmt.Sprint(o.Size), o.Time.UTC().Format(time.RFC3339Nano), status)
}

// Sync yields the records of experiments and commits whose objects are new.
func (r *Repository) Sync(ctx context.Context, known func(key string) bool) iter.Seq2[repository.Batch, error] {
	return func(yield func(repository.Batch, error) bool) {
		if r.newer != nil {
			yield(repository.Batch{Key: versionKey, Err: r.newer}, nil)
			return
		}
		l, err := r.list(ctx)
		var running map[replicate.ID]time.Duration
		if err == nil {
			running, err = r.running(ctx, l.heartbeats)
		}
		if err != nil {
			yield(repository.Batch{}, err)
			return
		}
		s := &syncer{r: r, listing: l, running: running, known: known, yield: yield, loose: map[replicate.ID]*looseCommits{}}
		if s.readCommits(ctx) && s.readExperiments(ctx) {
			s.yieldCommits()
		}
		if err := ctx.Err(); err != nil && !s.stopped {
			yield(repository.Batch{}, err)
		}
	}
}

// A syncer is one call of Sync.
type syncer struct {
	*listing
	r       *Repository
	running map[replicate.ID]time.Duration
	known   func(key string) bool
	yield   func(repository.Batch, error) bool
	stopped bool // yield has had enough
	loose   map[replicate.ID]*looseCommits
}

// looseCommits are the commits of one experiment that have objects of their own.
type looseCommits struct {
	commits []commit
	keys    []string // for known
	newest  time.Time
}

func (s *syncer) emit(b repository.Batch) bool {
	s.stopped = s.stopped || !s.yield(b, nil)
	return !s.stopped
}

// damage yields that an object cannot be read. What keeps the storage from answering ends the iteration.
func (s *syncer) damage(key string, err error) bool {
	if replicate.KindOf(err) == replicate.Unavailable || errors.Is(err, context.Canceled) {
		s.stopped = true
		s.yield(repository.Batch{}, err)
		return false
	}
	return s.emit(repository.Batch{Key: key, Err: err})
}

// readCommits reads all commits that have objects of their own if one of them is new: their numbers and their experiments' primary metrics
// depend on all of them.
func (s *syncer) readCommits(ctx context.Context) bool {
	if !slices.ContainsFunc(s.commits, func(o storage.Object) bool { return !s.known(batchKey(o, "")) }) {
		return true
	}
	slices.SortFunc(s.commits, func(a, b storage.Object) int { return strings.Compare(a.Key, b.Key) })
	for got := range s.r.readAll(ctx, s.commits) {
		if errors.Is(got.err, fs.ErrNotExist) {
			continue // deleted meanwhile
		}
		c, err := got.commit()
		if err != nil {
			if !s.damage(got.object.Key, err) {
				return false
			}
			continue
		}
		of := s.loose[c.experiment]
		if of == nil {
			of = &looseCommits{}
			s.loose[c.experiment] = of
		}
		of.commits = append(of.commits, *c)
		of.keys = append(of.keys, batchKey(got.object, ""))
		if got.object.Time.After(of.newest) {
			of.newest = got.object.Time
		}
	}
	for _, of := range s.loose {
		sortCommits(of.commits)
	}
	return true
}

// commit parses what was read of a commit's object.
func (g got) commit() (*commit, error) {
	if g.err != nil {
		return nil, g.err
	}
	c, err := parseCommit(g.data)
	if err == nil && !strings.HasSuffix(g.object.Key, "/"+string(c.id)+".json") {
		err = fmt.Errorf("it is about %s", c.id)
	}
	if err != nil {
		return nil, damaged(g.object.Key, err)
	}
	return c, nil
}

// experiment parses what was read of an experiment's object.
func (g got) experiment() (*experiment, error) {
	if g.err != nil {
		return nil, g.err
	}
	e, err := parseExperiment(g.data)
	if err == nil && g.object.Key != experimentsPrefix+string(e.id)+".json" {
		err = fmt.Errorf("it is about %s", e.id)
	}
	if err != nil {
		return nil, damaged(g.object.Key, err)
	}
	return e, nil
}

// status is what of an experiment changes without its object.
func (s *syncer) status(id replicate.ID) string {
	if _, ok := s.running[id]; ok {
		return "running"
	}
	return ""
}

// readExperiments yields the experiments that are new, and those of loose commits.
func (s *syncer) readExperiments(ctx context.Context) bool {
	var wanted []storage.Object
	for id, o := range s.experiments {
		if s.loose[id] != nil || !s.known(batchKey(o, s.status(id))) {
			wanted = append(wanted, o)
		}
	}
	slices.SortFunc(wanted, func(a, b storage.Object) int { return strings.Compare(a.Key, b.Key) })
	for got := range s.r.readAll(ctx, wanted) {
		if errors.Is(got.err, fs.ErrNotExist) {
			continue
		}
		e, err := got.experiment()
		if err != nil {
			if !s.damage(got.object.Key, err) {
				return false
			}
			continue
		}
		if !s.emit(s.batch(e, got.object)) {
			return false
		}
	}
	return true
}

// batch makes the records of an experiment and of the commits in it.
func (s *syncer) batch(e *experiment, o storage.Object) repository.Batch {
	commits, before := e.commits, o.Time
	if of := s.loose[e.id]; e.commits == nil && of != nil {
		commits = of.commits
		if of.newest.After(before) {
			before = of.newest
		}
	}
	b := repository.Batch{Key: batchKey(o, s.status(e.id))}
	record, err := e.record(commits, s.status(e.id) != "", before)
	if err == nil {
		b.Records, err = records(e.id, e.commits)
		b.Records = append(b.Records, record)
	}
	if err = errors.Join(err, e.damage); err != nil {
		b.Err = damaged(o.Key, err)
	}
	b.Settled = b.Err == nil
	return b
}

// yieldCommits yields the commits that have objects of their own. Those of an experiment that is gone are left out: when an experiment was
// deleted, its commits were left behind.
func (s *syncer) yieldCommits() {
	for id, of := range s.loose {
		b := repository.Batch{Key: of.keys[0], Inputs: of.keys[1:], Settled: true}
		if _, ok := s.experiments[id]; ok {
			var err error
			if b.Records, err = records(id, of.commits); err != nil {
				b.Err, b.Settled = damaged(of.keys[0], err), false
			}
		}
		if !s.emit(b) {
			return
		}
	}
}
